"""The fast forms of the hot cells inside whole networks, against MindSpore's standard cells."""

from __future__ import annotations

import functools
import os
from typing import Any, Dict, Iterator, List

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.args import Config, RunConfig, replace
from src.errors import UserError
from src.kernels import selection
from src.models.layers.attention import Attention, SelfAttention
from src.models.layers.dropout import seed_dropouts
from src.models.layers.mlp import Mlp
from src.models.layers.norm import LayerNorm
from src.models.layers.random_draws import SeededUniform
from src.models.registry import create_model
from src.runtime import native_library
from src.runtime.device import select_kernels
from src.trainer.build import build_network, build_train_step

HAS_COMPILER = native_library.find_compiler(os.environ) is not None
NEEDS_COMPILER = pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
FORMS = ["pure", pytest.param("native", marks=NEEDS_COMPILER)]
CLASSES, BATCH = 5, 3

# Odd maps, maps below the kernel, channels that are no multiple of a vector.
TINY: Dict[str, Dict[str, Any]] = {
    "cct_2_3x2_32": {"img_size": 22, "num_layers": 1, "attention_dropout": 0.0},
    "convmixer_1536_20": {"img_size": 35, "dim": 19, "depth": 2, "kernel_size": 9},
    "convnext_tiny": {"img_size": 32, "depths": (1, 1, 1, 1), "dims": (8, 20, 24, 36)},
    "deit_tiny_distilled_patch16_224": {"img_size": 48, "depth": 1},
    "pcpvt_small_v0": {"img_size": 32, "depths": (1, 1, 1, 1)},
}


@pytest.fixture(autouse=True)
def _form_afterwards() -> Iterator[None]:
    """Other tests go on with the form they had."""
    with selection.using(selection.selected(), selection.library()):
        yield


@functools.cache
def network_of(arch: str, form: str) -> nn.Cell:
    """The same weights in every form."""
    select_kernels(RunConfig(cpu_kernels=form))
    assert selection.selected() == form
    network = create_model(arch, num_classes=CLASSES, drop_path_rate=0.0, **TINY[arch])
    rng = np.random.default_rng(3)
    for parameter in network.get_parameters():
        values = rng.normal(0.0, 0.2, parameter.shape)
        if parameter.name.endswith("variance"):
            values = np.abs(values) + 0.5
        parameter.set_data(Tensor(values.astype(np.float32)))
    return network


def images_of(arch: str) -> Tensor:
    side = TINY[arch]["img_size"]
    return Tensor(np.random.default_rng(4).normal(size=(BATCH, 3, side, side)).astype(np.float32))


class SquaredLogits(nn.Cell):
    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        return ops.square(self.network(image)).sum()


@functools.cache
def arrays_of(arch: str, form: str) -> Dict[str, np.ndarray]:
    """Logits in evaluation, every gradient, and running statistics after a training pass."""
    network = network_of(arch, form).set_train(False)
    found = {"logits": network(images_of(arch)).asnumpy()}
    weights = ms.ParameterTuple(network.trainable_params())
    loss = SquaredLogits(network).set_train(True)
    gradient = ops.GradOperation(get_all=True, get_by_list=True)(loss, weights)
    (dimage,), dweights = gradient(images_of(arch))
    found["image"] = dimage.asnumpy()
    found.update((w.name, d.asnumpy()) for w, d in zip(weights, dweights))
    statistics = [p for p in network.get_parameters() if not p.requires_grad]
    found.update((p.name, p.asnumpy().copy()) for p in statistics)
    return found


def cases() -> List[Any]:
    """Native forms of all families, the pure forms where all of them occur; slow: the others."""
    return [
        *(pytest.param(arch, "native", marks=NEEDS_COMPILER) for arch in sorted(TINY)),
        *(
            pytest.param(arch, "pure", marks=() if arch == "convnext_tiny" else pytest.mark.slow)
            for arch in sorted(TINY)
        ),
    ]


