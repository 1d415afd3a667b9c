"""Mixed precision: what computes in which type, for every family."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Tuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from src.args import Config, OptimConfig, RunConfig, TrainConfig
from src.data.augment.batch_transform import BatchTransform
from src.errors import UserError
from src.models.layers.activation import Gelu
from src.models.layers.dropout import Dropout
from src.models.registry import create_model
from src.optim.amp import (
    LossScale,
    apply_amp,
    precision_table,
    resolve_amp,
    resolve_loss_scale,
)
from src.optim.clipping import GradientClip
from src.optim.criterion import SoftTargetCrossEntropy
from src.optim.optimizer import create_optimizer
from src.overrides import is_override, without_overrides
from src.runtime import compat, device
from src.runtime.npu_smi import FIRST_910, generation
from src.trainer.announcement import about_the_loss_scale
from src.trainer.build import build_loss_scale
from src.trainer.train_one_step import NetWithLoss, TrainOneStep

TINY: Dict[str, Dict[str, Any]] = {
    "cct_2_3x2_32": {"img_size": 16, "num_layers": 1},
    "convmixer_768_32": {"img_size": 28, "dim": 24, "depth": 2, "kernel_size": 3},
    "convnext_tiny": {"img_size": 32, "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "deit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "pcpvt_small_v0": {"img_size": 32, "depths": (1, 1, 1, 1)},
}


def losses(arch: str, level: str, steps: int) -> List[float]:
    ms.set_seed(2)
    keywords = dict(TINY[arch])
    side = keywords["img_size"]
    with without_overrides():
        network = create_model(arch, num_classes=4, drop_path_rate=0.0, **keywords)
    apply_amp(network, level)
    step = TrainOneStep(
        NetWithLoss(
            BatchTransform(8, side, num_classes=4, mean=(0.5,) * 3, std=(0.25,) * 3),
            network,
            SoftTargetCrossEntropy(),
        ),
        create_optimizer(OptimConfig(weight_decay=0.05), network),
        LossScale(1024.0 if level != "O0" else 1.0, dynamic=True, factor=2.0, window=2000),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        clip=GradientClip("norm", 1.0, network.trainable_params()),
    ).set_train(True)
    for cell in network.cells_and_names():
        if isinstance(cell[1], Dropout):
            cell[1].set_train(False)
    rng = np.random.default_rng(0)
    image = Tensor(rng.integers(0, 256, (8, side, side, 3)).astype(np.uint8))
    label = Tensor((np.arange(8) % 4).astype(np.int32))
    mix = Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (8, 1)))
    lr = Tensor(5e-4, ms.float32)
    return [float(step(image, label, mix, lr)[0].asnumpy()) for _ in range(steps)]


def cases() -> List[Any]:
    """Every family at every level, most of them slow: each compiles a network of its own."""
    quick = ("cct_2_3x2_32", "O2")
    return [
        pytest.param(arch, level, marks=() if (arch, level) == quick else pytest.mark.slow)
        for arch in sorted(TINY)
        for level in ("O1", "O2", "O3")
    ]


@functools.cache
def float32_losses(arch: str) -> Tuple[float, ...]:
    return tuple(losses(arch, "O0", 30))


@pytest.mark.parametrize(("arch", "level"), cases())
def test_thirty_steps_stay_within_two_percent_of_float32(arch: str, level: str) -> None:
    expected = float32_losses(arch)
    assert expected[-1] < 0.8 * expected[0]
    found = losses(arch, level, 30)
    error = np.abs(np.array(found) - expected) / np.maximum(np.abs(expected), 0.05)
    assert error.max() < 0.02
    assert tuple(found) != expected


class Probe(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Dense(4, 4)
        self.bn = nn.BatchNorm1d(4)
        self.norm = nn.LayerNorm((4,))
        self.softmax = nn.Softmax()
        self.act = nn.GELU()


@pytest.mark.parametrize(
    ("level", "keep_bn", "halves"),
    [
        ("O0", True, ""),
        ("O1", True, "fc"),
        ("O2", True, "fc act"),
        ("O2", False, "fc act bn"),
        ("O3", True, "fc act bn norm softmax"),
    ],
)
def test_the_table_of_levels(level: str, keep_bn: bool, halves: str, pynative: None) -> None:
    network = Probe()
    apply_amp(network, level, keep_bn_fp32=keep_bn)
    x = Tensor(np.ones((2, 4), np.float32))
    found = {
        name
        for name in ("fc", "bn", "norm", "softmax", "act")
        if getattr(network, name)(x).dtype == ms.float16
    }
    assert found == set(halves.split())


@pytest.mark.parametrize(
    ("level", "halves"),
    [
        ("O0", set()),
        ("O1", {"DenseConv", "Dense", "DotProductAttention"}),
        ("O2", {"DenseConv", "Dense", "DotProductAttention", "ReLU"}),
    ],
)
def test_the_printed_table_says_what_stays_float32(level: str, halves: set) -> None:
    with without_overrides():
        network = create_model("cct_2_3x2_32", drop_path_rate=0.0, attention_dropout=0.0)
    apply_amp(network, level)
    lines = [line.split(maxsplit=1) for line in precision_table(network).splitlines()]
    (half, shown_halves), (single, shown_singles) = lines
    assert (half, single) == ("half", "float32")
    named = {part.split()[0] for part in shown_halves.split(", ")} - {"nothing"}
    kept = {part.split()[0] for part in shown_singles.split(", ")}
    assert halves <= named
    assert not named & kept
    assert {"LayerNorm", "Softmax", "loss"} <= kept
    assert "Softmax 3" in shown_singles
    assert "LayerNorm 5" in shown_singles
    assert ("Gelu" in kept) == (level != "O3")


def test_cells_that_compute_in_float32_only_are_refused() -> None:
    network = create_model("cct_2_3x2_32")
    if not any(is_override(cell) for _, cell in network.cells_and_names()):
        pytest.skip("no C++ compiler")
    with pytest.raises(ValueError, match="amp_level O2: build the network within"):
        apply_amp(network, "O2")


class _Activated(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.act = Gelu()

    def construct(self, x: Tensor) -> Tensor:
        return self.act(x)


def test_gelu_in_o2_is_exact_to_the_rounding_of_float16() -> None:
    """Value and gradient beside torch in float64, over all of float16's range."""
    from torch_oracle import torch

    ends = np.geomspace(1e-4, 65504, 2001)
    x = np.concatenate([np.linspace(-12, 12, 10001), ends, -ends]).astype(np.float16)
    theirs = torch.tensor(x.astype(np.float64), requires_grad=True)
    expected = torch.nn.functional.gelu(theirs)
    expected.sum().backward()
    with without_overrides():
        network = _Activated()
    apply_amp(network, "O2")
    found = network(Tensor(x)).astype(ms.float16), ops.grad(network)(Tensor(x))
    for ours, exact in zip(found, (expected.detach(), theirs.grad)):
        assert ours.dtype == ms.float16
        # Half a unit in the last place of float16, of which 2^-24 is the smallest number; the
        # float32 behind it adds little.
        rounding = 2.0**-11 * np.abs(exact.numpy()) + 4 * 2.0**-24
        assert (np.abs(ours.asnumpy().astype(np.float64) - exact.numpy()) <= 1.01 * rounding).all()


