"""Every optimizer against torch, timm or MindSpore, with layer-wise rates and decay groups."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from torch_oracle import torch

from src.args import OptimConfig
from src.models.registry import create_model
from src.models.weights import reference_names
from src.optim.optimizer import AdamW, AdamWeightDecay, Optimizer, create_optimizer, layer_scales

# Names, shapes, whether they decay, and groups from the stem to the head.
SHAPES = {"stem": (3, 4, 2, 2), "position": (1, 6, 8), "norm": (5,), "mid": (7, 5), "head": (4, 7)}
DECAY = [True, False, False, True, True]
GROUPS = [["stem", "position"], ["norm", "mid"], ["head"]]
LAYER_DECAY = 0.5
SCALES = [0.25, 0.25, 0.5, 0.5, 1.0]
STEPS = 50
WEIGHT_DECAY, BETA, EPS, MOMENTUM = 0.3, (0.8, 0.95), 1e-3, 0.7
OPTIMIZERS = ["adamw", "adamweightdecay", "sgd", "momentum", "lamb", "lion"]


class Weights(nn.Cell):
    """Parameters alone: all that an optimizer sees of a network."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in zip(SHAPES, random_tensors(0)):
            self.insert_param_to_cell(name, Parameter(Tensor(value), name=name))

    def no_weight_decay(self) -> set:
        return {"position"}

    def layer_groups(self) -> List[List[str]]:
        return GROUPS


def random_tensors(seed: int, scale: float = 1.0) -> List[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES.values()]


def grads_of(step: int) -> List[np.ndarray]:
    """Gradients whose size changes by a thousand, and once are all zero."""
    return random_tensors(100 + step, scale=0.0 if step == 7 else 10.0 ** (step % 4 - 2))


def lr_of(step: int) -> float:
    return 0.01 * (1 + step % 5)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def run(optimizer: Optimizer, steps: Sequence[int]) -> None:
    for step in steps:
        grads = tuple(Tensor(grad) for grad in grads_of(step))
        optimizer(ms.mutable(grads), Tensor(lr_of(step), ms.float32))


def torch_weights(build: Callable[[List[dict]], Any]) -> List[np.ndarray]:
    """The weights after STEPS of a torch optimizer, in float64."""
    weights = [torch.nn.Parameter(torch.tensor(w).double()) for w in random_tensors(0)]
    groups = [
        {"params": [weight], "weight_decay": WEIGHT_DECAY if flag else 0.0}
        for weight, flag in zip(weights, DECAY)
    ]
    reference = build(groups)
    for step in range(STEPS):
        for group, scale in zip(reference.param_groups, SCALES):
            group["lr"] = lr_of(step) * scale
        for weight, grad in zip(weights, grads_of(step)):
            weight.grad = torch.tensor(grad).double()
        reference.step()
    return [weight.detach().numpy() for weight in weights]


def mindspore_weights() -> List[np.ndarray]:
    """The weights after STEPS of mindspore.nn.AdamWeightDecay."""
    weights = Weights().trainable_params()
    groups: List[Dict[str, Any]] = [
        {
            "params": [weight],
            "weight_decay": WEIGHT_DECAY if flag else 0.0,
            "lr": [lr_of(step) * scale for step in range(STEPS)],
        }
        for weight, flag, scale in zip(weights, DECAY, SCALES)
    ]
    reference = nn.AdamWeightDecay(groups, 0.1, beta1=BETA[0], beta2=BETA[1], eps=EPS)
    for step in range(STEPS):
        reference(tuple(Tensor(grad) for grad in grads_of(step)))
    return [weight.asnumpy() for weight in weights]


def expected_weights(name: str) -> List[np.ndarray]:
    from timm.optim import Lamb, Lion, create_optimizer_v2

    if name == "adamweightdecay":
        return mindspore_weights()
    adam: Dict[str, Any] = {"lr": 1.0, "betas": BETA, "eps": EPS}
    return torch_weights(
        {
            "adamw": lambda groups: torch.optim.AdamW(groups, **adam),
            "sgd": lambda groups: create_optimizer_v2(groups, "sgd", lr=1.0, momentum=MOMENTUM),
            "momentum": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=MOMENTUM),
            "lamb": lambda groups: Lamb(groups, max_grad_norm=None, **adam),
            "lion": lambda groups: Lion(groups, lr=1.0, betas=BETA),
        }[name]
    )


def config_of(name: str) -> OptimConfig:
    return OptimConfig(
        optimizer=name,
        weight_decay=WEIGHT_DECAY,
        beta=BETA,
        eps=EPS,
        momentum=MOMENTUM,
        layer_decay=LAYER_DECAY,
    )


class Trained(NamedTuple):
    """An optimizer after STEPS, and what it and its weights were half way."""

    network: Weights
    optimizer: Optimizer
    half_way: Dict[str, np.ndarray]