@pytest.mark.parametrize(("arch", "form"), cases())
def test_outputs_and_gradients_equal_the_standard_form(arch: str, form: str) -> None:
    ours, expected = arrays_of(arch, form), arrays_of(arch, "off")
    assert list(ours) == list(expected)
    largest = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        if name.endswith("attention_pool.bias"):
            # It adds the same to every score before a softmax: 0 but for rounding.
            assert max(np.abs(ours[name]).max(), np.abs(value).max()) <= 1e-6 * largest, name
            continue
        # Some gradients are 0 but for rounding, such as those of the keys' bias.
        scale = max(np.abs(value).max(), 1e-4 * largest)
        assert np.abs(ours[name] - value).max() <= 1e-4 * scale, name
    whole, standard = (
        np.concatenate([values[name].ravel() for name in expected]) for values in (ours, expected)
    )
    assert np.linalg.norm(whole - standard) <= 1e-5 * np.linalg.norm(standard)


@functools.cache
def five_losses(arch: str, form: str) -> List[float]:
    network = network_of(arch, form)
    side = TINY[arch]["img_size"]
    sizes = {"image_size": side, "num_classes": CLASSES, "batch_size": BATCH}
    config = replace(Config(), arch=arch, **sizes, base_lr=1e-3, clip_global_norm_value=1.0)
    step = build_train_step(config, network).set_train(True)
    rng = np.random.default_rng(5)
    image = Tensor(rng.integers(0, 256, (BATCH, side, side, 3)).astype(np.uint8))
    label, lr = Tensor(np.arange(BATCH, dtype=np.int32)), Tensor(1e-3, ms.float32)
    mix = Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (BATCH, 1)))
    return [float(step(image, label, mix, lr)[0].asnumpy()) for _ in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arch", sorted(TINY))
def test_five_steps_equal_the_standard_form(arch: str, form: str) -> None:
    network_of.cache_clear()  # a training step changes its network
    np.testing.assert_allclose(five_losses(arch, form), five_losses(arch, "off"), rtol=1e-4)


def state_after_steps(form: str) -> Dict[str, np.ndarray]:
    """All that two updates and one that is left out for an overflow leave behind."""
    network_of.cache_clear()  # a training step changes its network
    arch = "deit_tiny_distilled_patch16_224"
    side = TINY[arch]["img_size"]
    sizes = {"image_size": side, "num_classes": CLASSES, "batch_size": BATCH}
    # Of gradients that are 0 but for rounding a small epsilon makes whole steps.
    engine = {"with_ema": True, "clip_global_norm_value": 1.0, "eps": 1e-2}
    config = replace(Config(), arch=arch, **sizes, **engine)
    step = build_train_step(config, network_of(arch, form)).set_train(True)
    image = np.random.default_rng(5).integers(0, 256, (BATCH, side, side, 3)).astype(np.uint8)
    label, lr = Tensor(np.arange(BATCH, dtype=np.int32)), Tensor(1e-3, ms.float32)
    mix = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (BATCH, 1))
    for weight in (1.0, 1.0, np.inf):
        mix[0, 0] = weight
        step(Tensor(image), label, Tensor(mix), lr)
    return {p.name: p.asnumpy() for p in step.saved_parameters()}


@NEEDS_COMPILER
def test_updates_in_place_equal_the_standard_form() -> None:
    ours, expected = state_after_steps("native"), state_after_steps("off")
    assert list(ours) == list(expected)
    assert expected["train.updates"] == ours["train.updates"] == 2
    assert any(name.startswith("train.ema.") for name in ours)
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-3)
        assert np.abs(ours[name] - value).max() <= 1e-4 * scale, name


@functools.cache
def dropped(form: str, calls: int) -> Dict[str, np.ndarray]:
    """Attention with dropout in step `calls`, its gradients, and the same step's uniform draws."""
    select_kernels(RunConfig(cpu_kernels=form))
    step = ms.Parameter(Tensor(calls, ms.int32), name="calls", requires_grad=False)
    cell = Attention(12, 3, qkv_bias=True, attn_drop=0.3)
    rng = np.random.default_rng(7)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    seed_dropouts(cell, seed=5, step=step, batch_size=4, rank=1, world_size=3)
    weights = ms.ParameterTuple(cell.trainable_params())
    x = Tensor(rng.normal(size=(4, 9, 12)).astype(np.float32))
    gradient = ops.GradOperation(get_all=True, get_by_list=True)(SquaredLogits(cell), weights)
    (dx,), dweights = gradient(x)
    found = {"output": cell.set_train()(x).asnumpy(), "x": dx.asnumpy()}
    found.update((w.name, d.asnumpy()) for w, d in zip(weights, dweights))
    draws = SeededUniform(5, step, 2, 4, rank=1, world_size=3)
    return {**found, "draws": draws(4).asnumpy(), "fewer draws": draws(3).asnumpy()}


