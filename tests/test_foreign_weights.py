"""Other publishers' files: what their own networks compute, ours compute of the same file.

What their code computed is stored (tests/foreign_networks.py); where it is installed it is asked
again.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any, Callable, Dict

import mindspore as ms
import numpy as np
import pytest
from foreign_networks import CASES, Arrays, Foreign, library_logits, rule_weights, stored
from safetensors.numpy import save_file
from weight_rule import images

from scripts import convert_weights
from src.checkpoints.checkpoint import load_parameters, read_checkpoint
from src.checkpoints.pretrained import start_from_weights
from src.checkpoints.weight_conversion import to_network_names
from src.models import foreign_names
from src.models.registry import create_model, family_of


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[Foreign], None]:
    """Makes the architecture of a case as small for the script as the other side is."""

    def change(case: Foreign) -> None:
        variants = family_of(case.arch).variants
        constructor, own = variants[case.arch]
        changes = {**own, **case.keywords, "img_size": case.side}
        monkeypatch.setitem(variants, case.arch, (constructor, changes))

    return change


def write(arrays: Arrays, library: str, folder: Path) -> Path:
    if library == "mindcv":
        path = folder / "x.ckpt"
        tensors = [{"name": n, "data": ms.Tensor(value)} for n, value in arrays.items()]
        ms.save_checkpoint(tensors, str(path))
        return path
    save_file(arrays, folder / "x.safetensors")
    return folder / "x.safetensors"


def convert(source: Path, arch: str, *more: str) -> int:
    target = str(source.parent / "converted.ckpt")
    words = ["--arch", arch, "--input", str(source), "--output", target, *more]
    return convert_weights.main(words)


def features_of(folder: Path, arch: str, side: int, **keywords: Any) -> np.ndarray:
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)  # no compilation: what is tested are the weights
    network = create_model(arch, **keywords).set_train(False)
    load_parameters(
        network.get_parameters(), read_checkpoint(folder / "converted.ckpt"), target=arch
    )
    found = network(ms.Tensor(images(2, side))).asnumpy()
    ms.set_context(mode=before)
    return found


def check_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# The others repeat a structure.
FAST = (
    "torchvision, ConvNeXt",
    "transformers, ConvNeXt V2",
    "transformers, DeiT distilled",
    "mmpretrain, DeiT III",
    "mmpretrain, SVT",
    "mmpretrain, ConvMixer",
    "open_clip, head of two layers",
    "mindcv, ConvNeXt",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in CASES]
)
def test_converted_files_compute_their_publishers_logits(
    name: str,
    small: Callable[[Foreign], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = CASES[name]
    small(case)
    shapes, expected = stored(name)
    source = write(rule_weights(shapes), case.library, tmp_path)
    assert convert(source, case.arch) == 0
    check_near(features_of(tmp_path, case.arch, case.side, num_classes=case.num_classes), expected)
    record = read_checkpoint(tmp_path / "converted.ckpt").record
    assert (record.naming, record.num_classes) == (case.library, case.num_classes)
    asks = "--nonlinearity GELU_tanh" in caplog.text
    assert asks == (case.keywords.get("nonlinearity") == "GELU_tanh")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_is_what_the_library_computes(name: str) -> None:
    case = CASES[name]
    if importlib.util.find_spec(case.library) is None:
        pytest.skip(f"{case.library} is not installed; tests/fixtures/make_foreign_logits.py")
    shapes, logits = library_logits(case)
    assert shapes == stored(name)[0]
    check_near(logits, stored(name)[1])


# A network of transformers 5 calls its weights otherwise than its files do.
@pytest.mark.parametrize(
    ("in_files", "in_networks"),
    [
        ("encoder.layer.0.attention.attention.query.weight", "layers.0.attention.q_proj.weight"),
        ("encoder.layer.0.attention.attention.key.weight", "layers.0.attention.k_proj.weight"),
        ("encoder.layer.0.attention.attention.value.bias", "layers.0.attention.v_proj.bias"),
        ("encoder.layer.0.attention.output.dense.bias", "layers.0.attention.o_proj.bias"),
        ("encoder.layer.0.intermediate.dense.weight", "layers.0.mlp.fc1.weight"),
        ("encoder.layer.0.output.dense.weight", "layers.0.mlp.fc2.weight"),
    ],
)
def test_transformers_has_two_names(in_files: str, in_networks: str) -> None:
    rename = foreign_names.DEIT[0].rename
    assert rename(f"deit.{in_files}") == rename(f"deit.{in_networks}")
    assert rename(f"deit.{in_files}").startswith("blocks.0.")


def test_the_text_network_of_open_clip_is_left_out(
    small: Callable[[Foreign], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    case = CASES["open_clip, linear head"]
    small(case)
    shapes, _ = stored("open_clip, linear head")
    source = write(rule_weights(shapes), case.library, tmp_path)
    assert convert(source, case.arch) == 0
    assert "left out" in caplog.text
    bias = read_checkpoint(tmp_path / "converted.ckpt").tensors["head.fc.bias"].asnumpy()
    np.testing.assert_array_equal(bias, np.zeros(12))


def distilled() -> Arrays:
    return rule_weights(stored("transformers, DeiT distilled")[0])


KEY = "deit.encoder.layer.0.attention.attention.key.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({KEY: None}, "1 of another shape: blocks.0.attn.qkv.weight"),
        ({KEY: np.zeros((4, 3), np.float32)}, "blocks.0.attn.qkv.weight in parts of the shapes"),
        ({"deit.layers.0.attention.k_proj.weight": np.zeros((48, 48), np.float32)}, "twice"),
        ({"distillation_classifier.weight": None}, "1 missing: head_dist.weight"),
        ({"neck.weight": np.zeros(3, np.float32)}, "1 unexpected: neck.weight"),
    ],
)
def test_what_finds_no_place_is_told(
    change: Dict[str, Any],
    said: str,
    small: Callable[[Foreign], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES["transformers, DeiT distilled"]
    small(case)
    arrays = {n: value for n, value in {**distilled(), **change}.items() if value is not None}
    assert convert(write(arrays, case.library, tmp_path), case.arch) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_mindcvs_other_names_are_the_authors_or_ours(tmp_path: Path) -> None:
    """ConvMixer of mindcv at 0045e4e and DeiT at 520ae8e, which no release has."""
    ours = create_model("convmixer_256_8", depth=1, dim=8)
    names = {p.name: p.asnumpy() for p in ours.get_parameters()}
    theirs = {re.sub("^stem", "network", n): value for n, value in names.items()}
    theirs = {re.sub(r"^blocks\.0", "network.3", n): value for n, value in theirs.items()}
    theirs = {re.sub("^head", "network.6", n): value for n, value in theirs.items()}
    assert {"network.2.moving_mean", "network.3.0.fn.2.gamma"} <= set(theirs)
    found, naming = to_network_names(theirs, ours, arch="convmixer_256_8")
    assert sorted(found) == sorted(names)
    assert naming.source == "the authors"
    ours = create_model("deit_tiny_patch16_224", depth=1)
    names = {p.name: p.asnumpy() for p in ours.get_parameters()}
    assert {"blocks.0.norm1.gamma", "patch_embed.proj.weight", "cls_token"} <= set(names)
    assert sorted(to_network_names(names, ours, arch="deit_tiny_patch16_224")[0]) == sorted(names)


def test_a_backbone_of_pretraining_has_the_norm_that_timm_gives_it(
    small: Callable[[Foreign], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """timm loads its `fcmae` files, which lack `head.norm`, with `strict=False`."""
    from torch_oracle import timm, torch

    caplog.set_level(logging.INFO)
    case = CASES["transformers, ConvNeXt V2"]
    small(case)
    network = timm.models.ConvNeXt(
        **case.keywords, num_classes=0, use_grn=True, ls_init_value=None
    ).eval()
    shapes = {n: tuple(v.shape) for n, v in network.state_dict().items() if "head" not in n}
    arrays = rule_weights(shapes)
    network.load_state_dict({n: torch.tensor(v) for n, v in arrays.items()}, strict=False)
    with torch.no_grad():
        expected = network(torch.tensor(images(2, case.side))).numpy()
    assert convert(write(arrays, "timm", tmp_path), case.arch) == 0
    assert "head.norm: not in the weights" in caplog.text
    check_near(features_of(tmp_path, case.arch, case.side, num_classes=0), expected)
    checkpoint = read_checkpoint(tmp_path / "converted.ckpt")
    assert checkpoint.record.num_classes == 0
    ours = create_model(case.arch, num_classes=3)
    start_from_weights(ours, checkpoint, target=case.arch)
    assert "head.fc: not in the weights, freshly initialised" in caplog.text
