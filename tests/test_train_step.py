"""Optimizers, clipping, loss scale and the training step against torch."""

from __future__ import annotations

from typing import List, Tuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from torch_oracle import torch

from src.args import OptimConfig
from src.data.augment.batch_transform import BatchTransform
from src.tools.amp import LossScale, apply_amp
from src.tools.criterion import SoftTargetCrossEntropy
from src.tools.optimizer import AdamW, Momentum, create_optimizer
from src.trainer.train_one_step import NetWithLoss, TrainOneStep, global_norm

SHAPES = [(7, 5), (5,), (3, 4, 2, 2), (1, 6, 8)]
DECAY = [True, False, True, False]


def random_tensors(seed: int, scale: float = 1.0) -> List[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def torch_groups(weights: List[torch.nn.Parameter], weight_decay: float) -> List[dict]:
    return [
        {"params": [w], "weight_decay": weight_decay if flag else 0.0}
        for w, flag in zip(weights, DECAY)
    ]


@pytest.mark.parametrize("kind", ["adamw", "momentum"])
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_optimizer_equals_torch_over_50_steps(kind: str, eps: float) -> None:
    initial = random_tensors(0)
    ours = [Parameter(Tensor(w), name=f"w{i}") for i, w in enumerate(initial)]
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in initial]
    groups = torch_groups(theirs, 0.05)
    if kind == "adamw":
        optimizer = AdamW(ours, DECAY, weight_decay=0.05, beta=(0.9, 0.999), eps=eps)
        reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=eps)
    else:
        optimizer = Momentum(ours, DECAY, weight_decay=0.05, momentum=0.9)
        reference = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    for step in range(50):
        lr = 0.01 * (1 + step % 5)
        grads = random_tensors(100 + step, scale=10.0 ** (step % 4 - 2))
        optimizer(ms.mutable(tuple(Tensor(g) for g in grads)), Tensor(lr, ms.float32))
        for group in reference.param_groups:
            group["lr"] = lr
        for weight, grad in zip(theirs, grads):
            weight.grad = torch.tensor(grad)
        reference.step()
    for our, their in zip(ours, theirs):
        assert relative(our.asnumpy(), their.detach().numpy()) < 1e-5