@NEEDS_COMPILER
@pytest.mark.parametrize(
    "calls", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1)), 46337 * 3 + 11]
)
def test_native_draws_are_the_standard_forms(calls: int) -> None:
    ours, expected = dropped("native", calls), dropped("off", calls)
    np.testing.assert_array_equal(ours["draws"], expected["draws"])
    assert len(set(ours["draws"])) == 4
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-3)
        assert np.abs(ours[name] - value).max() <= 1e-5 * scale, name
    assert np.abs(expected["output"] - dropped("off", calls + 1)["output"]).max() > 0.1


@NEEDS_COMPILER
def test_evaluation_takes_the_kernel_whatever_the_dropout() -> None:
    """By a kernel put in its place: nothing is dropped, so nothing needs to be drawn."""
    select_kernels(RunConfig(cpu_kernels="native"))
    cell = SelfAttention(4, 2, attn_drop=0.3)
    del cell.all_heads  # a Primitive, which no Cell replaces
    cell.all_heads = Third()
    qkv = np.random.default_rng(8).normal(size=(2, 3, 12)).astype(np.float32)
    ours = cell.set_train(False)(Tensor(qkv)).asnumpy()
    np.testing.assert_array_equal(ours, qkv[..., :4])
    # In training the framework would draw.
    assert np.abs(cell.set_train(True)(Tensor(qkv)).asnumpy() - qkv[..., :4]).max() > 1e-3


class Third(nn.Cell):
    def construct(self, number: Tensor, qkv: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        return qkv[..., :4] + 0.0 * (number + keys + kept)


@NEEDS_COMPILER
def test_a_batch_beyond_the_seeded_one_is_refused() -> None:
    select_kernels(RunConfig(cpu_kernels="native"))
    step = ms.Parameter(Tensor(0, ms.int32), name="calls", requires_grad=False)
    cell = Attention(12, 3, attn_drop=0.3).set_train()
    seed_dropouts(cell, seed=5, step=step, batch_size=4)
    with pytest.raises(Exception, match="4 samples have a key, the batch has 5"):
        cell(Tensor(np.ones((5, 2, 12), np.float32)))


@NEEDS_COMPILER
def test_half_precision_is_refused_rather_than_misread() -> None:
    """Mixed precision builds the standard cells (the next test); nothing else casts."""
    select_kernels(RunConfig(cpu_kernels="native"))
    for cell in (LayerNorm(8, epsilon=1e-6), Mlp(8, 9, nonlinearity="GELU"), Attention(8, 2)):
        with pytest.raises(Exception, match=r"(?i)custom|aot|type"):
            cell(Tensor(np.ones((3, 2, 8), np.float16))).asnumpy()


@NEEDS_COMPILER
@pytest.mark.parametrize("level", ["O0", "O1"])
def test_mixed_precision_builds_the_standard_form(level: str) -> None:
    select_kernels(RunConfig(cpu_kernels="native"))
    sizes = {"image_size": 32, "num_classes": CLASSES}
    config = replace(Config(), arch="deit_tiny_patch16_224", **sizes, amp_level=level)
    network = build_network(config)
    kinds = {type(cell).__module__ for _, cell in network.cells_and_names()}
    assert ("src.kernels.cells" in kinds) == (level == "O0")


def test_without_a_compiler_auto_is_pure(monkeypatch: Any, tmp_path: Any, caplog: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level("INFO"):
        select_kernels(RunConfig(cpu_kernels="auto"))
    assert selection.selected() == "pure"
    assert [record.message for record in caplog.records] == [
        "cpu_kernels auto: no C++ compiler (g++, clang++, c++, or CXX) on this machine; "
        "slower without",
    ]
    with pytest.raises(UserError, match="cpu_kernels 'native': no C\\+\\+ compiler"):
        select_kernels(RunConfig(cpu_kernels="native"))


def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    select_kernels(RunConfig(cpu_kernels="auto"))
    assert selection.selected() == "pure"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_other_devices_and_off_take_the_standard_form() -> None:
    for run in (RunConfig(device_target="Ascend"), RunConfig(cpu_kernels="off")):
        select_kernels(run)
        assert selection.selected() == "off"
    select_kernels(RunConfig(cpu_kernels="pure"))
    with selection.using("off"):
        assert selection.selected() == "off"
    assert selection.selected() == "pure"
