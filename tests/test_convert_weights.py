"""scripts/convert_weights.py: timm's and the authors' checkpoints in, timm's names out."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from model_parity import CLASSES, GRADIENT_CASES, Case, load_rule_weights_of_reference
from safetensors.numpy import load_file, save_file
from torch_oracle import torch
from weight_rule import fill, images

import eval as eval_program
from scripts import convert_weights
from src.checkpoints.checkpoint import load_parameters, read_checkpoint
from src.models import convmixer, convnext, deit, twins
from src.models.layers.positions import sinusoidal_embedding
from src.models.registry import create_model

ROOT = Path(__file__).resolve().parent.parent
CCT_LOGITS = np.load(ROOT / "tests" / "fixtures" / "cct_logits.npz")
State = Dict[str, Any]


@pytest.fixture(autouse=True)
def pynative() -> Iterator[None]:
    """No compilation: what is tested are the weights."""
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


@pytest.fixture(autouse=True)
def notes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def convert(source: Path, target: Path, arch: str, *more: str) -> int:
    return convert_weights.main(
        ["--arch", arch, "--input", str(source), "--output", str(target), *more]
    )


def refusal(capsys: pytest.CaptureFixture[str], source: Path, arch: str, *more: str) -> str:
    """Everything on stderr after a refusal: one line of error at the end, and no file left."""
    capsys.readouterr()
    before = sorted(os.listdir(source.parent))
    assert convert(source, source.parent / "refused.ckpt", arch, *more) == 2
    assert sorted(os.listdir(source.parent)) == before
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in text
    return text


def loaded(path: Path, arch: str, **keywords: Any) -> nn.Cell:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model = create_model(arch, **keywords).set_train(False)
    load_parameters(model.get_parameters(), read_checkpoint(path), target=arch)
    return model


# The families of timm, as small instances


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Case]:
    """Makes the architecture of GRADIENT_CASES[number] as small for the script as it is there."""

    def choose(number: int) -> Case:
        case = GRADIENT_CASES[number]
        for family in (convmixer, convnext, deit, twins):
            if case.name in family.VARIANTS:
                constructor, own = family.VARIANTS[case.name]
                changes = {**own, **case.changes, "img_size": case.side, "num_classes": CLASSES}
                monkeypatch.setitem(family.VARIANTS, case.name, (constructor, changes))
        return case

    return choose


def reference(case: Case) -> Any:
    return load_rule_weights_of_reference(case.build_reference(num_classes=CLASSES)).eval()


def substituted(state: State, *rules: str) -> State:
    """Names after `pattern -> replacement`, one after the other."""
    renamed = {}
    for name, value in state.items():
        for rule in rules:
            pattern, replacement = rule.split(" -> ")
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def authors_convnext(state: State) -> State:
    return substituted(
        state,
        r"^stem\. -> downsample_layers.0.",
        r"^stages\.(\d)\.downsample\. -> downsample_layers.\1.",
        r"^stages\.(\d)\.blocks\. -> stages.\1.",
        r"conv_dw -> dwconv",
        r"mlp\.fc -> pwconv",
        r"^head\.(norm\.)? -> \1head.",
        r"^norm\.head\. -> norm.",
        r"^head\.fc -> head",
    )


def authors_convmixer(state: State) -> State:
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks"))
    renamed = substituted(state, r"^stem\. -> ", rf"^head\. -> {3 + depth + 2}.")
    return {
        re.sub(r"^blocks\.(\d+)", lambda found: str(3 + int(found[1])), name): value
        for name, value in renamed.items()
    }


def as_they_are(state: State) -> State:
    return state


def save(state: State, path: Path, *keys: str, prefix: str = "") -> Path:
    """Saves as the suffix says, below `keys` and with `prefix` before every name."""
    state = {prefix + name: value for name, value in state.items()}
    if path.suffix in (".npz", ".safetensors"):
        arrays = {name: value.numpy() for name, value in state.items()}
        if path.suffix == ".npz":
            np.savez(path, **arrays)
        else:
            save_file(arrays, path)
        return path
    saved: Any = state
    for key in keys:
        saved = {key: saved, "epoch": 7, "args": argparse.Namespace(lr=0.1)}
    torch.save(saved, path)
    return path


# number of the case, file, keys, prefix, names
FILES = [
    (0, "x.pth.tar", ["state_dict"], "", authors_convmixer),
    (1, "x.safetensors", [], "", as_they_are),
    (2, "x.pth", ["model"], "", authors_convnext),
    (2, "x.npz", [], "", as_they_are),
    (3, "x.safetensors", [], "", as_they_are),
    (4, "x.pth", ["state_dict"], "module.", as_they_are),
    (5, "x.pth", [], "", as_they_are),
    (6, "x.npz", [], "module.", as_they_are),
]


@pytest.mark.parametrize(("number", "file", "keys", "prefix", "names"), FILES)
def test_converted_weights_compute_timms_logits(
    number: int,
    file: str,
    keys: List[str],
    prefix: str,
    names: Callable[[State], State],
    small: Callable[[int], Case],
    tmp_path: Path,
) -> None:
    case = small(number)
    model = reference(case)
    source = save(names(model.state_dict()), tmp_path / file, *keys, prefix=prefix)
    assert convert(source, tmp_path / "x.ckpt", case.name) == 0
    image = images(2, case.side)
    ours = loaded(tmp_path / "x.ckpt", case.name)(ms.Tensor(image)).asnumpy()
    with torch.no_grad():
        expected = model(torch.tensor(image)).numpy()
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
    record = read_checkpoint(tmp_path / "x.ckpt").record
    assert (record.arch, record.num_classes, record.source) == (case.name, CLASSES, file)


@pytest.mark.parametrize("number", range(len(GRADIENT_CASES)))
def test_the_way_back_gives_the_same_bits(
    number: int, small: Callable[[int], Case], tmp_path: Path
) -> None:
    case = small(number)
    model = reference(case)
    state = model.state_dict()
    source = save(state, tmp_path / "x.pth")
    assert convert(source, tmp_path / "x.ckpt", case.name) == 0
    back = tmp_path / "x.safetensors"
    assert convert(tmp_path / "x.ckpt", back, case.name, "--to", "torch") == 0
    arrays = load_file(back)
    kept = [name for name in state if not name.endswith("num_batches_tracked")]
    assert sorted(arrays) == sorted(kept)
    for name in kept:
        assert arrays[name].tobytes() == state[name].numpy().tobytes(), name
    model.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "entry", "names"),
    [
        ("convmixer_768_32", "convmixer_768_32", authors_convmixer),
        ("convnext_tiny", "convnext_tiny", authors_convnext),
        ("deit_small_patch16_224", "deit_small_patch16_224", as_they_are),
        ("pcpvt_small_v0", "twins_pcpvt_small", as_they_are),
    ],
)
def test_converted_whole_models(
    arch: str, entry: str, names: Callable[[State], State], tmp_path: Path
) -> None:
    from torch_oracle import timm

    model = load_rule_weights_of_reference(timm.create_model(entry, pretrained=False)).eval()
    source = save(names(model.state_dict()), tmp_path / "x.pth", "model")
    assert convert(source, tmp_path / "x.ckpt", arch) == 0
    image = images(2, 224)
    ours = loaded(tmp_path / "x.ckpt", arch)(ms.Tensor(image)).asnumpy()
    with torch.no_grad():
        expected = model(torch.tensor(image)).numpy()
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()


# CCT, CVT and ViT-Lite, whose weights the authors' code names


@cache
def cct_state(arch: str) -> State:
    """Rule-filled weights by the authors' names; sine tables as in their checkpoints."""
    names = {}
    for parameter in create_model(arch).get_parameters():
        name = parameter.name.replace(".gamma", ".weight").replace(".beta", ".bias")
        names[name] = fill(name, parameter.shape)
        if not parameter.requires_grad:
            names[name] = sinusoidal_embedding(*parameter.shape[1:])
    return {name: torch.tensor(value) for name, value in names.items()}


