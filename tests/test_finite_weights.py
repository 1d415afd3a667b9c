"""Weights with NaN or infinity in them: refused by every program, the first one named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from small_networks import ARGUMENTS, words
from test_scripts import script

import eval as eval_program
import export
import predict
import train
from src.args import parse_args
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.errors import UserError
from src.models.registry import create_model
from src.trainer.build import build_network

ARCH = "cct_2_3x2_32"
BIAS, TABLE = "classifier.fc.bias", "classifier.positional_emb"


def spoilt(path: Path, changes: Dict[str, Any], prefix: str = "") -> Path:
    """A checkpoint of `ARCH`; `changes`: name -> (index, value). `prefix`: of a second set."""
    network = build_network(parse_args(words(ARCH)))
    arrays = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    held = {**arrays, **{prefix + n: a.copy() for n, a in arrays.items()}}
    for name, (index, value) in changes.items():
        held[name][index] = value
    tensors = [ms.Parameter(ms.Tensor(value), name=name) for name, value in held.items()]
    save_checkpoint(path, tensors, {"arch": ARCH, "num_classes": 10, "img_size": 32})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({BIAS: (0, np.nan)}, f"{BIAS}[0] is nan; of its weights 1 in 1 tensor(s)"),
        ({TABLE: ((0, 3, 5), -np.inf)}, f"{TABLE}[0, 3, 5] is -inf"),
        (
            {TABLE: ((0, slice(2, 4), 5), np.inf), BIAS: (slice(None), np.nan)},
            f"{TABLE}[0, 2, 5] is inf; of its weights 12 in 2 tensor(s)",
        ),
    ],
)
def test_the_first_one_is_named(changes: Dict[str, Any], said: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path / "x.ckpt", changes)
    with pytest.raises(UserError) as refused:
        read_checkpoint(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert BIAS in read_checkpoint(path, must_be_finite=False).tensors


def test_of_two_sets_the_one_that_is_used_counts(tmp_path: Path) -> None:
    path = spoilt(tmp_path / "x.ckpt", {f"train.ema.{BIAS}": (1, np.nan)}, "train.ema.")
    checkpoint = read_checkpoint(path)
    with pytest.raises(UserError, match=rf"averages .*{BIAS}\[1\] is nan"):
        checkpoint.averaged()


def programs(path: Path, folder: Path) -> Dict[str, Any]:
    recipe = [*words(ARCH), "--pretrained", str(path), "--data_url", str(folder / "digits")]
    convert = ["--arch", ARCH, "--input", str(path), "--output", str(folder / "y.safetensors")]
    average = [str(path), str(path), "--output", str(folder / "y.ckpt")]
    return {
        "train": (train, [*recipe, "--train_url", str(folder / "run"), "--epochs", "1"]),
        "eval": (eval_program, [*recipe, "--train_url", str(folder / "run")]),
        "export": (export, [*recipe, "--output", str(folder / "y.mindir")]),
        "predict": (predict, ["--pretrained", str(path), "--input", str(folder)]),
        "convert": (script("convert_weights"), [*convert, "--to", "torch"]),
        "average": (script("average_checkpoints"), average),
    }


@pytest.mark.parametrize("program", ["train", "eval", "export", "predict", "convert", "average"])
def test_every_program_refuses_them(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    path = spoilt(tmp_path / "x.ckpt", {BIAS: (0, np.nan)})
    module, arguments = programs(path, tmp_path)[program]
    assert f"{BIAS}[0] is nan" in failure(capsys, module, arguments)
    assert not list(tmp_path.glob("y.*"))
    assert not list(tmp_path.glob("run/*.ckpt"))


def test_a_teacher_counts_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spoilt(tmp_path / "x.ckpt", {BIAS: (0, np.nan)})
    student = "deit_tiny_distilled_patch16_224"
    recipe: List[str] = [*words("deit_tiny_patch16_224"), "--arch", student]
    recipe += ["--model_args", ARGUMENTS["deit_tiny_patch16_224"], "--distillation_type", "hard"]
    recipe += ["--teacher_arch", ARCH, "--teacher_pretrained", str(path)]
    recipe += ["--data_url", str(tmp_path / "digits"), "--train_url", str(tmp_path / "run")]
    assert f"{BIAS}[0] is nan" in failure(capsys, train, recipe)


def test_weights_from_torch_are_named_as_in_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = create_model(ARCH)
    state = {
        p.name.replace(".gamma", ".weight").replace(".beta", ".bias"): p.asnumpy()
        for p in network.get_parameters()
    }
    state["classifier.norm.weight"] = np.full(128, np.nan, np.float16)
    np.savez(tmp_path / "x.npz", **state)
    words = [
        "--arch",
        ARCH,
        "--input",
        str(tmp_path / "x.npz"),
        "--output",
        str(tmp_path / "y.ckpt"),
    ]
    message = failure(capsys, script("convert_weights"), words)
    assert "classifier.norm.weight[0] is nan; of its weights 128 in 1 tensor(s)" in message


def test_finite_weights_whose_logits_are_not_predict_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), "white").save(tmp_path / "x.png")
    path = spoilt(tmp_path / "x.ckpt", {"classifier.fc.weight": (slice(None), 3e38)})
    message = failure(capsys, predict, ["--pretrained", str(path), "--input", str(tmp_path)])
    assert "10 of 10 logits of a batch are not finite numbers at amp_level" in message