class TinyNet(nn.Cell):
    """(B, 3, 4, 4) -> (B, 3): enough for a matrix, a bias and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Dense(48, 8)
        self.norm = nn.LayerNorm((8,), epsilon=1e-5)
        self.fc2 = nn.Dense(8, 3)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.fc1(self.flatten(x))))

    def no_weight_decay(self) -> set:
        return {"fc2.weight"}


def torch_twin(net: TinyNet) -> torch.nn.Sequential:
    twin = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)
    )
    with torch.no_grad():
        for their, our in zip(twin.parameters(), net.trainable_params()):
            their.copy_(torch.tensor(our.asnumpy()))
    return twin


def build_step(net: nn.Cell, optim: OptimConfig, loss_scale: LossScale) -> TrainOneStep:
    transform = BatchTransform(
        6, 4, num_classes=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), label_smoothing=0.1
    )
    step = TrainOneStep(
        NetWithLoss(transform, net, SoftTargetCrossEntropy()),
        create_optimizer(optim, net),
        loss_scale,
        step=Parameter(Tensor(0, ms.int32), name="train.step", requires_grad=False),
        clip_norm=optim.clip_global_norm_value,
    )
    return step.set_train(True)


def batch(seed: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    mix = np.zeros((6, 5), np.float32)
    mix[:, 0] = 0.7
    return image, rng.integers(0, 3, 6).astype(np.int32), mix


def run(step: TrainOneStep, data: Tuple[np.ndarray, ...], lr: float) -> List[float]:
    outputs = step(*(Tensor(array) for array in data), Tensor(lr, ms.float32))
    return [float(x.asnumpy()) for x in outputs]


def torch_loss(twin: torch.nn.Module, data: Tuple[np.ndarray, ...]) -> torch.Tensor:
    image, label, mix = data
    x = torch.tensor(image).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(
        1, 3, 1, 1
    )
    lam = float(mix[0, 0])
    x = lam * x + (1 - lam) * x.flip(0)
    hot = torch.nn.functional.one_hot(torch.tensor(label).long(), 3) * 0.9 + 0.1 / 3
    target = lam * hot + (1 - lam) * hot.flip(0)
    return torch.nn.functional.cross_entropy(twin(x), target)


@pytest.mark.parametrize("clip", [None, 0.05, 100.0])
@pytest.mark.parametrize("scale", [1024.0])
def test_twenty_steps_equal_torch(clip: float, scale: float) -> None:
    net = TinyNet()
    twin = torch_twin(net)
    optim = OptimConfig(weight_decay=0.1, clip_global_norm_value=clip)
    step = build_step(net, optim, LossScale(scale, dynamic=False, factor=2.0, window=5))
    by_name = dict(zip([p.name for p in net.trainable_params()], twin.parameters()))
    reference = torch.optim.AdamW(
        [
            {"params": [p], "weight_decay": 0.1 if name == "fc1.weight" else 0.0}
            for name, p in by_name.items()
        ],
        lr=1.0,
        eps=1e-8,
    )
    for number in range(20):
        lr, data = 0.001 * (number + 1), batch(number)
        loss, norm, finite, used_scale = run(step, data, lr)
        reference.zero_grad()
        expected = torch_loss(twin, data)
        expected.backward()
        limit = clip if clip is not None else float("inf")
        expected_norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), limit)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
        assert norm == pytest.approx(float(expected_norm), rel=1e-3)
        assert (finite, used_scale) == (1.0, scale)
    for parameter in net.trainable_params():
        assert relative(parameter.asnumpy(), by_name[parameter.name].detach().numpy()) < 1e-3


def snapshot(step: TrainOneStep) -> dict:
    return {p.name: p.asnumpy().copy() for p in step.get_parameters()}


def test_overflow_changes_nothing_but_scale_and_step() -> None:
    net = TinyNet()
    step = build_step(net, OptimConfig(), LossScale(8.0, dynamic=True, factor=2.0, window=3))
    run(step, batch(0), 0.01)
    before = snapshot(step)
    image, label, mix = batch(1)
    mix[2, 0] = np.inf
    _, norm, finite, _ = run(step, (image, label, mix), 0.01)
    assert not finite
    assert not np.isfinite(norm)
    after = snapshot(step)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"train.loss_scale", "train.finite_steps", "train.step"}
    assert after["train.loss_scale"] == 4.0
    assert after["train.finite_steps"] == 0
    assert after["train.updates"] == 1


def test_loss_scale_grows_after_a_window_and_stays_within_float32() -> None:
    scale = LossScale(2.0, dynamic=True, factor=2.0, window=3)
    yes, no = Tensor(True), Tensor(False)
    values = [float(scale(finite).asnumpy()) for finite in (yes, yes, yes, yes, no, no, no, no)]
    assert values == [2.0, 2.0, 4.0, 4.0, 2.0, 1.0, 1.0, 1.0]
    large = LossScale(2.0**126, dynamic=True, factor=2.0, window=1)
    assert float(large(yes).asnumpy()) == 2.0**126
    fixed = LossScale(16.0, dynamic=False, factor=2.0, window=1)
    assert [float(fixed(f).asnumpy()) for f in (yes, no)] == [16.0, 16.0]


def test_global_norm_equals_numpy() -> None:
    tensors = random_tensors(3)
    expected = np.sqrt(sum(np.square(t.astype(np.float64)).sum() for t in tensors))
    assert float(global_norm(tuple(Tensor(t) for t in tensors)).asnumpy()) == pytest.approx(
        expected
    )


def test_o2_computes_in_float16_but_for_norms_and_keeps_float32_weights() -> None:
    net = TinyNet()
    apply_amp(net, "O2")
    image = Tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32))
    assert net(image).dtype == ms.float16
    assert net.fc1(net.flatten(image)).dtype == ms.float16
    assert net.norm(net.fc1(net.flatten(image))).dtype == ms.float32
    assert all(p.dtype == ms.float32 for p in net.get_parameters())


def test_o2_training_follows_float32() -> None:
    losses = {}
    for level, scale in (("O0", 1.0), ("O2", 1024.0)):
        ms.set_seed(3)
        net = TinyNet()
        apply_amp(net, level)
        step = build_step(net, OptimConfig(), LossScale(scale, dynamic=True, factor=2.0, window=5))
        losses[level] = [run(step, batch(n % 3), 0.005)[0] for n in range(30)]
    assert losses["O0"][-1] < 0.9 * losses["O0"][0]
    np.testing.assert_allclose(losses["O2"], losses["O0"], rtol=0.02)
    assert losses["O2"] != losses["O0"]