@pytest.fixture(scope="module", params=OPTIMIZERS)
def trained(request: pytest.FixtureRequest) -> Trained:
    network = Weights()
    optimizer = create_optimizer(config_of(request.param), network)
    run(optimizer, range(STEPS // 2))
    half_way = {p.name: p.asnumpy().copy() for p in optimizer.get_parameters()}
    run(optimizer, range(STEPS // 2, STEPS))
    return Trained(network, optimizer, half_way)


def test_fifty_steps_equal_the_reference(trained: Trained, request: pytest.FixtureRequest) -> None:
    expected = expected_weights(request.node.callspec.params["trained"])
    for weight, reference in zip(trained.network.trainable_params(), expected):
        assert relative(weight.asnumpy(), reference) < 1e-5, weight.name
    assert int(trained.optimizer.updates.asnumpy()) == STEPS


def test_state_resumes_by_name(trained: Trained, request: pytest.FixtureRequest) -> None:
    network = Weights()
    resumed = create_optimizer(config_of(request.node.callspec.params["trained"]), network)
    assert {p.name for p in resumed.get_parameters()} == set(trained.half_way)
    for parameter in resumed.get_parameters():
        parameter.set_data(Tensor(trained.half_way[parameter.name]))
    run(resumed, range(STEPS // 2, STEPS))
    ends = zip(resumed.get_parameters(), trained.optimizer.get_parameters())
    for ours, expected in ends:
        np.testing.assert_array_equal(ours.asnumpy(), expected.asnumpy())


def test_state_is_float32_and_named_train(trained: Trained) -> None:
    state = {name: value for name, value in trained.half_way.items() if name not in SHAPES}
    assert all(name.startswith("train.") for name in state)
    assert state.pop("train.updates") == STEPS // 2
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("step", [1, 2])
def test_without_bias_correction_the_first_updates_are_larger(step: int) -> None:
    """(1 - b1^t) / sqrt(1 - b2^t) times AdamW's for a constant gradient: 3.16 times at first."""
    moved = []
    for kind in (AdamWeightDecay, AdamW):
        weight = Parameter(Tensor(np.zeros((2, 2), np.float32)), name="w")
        optimizer = kind([weight], [True], weight_decay=0.0, beta=(0.9, 0.999), eps=1e-12)
        grad = Tensor(np.full((2, 2), 0.5, np.float32))
        for _ in range(step):
            earlier = weight.asnumpy().copy()
            optimizer(ms.mutable((grad,)), Tensor(0.1, ms.float32))
        moved.append(weight.asnumpy() - earlier)
    expected = (1 - 0.9**step) / np.sqrt(1 - 0.999**step)
    np.testing.assert_allclose(moved[0] / moved[1], expected, rtol=1e-5)


def test_lamb_moves_a_matrix_of_zeros() -> None:
    """Without the exception for a norm of 0 it would never move."""
    network = Weights()
    network.head.set_data(Tensor(np.zeros(SHAPES["head"], np.float32)))
    run(create_optimizer(config_of("lamb"), network), [0])
    grad = grads_of(0)[-1]
    expected = -lr_of(0) * grad / (np.abs(grad) + EPS)
    np.testing.assert_allclose(network.head.asnumpy(), expected, rtol=1e-5)


def test_layer_scales() -> None:
    assert layer_scales(Weights(), LAYER_DECAY) == SCALES
    assert layer_scales(Weights(), 1.0) == layer_scales(Weights(), None) == [1.0] * 5


@pytest.mark.parametrize(
    ("name", "reference", "keywords"),
    [
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224", {"img_size": 32, "depth": 4}),
        ("pcpvt_small_v0", "twins_pcpvt_small", {"img_size": 32}),
        ("convmixer_768_32", "convmixer_768_32", {}),
    ],
)
def test_layer_scales_equal_timm(name: str, reference: str, keywords: Dict[str, Any]) -> None:
    """But for the last norm: timm counts it to the last block, we, as BEiT, to the head."""
    import timm
    from timm.optim import param_groups_layer_decay

    theirs = timm.create_model(reference, num_classes=5, **keywords)
    names = {id(parameter): name for name, parameter in theirs.named_parameters()}
    excluded = getattr(theirs, "no_weight_decay", set)()
    groups = param_groups_layer_decay(
        theirs, WEIGHT_DECAY, no_weight_decay_list=excluded, layer_decay=LAYER_DECAY
    )
    expected = {
        names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]
    }
    decaying = {
        names[id(parameter)]
        for group in groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    sized = {"img_size": 28} if name.startswith("convmixer") else {}
    network = create_model(name, num_classes=5, **keywords, **sized)
    known = reference_names(network)
    scales = zip(network.trainable_params(), layer_scales(network, LAYER_DECAY))
    ours = {known[parameter.name]: scale for parameter, scale in scales}
    for last in ("norm.weight", "norm.bias"):
        if last in ours:
            assert (ours.pop(last), expected.pop(last)) == (1.0, LAYER_DECAY)
    assert ours == pytest.approx(expected, rel=1e-12)
    optimizer = create_optimizer(config_of("adamw"), network)
    flags = zip(optimizer.parameters, optimizer.decay)
    assert {known[parameter.name] for parameter, decay in flags if decay} == decaying


def test_layer_scales_of_convnext_equal_the_authors() -> None:
    """Layer ids 0 to 13 for the models with 27 blocks in stage 3: 12 layers, stem and head."""
    network = create_model("convnext_small", num_classes=10, img_size=32, dims=[2, 2, 2, 2])
    scales = dict(zip([p.name for p in network.trainable_params()], layer_scales(network, 0.8)))
    expected = {
        "stem.0.weight": 0.8**13,
        "stages.0.blocks.2.conv_dw.weight": 0.8**12,
        "stages.1.blocks.0.conv_dw.weight": 0.8**11,
        "stages.2.blocks.0.conv_dw.weight": 0.8**10,
        "stages.2.blocks.26.conv_dw.weight": 0.8**2,
        "stages.3.blocks.0.conv_dw.weight": 0.8,
        "head.fc.weight": 1.0,
    }
    assert {name: scales[name] for name in expected} == pytest.approx(expected)