def _config(target: str, **train: Any) -> Config:
    return Config(train=TrainConfig(**train), run=RunConfig(device_target=target))


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the machine an Ascend of that name."""
    return lambda name: monkeypatch.setattr(
        device, "_is_first_910", lambda: generation(name) == FIRST_910
    )


def test_the_loss_scale_that_a_recipe_does_not_say(chip: Callable[[str], None]) -> None:
    chip("910B2")
    assert resolve_loss_scale(_config("Ascend", amp_level="O2")) == (4096.0, True, 1000)
    assert resolve_loss_scale(_config("GPU", amp_level="O2")) == (65536.0, True, 2000)
    said = {"loss_scale": 8.0, "loss_scale_window": 5, "is_dynamic_loss_scale": False}
    assert resolve_loss_scale(_config("Ascend", amp_level="O3", **said)) == (8.0, False, 5)


def test_the_scale_stays_1_where_nothing_is_computed_in_float16(
    chip: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chip("910B2")
    monkeypatch.setattr(compat, "has_bfloat16", lambda: True)
    for config in (
        _config("CPU"),
        _config("GPU"),
        _config("Ascend"),
        _config("Ascend", amp_level="O2", amp_dtype="bfloat16"),
    ):
        assert build_loss_scale(config).is_one


def test_o0_on_910a_keeps_the_scale_and_says_why(chip: Callable[[str], None]) -> None:
    """Its convolutions know float16 only."""
    chip("910A")
    config = _config("Ascend")
    assert resolve_loss_scale(config) == (4096.0, True, 1000)
    assert not build_loss_scale(config).is_one
    (line,) = about_the_loss_scale(config)
    assert line == (
        "convolutions compute in float16 on this chip at amp_level O0 too: loss scale 4096, times "
        "2 after 1000 finite steps"
    )
    chip("910B2")
    assert about_the_loss_scale(config) == []


def test_auto_and_bfloat16(chip: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    chip("910B2")
    assert resolve_amp(_config("CPU", amp_level="auto"))[0] == "O0"
    assert resolve_amp(_config("Ascend", amp_level="auto")) == ("O2", "float16")
    halves = {"amp_level": "O2", "amp_dtype": "bfloat16"}
    monkeypatch.setattr(compat, "has_bfloat16", lambda: True)
    assert resolve_amp(_config("Ascend", **halves))[1] == "bfloat16"
    for target in ("CPU", "GPU"):
        with pytest.raises(UserError, match=rf"bfloat16.*on {target}; use amp_dtype: float16"):
            resolve_amp(_config(target, **halves))
    chip("910A")
    with pytest.raises(UserError, match=r"bfloat16.*910A does not have it; use amp_dtype: float16"):
        resolve_amp(_config("Ascend", **halves))
    chip("910B2")
    monkeypatch.setattr(compat, "has_bfloat16", lambda: False)
    with pytest.raises(UserError, match=r"bfloat16.*MindSpore .* does not have it; use amp_dtype"):
        resolve_amp(_config("Ascend", **halves))
