"""Optimizers, clipping, loss scale and the training step against torch."""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from torch_oracle import torch

from src.args import OptimConfig
from src.data.augment.batch_transform import BatchTransform
from src.data.dataset import Batch
from src.models.convmixer import ConvMixer
from src.optim.amp import LossScale, apply_amp
from src.optim.clipping import GradientClip
from src.optim.criterion import DistillationLoss, SoftTargetCrossEntropy
from src.optim.ema import Ema
from src.optim.optimizer import AdamW, Momentum, create_optimizer
from src.optim.tensors import GlobalNorm, multiply
from src.trainer.forensics import find_suspect
from src.trainer.step_outputs import StepOutputs
from src.trainer.train_one_step import DistilledNetWithLoss, NetWithLoss, TrainOneStep

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
    limit = optim.clip_global_norm_value
    step = TrainOneStep(
        NetWithLoss(transform, net, SoftTargetCrossEntropy()),
        create_optimizer(optim, net),
        loss_scale,
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        clip=GradientClip("norm", limit, net.trainable_params()) if limit else None,
    )
    return step.set_train(True)


def batch(seed: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    mix = np.zeros((6, 5), np.float32)
    mix[:, 0] = 0.7
    return image, rng.integers(0, 3, 6).astype(np.int32), mix


def run(step: TrainOneStep, data: Tuple[np.ndarray, ...], lr: float) -> StepOutputs:
    outputs = step(*(Tensor(array) for array in data), Tensor(lr, ms.float32))
    return StepOutputs(*(float(x.asnumpy()) for x in outputs))


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
        found = run(step, data, lr)
        reference.zero_grad()
        expected = torch_loss(twin, data)
        expected.backward()
        limit = clip if clip is not None else float("inf")
        expected_norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), limit)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        assert found.loss == pytest.approx(float(expected.detach()), rel=1e-4)
        assert found.grad_norm == pytest.approx(float(expected_norm), rel=1e-3)
        assert (found.is_finite, found.loss_scale) == (1.0, scale)
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
    assert changed == {"train.loss_scale", "train.finite_steps", "train.calls"}
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