@pytest.mark.parametrize(
    ("arch", "has_table"),
    [
        ("cct_2_3x2_32", True),
        ("cct_6_3x2_32_sine", False),
        ("cvt_7_4_32", True),
        ("vit_lite_6_4_32", True),
        ("vit_lite_2_4_32_sine", True),
    ],
)
def test_cct_weights_compute_the_authors_logits_and_come_back(
    arch: str, has_table: bool, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    state = cct_state(arch)
    held = {n: v for n, v in state.items() if has_table or not n.endswith("positional_emb")}
    assert convert(save(held, tmp_path / "x.pth"), tmp_path / "x.ckpt", arch) == 0
    assert ("sine table" in notes.text) == ("_sine" in arch)
    ours = loaded(tmp_path / "x.ckpt", arch)(ms.Tensor(images(2, 32))).asnumpy()
    assert np.abs(ours - CCT_LOGITS[arch]).max() <= 1e-4 * np.abs(CCT_LOGITS[arch]).max()
    back = tmp_path / "x.safetensors"
    assert convert(tmp_path / "x.ckpt", back, arch, "--to", "torch") == 0
    arrays = load_file(back)
    assert sorted(arrays) == sorted(state)
    for name, value in arrays.items():
        assert value.tobytes() == state[name].numpy().tobytes(), name


@pytest.mark.parametrize(
    ("arch", "other"),
    [("cct_2_3x2_32_sine", "cct_2_3x2_32"), ("cct_2_3x2_32", "cct_2_3x2_32_sine")],
)
def test_fixed_and_learnt_positions_are_not_exchanged(
    arch: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(cct_state(other), tmp_path / "x.pth")
    assert "_sine" in refusal(capsys, source, arch)


def test_eval_takes_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("cct_2_3x2_32", img_size=16)
    state = {
        p.name.replace(".gamma", ".weight").replace(".beta", ".bias"): p.asnumpy()
        for p in model.get_parameters()
    }
    save_file(state, tmp_path / "x.safetensors")
    target = tmp_path / "x.ckpt"
    more = ["--image_size", "16", "--num_classes", "10"]
    assert convert(tmp_path / "x.safetensors", target, "cct_2_3x2_32", *more) == 0
    capsys.readouterr()
    recipe = str(ROOT / "src" / "configs" / "cct_2_3x2_32_digits.yaml")
    words = ["--config", recipe, "--data_url", str(tmp_path / "digits")]
    words += ["--pretrained", str(target), "--train_url", str(tmp_path)]
    assert eval_program.main(words) == 0
    assert "images 360" in capsys.readouterr().out


# What is in the file


def tiny_state() -> State:
    """The smallest network there is, as a state_dict."""
    return dict(cct_state("cct_2_3x2_32"))


ARCH = "cct_2_3x2_32"
FC = "classifier.fc.weight"


def held(path: Path, name: str = FC) -> np.ndarray:
    return read_checkpoint(path).tensors[name].asnumpy()


@pytest.mark.parametrize(("raw", "ema"), [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_raw_or_averaged_weights(
    raw: str, ema: str, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    state, averaged = tiny_state(), {n: v * 0.5 for n, v in tiny_state().items()}
    path, target = tmp_path / "x.pth", tmp_path / "x.ckpt"
    torch.save({raw: state, ema: averaged, "epoch": 3}, path)
    assert convert(path, target, ARCH) == 0
    assert f"'{raw}', not those under '{ema}'" in notes.text
    np.testing.assert_array_equal(held(target), state[FC].numpy())
    assert convert(path, target, ARCH, "--ema") == 0
    np.testing.assert_array_equal(held(target), averaged[FC].numpy())
    assert read_checkpoint(target).record.ema is True


def test_averaged_weights_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = save(tiny_state(), tmp_path / "plain.pth")
    assert "leave --ema out" in refusal(capsys, plain, ARCH, "--ema")
    only = tmp_path / "only.pth"
    torch.save({"model_ema": tiny_state()}, only)
    assert "give --ema" in refusal(capsys, only, ARCH)
    single = save(tiny_state(), tmp_path / "x.safetensors")
    assert "one set of weights" in refusal(capsys, single, ARCH, "--ema")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_converted_and_said(
    kind: str, suffix: str, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    state = {name: value.to(getattr(torch, kind)) for name, value in tiny_state().items()}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file as save_tensors

        save_tensors(state, path)
    assert convert(path, tmp_path / "x.ckpt", ARCH) == 0
    called = {"float16": "F16", "bfloat16": "BF16", "float64": "F64"}[kind]
    said = f"{len(state)} tensors converted from {called if suffix != '.pth' else kind} to float32"
    assert said in notes.text
    assert held(tmp_path / "x.ckpt").dtype == np.float32
    np.testing.assert_array_equal(held(tmp_path / "x.ckpt"), state[FC].float().numpy())


def test_integers_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {**tiny_state(), FC: torch.ones((10, 128), dtype=torch.int8)}
    message = refusal(capsys, save(state, tmp_path / "x.pth"), ARCH)
    assert FC in message
    assert "int8" in message


def test_batch_counters_are_dropped_and_said(
    small: Callable[[int], Case], tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    case = small(0)
    source = save(reference(case).state_dict(), tmp_path / "x.pth")
    assert convert(source, tmp_path / "x.ckpt", case.name) == 0
    assert "5 x num_batches_tracked" in notes.text


def test_every_tensor_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tiny_state()
    absent = [f"classifier.blocks.1.{n}" for n in ("norm1.weight", "norm1.bias", "linear1.bias")]
    for name in absent:
        del state[name]
    state["classifier.norm.bias"] = torch.zeros(3)
    for number in range(12):
        state[f"neck.{number}.weight"] = torch.zeros(2)
    message = refusal(capsys, save(state, tmp_path / "x.pth"), ARCH)
    for line in (
        *(f"unexpected: neck.{number}.weight" for number in range(10)),
        "unexpected: 12 in all",
        "missing: classifier.blocks.1.norm1.gamma",
        "missing: classifier.blocks.1.norm1.beta",
        "missing: classifier.blocks.1.linear1.bias",
        "of another shape: classifier.norm.beta (3,) where (128,) is due",
    ):
        assert line in message.splitlines()
    assert "3 missing" in message.splitlines()[-1]
    assert "12 unexpected" in message.splitlines()[-1]
    assert "unexpected: neck.10.weight" not in message


def test_num_classes_explains_another_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], notes: pytest.LogCaptureFixture
) -> None:
    source = save(tiny_state(), tmp_path / "x.pth")
    target = tmp_path / "x.ckpt"
    assert convert(source, target, ARCH, "--num_classes", "7") == 0
    assert "classifier.fc: 10 -> 7 classes, freshly initialised" in notes.text
    assert held(target).shape == (7, 128)
    assert read_checkpoint(target).record.num_classes == 7
    # Without the option the number is that of the weights, and nothing is replaced.
    seven = tmp_path / "seven.safetensors"
    assert convert(target, seven, ARCH, "--to", "torch") == 0
    assert convert(seven, tmp_path / "again.ckpt", ARCH) == 0
    assert "num_classes 7: as in the weights" in notes.text
    np.testing.assert_array_equal(held(tmp_path / "again.ckpt"), held(target))
    # A wider classifier is no head for other classes.
    odd = save({**tiny_state(), FC: torch.zeros(7, 64)}, tmp_path / "odd.pth")
    assert "(7, 64)" in refusal(capsys, odd, ARCH, "--num_classes", "7")


def test_two_tensors_for_one_parameter(
    small: Callable[[int], Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = small(2)
    state = authors_convnext(reference(case).state_dict())
    state["head.fc.bias"] = torch.zeros(CLASSES)
    assert "twice" in refusal(capsys, save(state, tmp_path / "x.pth"), case.name)


# Bad input


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files(
    suffix: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(tiny_state(), tmp_path / "x.safetensors")
    if suffix == ".ckpt":
        assert convert(source, tmp_path / "x.ckpt", ARCH) == 0
    path = save(tiny_state(), tmp_path / f"x{suffix}") if suffix != ".ckpt" else tmp_path / "x.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    if suffix == ".ckpt":
        code = convert(path, tmp_path / "back.safetensors", ARCH, "--to", "torch")
        assert code == 2
        assert not (tmp_path / "back.safetensors").exists()
        assert ("damaged (" if share else "damaged (an empty file)") in capsys.readouterr().err
    else:
        assert "not a whole" in refusal(capsys, path, ARCH)


def test_truncated_file_of_old_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth"
    torch.save(tiny_state(), path, _use_new_zipfile_serialization=False)
    assert convert(path, tmp_path / "x.ckpt", ARCH) == 0
    (tmp_path / "x.ckpt").unlink()
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a whole" in refusal(capsys, path, ARCH)


class Trap:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(
    zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "x.pth"
    saved = {"model": tiny_state(), "extra": Trap(sprung)}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    message = refusal(capsys, path, ARCH)
    assert "mkdir, which could run code: refused" in message
    assert not sprung.exists()
    np.savez(tmp_path / "x.npz", a=np.array([Trap(sprung)], dtype=object))
    assert "could run code: refused" in refusal(capsys, tmp_path / "x.npz", ARCH)
    assert not sprung.exists()


@pytest.mark.parametrize(("number", "family"), [(1, "ConvMixer"), (2, "ConvNeXt"), (3, "DeiT")])
def test_weights_of_another_family(
    number: int,
    family: str,
    small: Callable[[int], Case],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = save(reference(small(number)).state_dict(), tmp_path / "x.pth")
    message = refusal(capsys, source, small(5).name)
    assert "'pcpvt_small_v0' is of the family Twins" in message
    assert f"look like {family}" in message


def test_weights_of_no_family_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"conv1.weight": torch.zeros(2), "layer1.0.bn1.bias": torch.zeros(2)}
    message = refusal(capsys, save(state, tmp_path / "x.pth"), ARCH)
    assert "conv1.weight" in message
    assert "ConvMixer, ConvNeXt" in message


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (3, "holds a int"),
        ({"epoch": 3, "optimizer": {}}, "epoch"),
        ({"model": {"a": torch.zeros(1), "lr": 0.1}}, "lr"),
        ({}, "nothing"),
    ],
)
def test_files_without_weights(
    saved: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(saved, tmp_path / "x.pth")
    assert said in refusal(capsys, tmp_path / "x.pth", ARCH)


def test_torch_is_needed_for_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tiny_state(), tmp_path / f"x{end}") for end in (".pth", ".safetensors", ".npz")]
    monkeypatch.setitem(sys.modules, "torch", None)
    for path in paths:
        assert convert(path, tmp_path / "x.ckpt", ARCH) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--arch": "cct_2_3x2"}, "cct_2_3x2_32"),
        ({"--input": "absent.pth"}, "no such file"),
        ({"--input": "x.h5"}, ".safetensors"),
        ({"--input": "x.ckpt"}, "damaged"),
        ({"--output": "y.pth"}, "expected a .ckpt file"),
        ({"--output": "nowhere/y.ckpt"}, "no such folder"),
        ({"--num_classes": "0"}, "num_classes 0"),
        ({"--image_size": "2"}, ""),
        ({"--to": "onnx"}, "onnx"),
        ({"--num_classes": "many"}, "many"),
        ({"--emma": "1"}, "--emma"),
    ],
)
def test_options_are_refused_in_one_line(
    change: Dict[str, str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tiny_state(), Path("x.npz"))
    for name in ("x.h5", "x.ckpt"):
        Path(name).write_bytes(b"x")
    options = {"--arch": ARCH, "--input": "x.npz", "--output": "y.ckpt", **change}
    capsys.readouterr()
    try:
        code = convert_weights.main([word for pair in options.items() for word in pair])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not Path("y.ckpt").exists()


def test_a_checkpoint_of_ours_goes_the_other_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(save(tiny_state(), tmp_path / "x.npz"), tmp_path / "x.ckpt", ARCH) == 0
    assert "--to torch" in refusal(capsys, tmp_path / "x.ckpt", ARCH)


def test_to_torch_refuses_the_wrong_arch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert convert(save(tiny_state(), tmp_path / "x.npz"), tmp_path / "x.ckpt", ARCH) == 0
    target = tmp_path / "y.safetensors"
    assert convert(tmp_path / "x.ckpt", target, "cct_4_3x2_32", "--to", "torch") == 2
    assert f"--arch {ARCH}" in capsys.readouterr().err
    assert not target.exists()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tiny_state(), tmp_path / "x.npz")
    target, back = tmp_path / "x.ckpt", tmp_path / "x.safetensors"
    assert convert(source, target, ARCH) == 0
    assert convert(target, back, ARCH, "--to", "torch") == 0
    before = {path: path.read_bytes() for path in (target, back)}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert convert(source, target, ARCH) == 2
    assert convert(target, back, ARCH, "--to", "torch") == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["x.ckpt", "x.npz", "x.safetensors"]
    assert {path: path.read_bytes() for path in before} == before