class ManyParameters(nn.Cell):
    """(B, 3, 4, 4) -> (B, 3); the logits are sums of as many scalars as a deep network has."""

    def __init__(self, count: int) -> None:
        super().__init__()
        ones = Tensor(np.ones(()), ms.float32)
        self.scalars = ParameterTuple([Parameter(ones, name=f"w{i}") for i in range(count)])

    def construct(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * ops.addn(multiply(self.scalars, 1.0))

    def no_weight_decay(self) -> set:
        return set()


def test_a_network_of_many_parameters_compiles() -> None:
    """Twins-PCPVT-S has 304, -L 754; a loop over them would be nested too deep."""
    net = ManyParameters(400)
    scale = LossScale(1.0, dynamic=False, factor=2.0, window=1)
    step = build_step(net, OptimConfig(clip_global_norm_value=1.0), scale)
    before = net.scalars[-1].asnumpy().copy()
    assert np.isfinite(run(step, batch(0), 0.01)).all()
    found = [scalar.asnumpy() for scalar in net.scalars]
    assert (np.array(found) == found[0]).all()
    assert found[0] != before


def test_global_norm_equals_numpy() -> None:
    tensors = random_tensors(3)
    expected = np.sqrt(sum(np.square(t.astype(np.float64)).sum() for t in tensors))
    assert float(GlobalNorm()(tuple(Tensor(t) for t in tensors)).asnumpy()) == pytest.approx(
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


def test_accumulation_equals_one_larger_batch() -> None:
    """Without BatchNorm, and mixing off: partners are those of the batch that is mixed."""
    optim = OptimConfig(weight_decay=0.1, clip_global_norm_value=0.5)
    image, label, mix = (np.concatenate(arrays) for arrays in zip(batch(1), batch(2), batch(3)))
    mix[:, 0] = 1.0
    states = {}
    for parts in (1, 3):
        ms.set_seed(4)
        net = TinyNet()
        transform = BatchTransform(
            18 // parts, 4, num_classes=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
        )
        step = TrainOneStep(
            NetWithLoss(transform, net, SoftTargetCrossEntropy()),
            create_optimizer(optim, net),
            LossScale(64.0, dynamic=True, factor=2.0, window=100),
            calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
            clip=GradientClip("norm", 0.5, net.trainable_params()),
            accumulation_step=parts,
        ).set_train(True)
        norms = []
        for _ in range(5):
            for part in range(parts):
                rows = slice(part * 18 // parts, (part + 1) * 18 // parts)
                outputs = run(step, (image[rows], label[rows], mix[rows]), 0.01)
            norms.append(outputs[1])
        states[parts] = ({p.name: p.asnumpy() for p in step.saved_parameters()}, norms)
    (whole, whole_norms), (parted, parted_norms) = states[1], states[3]
    assert set(whole) == set(parted)
    np.testing.assert_allclose(parted_norms, whole_norms, rtol=1e-4)
    for name, value in whole.items():
        if name != "train.calls":
            assert np.abs(value - parted[name]).max() <= 1e-5 * max(1.0, np.abs(value).max()), name


def test_an_inf_at_step_7_skips_that_update_alone_and_halves_the_scale() -> None:
    """What is left is the state of a run that never saw that batch."""
    states, scales = [], []
    for is_seen in (True, False):
        ms.set_seed(5)
        net = TinyNet()
        scale = LossScale(1024.0, dynamic=True, factor=2.0, window=100)
        step = build_step(net, OptimConfig(weight_decay=0.1), scale)
        for number in range(1, 11):
            image, label, mix = batch(number)
            if number == 7 and not is_seen:
                continue
            if number == 7:
                mix[2, 0] = np.inf
            _, norm, finite, used_scale = run(step, (image, label, mix), 0.01)
            assert (np.isfinite(norm), finite) == ((False, 0.0) if number == 7 else (True, 1.0))
            if is_seen:
                scales.append(used_scale)
        states.append({p.name: p.asnumpy().copy() for p in step.saved_parameters()})
    assert scales == [1024.0] * 7 + [512.0] * 3
    seen, unseen = states
    assert (seen.pop("train.finite_steps"), unseen.pop("train.finite_steps")) == (3, 9)
    assert (seen.pop("train.loss_scale"), unseen.pop("train.loss_scale")) == (512.0, 1024.0)
    assert (seen.pop("train.calls"), unseen.pop("train.calls")) == (10, 9)
    assert seen["train.updates"] == 9
    for name, value in seen.items():
        np.testing.assert_array_equal(value, unseen[name], err_msg=name)


class NetWithStatistics(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)


def conv_mixer() -> ConvMixer:
    return ConvMixer(dim=8, depth=2, kernel_size=3, patch_size=2, img_size=4, num_classes=3)


@pytest.mark.parametrize(
    ("create", "accumulation_step"),
    [
        *((NetWithStatistics, 1), (NetWithStatistics, 2), (conv_mixer, 1)),
        pytest.param(conv_mixer, 2, marks=pytest.mark.slow),
    ],
)
def test_overflow_leaves_running_statistics_alone(
    create: Callable[[], nn.Cell], accumulation_step: int
) -> None:
    net = create()
    transform = BatchTransform(6, 4, num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    step = TrainOneStep(
        NetWithLoss(transform, net, SoftTargetCrossEntropy()),
        create_optimizer(OptimConfig(), net),
        LossScale(8.0, dynamic=True, factor=2.0, window=3),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        accumulation_step=accumulation_step,
        ema=Ema(list(net.get_parameters()), decay=0.5, warmup=False),
    ).set_train(True)
    image, label, mix = batch(1)
    for _ in range(accumulation_step):
        run(step, (image, label, mix), 0.01)
    before = snapshot(step)
    means = [value for name, value in before.items() if name.endswith("moving_mean")]
    assert means
    assert all(value.any() for value in means)
    mix[2, 0] = np.inf
    for _ in range(accumulation_step):
        outputs = run(step, (image, label, mix), 0.01)
    assert not outputs[2]
    after = snapshot(step)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"train.loss_scale", "train.finite_steps", "train.calls"}


def test_the_suspect_is_the_batch_of_a_step_that_broke_and_looking_changes_nothing() -> None:
    net = NetWithStatistics()
    transform = BatchTransform(6, 4, num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    step = TrainOneStep(
        NetWithLoss(transform, net, SoftTargetCrossEntropy()),
        create_optimizer(OptimConfig(), net),
        LossScale(8.0, dynamic=True, factor=2.0, window=3),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        accumulation_step=3,
    ).set_train(True)
    batches = [Batch(*batch(number)) for number in range(3)]
    batches[1].mix[2, 0] = np.inf
    for one in batches:
        run(step, one, 0.01)
    before = snapshot(step)
    suspect = find_suspect(step, batches, 8.0)
    assert suspect.batch is batches[1]
    assert suspect.calls == 1
    assert suspect.finding.parameter == "fc1.weight"
    after = snapshot(step)
    assert not [name for name in before if not np.array_equal(before[name], after[name])]


class TwoHeads(TinyNet):
    """As a distilled network: two outputs in training, their mean otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.dist = nn.Dense(8, 3)

    def construct(self, x: Tensor) -> Any:
        x = self.norm(self.fc1(self.flatten(x)))
        if self.training:
            return self.fc2(x), self.dist(x)
        return (self.fc2(x) + self.dist(x)) / 2


def test_a_teacher_is_frozen_in_evaluation_and_no_part_of_the_state() -> None:
    student, teacher = TwoHeads(), NetWithStatistics()
    transform = BatchTransform(6, 4, num_classes=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    loss = DistillationLoss(SoftTargetCrossEntropy(), kind="hard", alpha=0.5, tau=1.0)
    data = batch(1)
    x = Tensor(np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32))
    expected = teacher.set_train(False)(x).asnumpy()
    step = TrainOneStep(
        DistilledNetWithLoss(transform, student, loss, teacher=teacher),
        create_optimizer(OptimConfig(), student),
        LossScale(1.0, dynamic=False, factor=2.0, window=3),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
    ).set_train(True)
    before = {p.name: p.asnumpy().copy() for p in step.saved_parameters()}
    first = run(step, data, 0.01)[0]
    last = [run(step, data, 0.01)[0] for _ in range(20)][-1]
    assert last < first
    np.testing.assert_array_equal(teacher(x).asnumpy(), expected)
    assert not [name for name in before if "teacher" in name or "moving" in name]
    assert {"dist.weight", "fc2.weight", "train.moment1.dist.weight"} <= set(before)
