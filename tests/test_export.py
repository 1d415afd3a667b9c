"""export.py: what it writes computes what the network computes, in two runtimes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from digits_run import failure, fill_disk
from mindspore import nn
from small_networks import ARGUMENTS, words, write_checkpoint
from weight_rule import bright_batches

import eval as eval_program
import export as export_program
from src.args import Config, parse_args
from src.checkpoints.checkpoint import STATE_PREFIX, read_checkpoint
from src.data.augment.batch_transform import ImageNormalize, normalize_pixels
from src.runtime import compat
from src.serving import export_record
from src.trainer.build import build_network
from src.trainer.open_checkpoint import load_network

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {arch: write_checkpoint(arch, folder / f"{arch}.ckpt") for arch in ARGUMENTS}


def pixels(count: int) -> np.ndarray:
    return bright_batches(1, batch=count, side=32, classes=10)[0][0]


def network_logits(arch: str, checkpoint: Path, images: np.ndarray) -> np.ndarray:
    config = parse_args(words(arch))
    network = build_network(config)
    load_network(network, read_checkpoint(checkpoint), config)
    return network.set_train(False)(ms.Tensor(images)).asnumpy()


def run(arguments: List[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert export_program.main(arguments) == 0
    return out.getvalue()


def test_pixels_are_normalised_alike_in_numpy_and_in_the_graph() -> None:
    found = ImageNormalize(mean=MEAN, std=STD)(ms.Tensor(pixels(2))).asnumpy()
    np.testing.assert_array_equal(normalize_pixels(pixels(2), mean=MEAN, std=STD), found)


# tests/test_inference_chain.py has the other families.
@pytest.mark.parametrize("arch", ["deit_tiny_patch16_224"])
def test_onnx_of_any_batch_computes_the_network(
    arch: str, checkpoints: Dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--output", str(path)]
    run([*arguments, "--file_format", "ONNX", "--dynamic_batch"])
    onnx.checker.check_model(str(path), full_check=True)
    images = normalize_pixels(pixels(5), mean=MEAN, std=STD)
    expected = network_logits(arch, checkpoints[arch], images)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (5, 1):
        found = session.run(["logits"], {"image": images[:count]})[0]
        error = np.abs(found - expected[:count]).max() / np.abs(expected).max()
        assert error <= 1e-5


@pytest.mark.parametrize("arch", ["cct_2_3x2_32"])
def test_mindir_of_pixels_computes_the_network(
    arch: str, checkpoints: Dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "net.mindir"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--output", str(path)]
    printed = run([*arguments, "--input", "uint8_nhwc", "--batch_size", "4"])
    assert "largest difference of 40 logits" in printed
    images = pixels(4)
    found = nn.GraphCell(ms.load(str(path)))(ms.Tensor(images)).asnumpy()
    normalised = normalize_pixels(images, mean=MEAN, std=STD)
    expected = network_logits(arch, checkpoints[arch], normalised)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    record = json.loads((tmp_path / "net.mindir.json").read_text())
    assert (record["input"], record["batch_size"], record["arch"]) == ("uint8_nhwc", 4, arch)


def test_a_file_goes_beside_its_checkpoint_and_is_written_over_when_named_only(
    checkpoints: Dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    arch, weights, path = "convmixer_768_32", tmp_path / "best.ckpt", tmp_path / "best.mindir"
    shutil.copy(checkpoints[arch], weights)
    arguments = [*words(arch), "--pretrained", str(weights)]
    assert f"wrote {path}" in run(arguments)
    assert path.stat().st_mode & 0o777 == 0o644
    first = path.read_bytes()
    said = failure(capsys, export_program, arguments)
    assert f"output null: {path} is there already; give --output FILE" in said
    assert path.read_bytes() == first
    run([*arguments, "--output", str(path), "--batch_size", "2"])
    assert json.loads(Path(f"{path}.json").read_text())["batch_size"] == 2
    there = sorted(found.name for found in tmp_path.iterdir())
    assert there == ["best.ckpt", "best.mindir", "best.mindir.json", "elsewhere"]
    assert os.listdir() == []


def test_ema_exports_the_averaged_weights(checkpoints: Dict[str, Path], tmp_path: Path) -> None:
    arch, path = "convmixer_768_32", tmp_path / "net.onnx"
    weights = read_checkpoint(checkpoints[arch]).tensors
    both = [{"name": name, "data": tensor} for name, tensor in weights.items()]
    both += [
        {"name": f"{STATE_PREFIX}ema.{name}", "data": tensor * 0.5}
        for name, tensor in weights.items()
    ]
    averages = [
        {"name": one["name"], "data": two["data"]} for one, two in zip(both, both[-len(weights) :])
    ]
    ms.save_checkpoint(both, str(tmp_path / "both.ckpt"))
    ms.save_checkpoint(averages, str(tmp_path / "averages.ckpt"))
    options = ["--pretrained", str(tmp_path / "both.ckpt"), "--output", str(path)]
    run([*words(arch), *options, "--file_format", "ONNX", "--ema"])
    images = normalize_pixels(pixels(1), mean=MEAN, std=STD)
    expected = network_logits(arch, tmp_path / "averages.ckpt", images)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"image": images})[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    raw = network_logits(arch, checkpoints[arch], images)
    assert np.abs(found - raw).max() > 1e-2 * np.abs(raw).max()


@pytest.mark.parametrize(
    ("layout", "form"),
    [
        ("uint8_nhwc", "mindir"),
        ("float32_nchw", "onnx"),
        pytest.param("uint8_nhwc", "onnx", marks=pytest.mark.slow),
        pytest.param("float32_nchw", "mindir", marks=pytest.mark.slow),
    ],
)
def test_eval_scores_the_file_as_the_checkpoint(
    form: str,
    layout: str,
    checkpoints: Dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arch, path = "convmixer_768_32", tmp_path / f"with space-数.{form}"
    weights = ["--pretrained", str(checkpoints[arch])]
    # 360 images: the last batch is filled up.
    shape = ["--input", layout, "--batch_size", "50", "--file_format", form.upper()]
    run([*words(arch), *weights, "--output", str(path), *shape])
    data = ["--data_url", str(tmp_path / "digits"), "--train_url", str(tmp_path / "run")]
    reports = []
    for source in (weights, ["--pretrained", str(path)]):
        assert eval_program.main([*words(arch), *data, *source]) == 0
        name = checkpoints[arch].stem if source is weights else path.name
        reports.append(json.loads((tmp_path / "run" / f"eval_{name}_digits_val.json").read_text()))
    assert reports[0]["images"] == 360
    assert all(reports[0][key] == reports[1][key] for key in ("images", "top1", "top5"))
    capsys.readouterr()
    given = [*words(arch), *data, "--pretrained", str(path)]
    assert "weights it was exported with" in failure(capsys, eval_program, [*given, "--ema"])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in failure(capsys, eval_program, given)


def test_a_file_that_computes_something_else_is_not_kept(
    checkpoints: Dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.serving.onnx_export.math.sqrt", lambda x: 0.9)
    arch = "convmixer_768_32"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--file_format", "ONNX"]
    assert "differ" in failure(capsys, export_program, arguments)
    assert os.listdir() == []


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a disk that is full after `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("form", ["MINDIR", pytest.param("ONNX", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_nothing_half_written(
    form: str,
    checkpoints: Dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch, path = "convmixer_768_32", tmp_path / f"net.{form.lower()}"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--output", str(path)]
    arguments += ["--file_format", form]
    with largest_file(4096):
        assert str(path) in failure(capsys, export_program, arguments)
    assert os.listdir(tmp_path) == []
    run(arguments)
    written = sorted(os.listdir(tmp_path))
    fill_disk(monkeypatch, tmp_path / f"net.{form.lower()}.converter_lite.cfg")
    message = failure(capsys, export_program, [*arguments, "--write_converter_config"])
    assert "No space left" in message
    assert sorted(os.listdir(tmp_path)) == written


def test_onnx_without_its_packages_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("src.serving.export.find_spec", lambda name: None)
    arguments = ["--arch", "cct_2_3x2_32", "--pretrained", "x.ckpt", "--file_format", "ONNX"]
    said = failure(capsys, export_program, arguments)
    assert "needs onnx and onnxruntime; pip install -r requirements-onnx.txt" in said


def test_nothing_but_onnx_files_needs_its_packages() -> None:
    """Programs and what they import on their way start where neither can be imported."""
    code = (
        "import sys; sys.modules.update(onnx=None, onnxruntime=None)\n"
        "import train, eval, export, predict\n"
        "import src.trainer.run, src.serving.export, src.serving.predictor"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--file_format", "AIR"], "--file_format MINDIR"),
        (["--output", "net.onnx"], ".mindir"),
        (["--output", "no/such/folder/net.mindir"], "no/such/folder"),
        (["--pretrained", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--ema"], "averaged"),
        (["--num_classes", "11"], "num_classes"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    more: List[str],
    said: str,
    checkpoints: Dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = "convmixer_768_32"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), *more]
    assert said in failure(capsys, export_program, arguments)
    assert os.listdir() == []


def test_a_free_batch_in_mindir_works_or_is_refused(
    checkpoints: Dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch, path = "cct_2_3x2_32", tmp_path / "net.mindir"
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--output", str(path)]
    arguments.append("--dynamic_batch")
    if not compat.loads_mindir_of_any_batch():
        assert "--batch_size" in failure(capsys, export_program, arguments)
        return
    run(arguments)
    images = normalize_pixels(pixels(5), mean=MEAN, std=STD)
    cell, expected = (
        nn.GraphCell(ms.load(str(path))),
        network_logits(arch, checkpoints[arch], images),
    )
    for count in (5, 2):
        found = cell(ms.Tensor(images[:count])).asnumpy()
        assert np.abs(found - expected[:count]).max() <= 1e-5 * np.abs(expected).max()


CONVERTERS: List[Tuple[List[str], Dict[str, str]]] = [
    (["--batch_size", "8"], {"converter_lite.cfg": "input_shape=image:[8,3,32,32]\n"}),
    (
        ["--file_format", "ONNX", "--dynamic_batch", "--input", "uint8_nhwc"],
        {
            "converter_lite.cfg": "input_shape=image:[-1,32,32,3]\n",
            "atc.sh": '--input_shape="image:-1,32,32,3"',
        },
    ),
]


@pytest.mark.parametrize(("more", "expected"), CONVERTERS)
def test_converter_configurations_say_the_input(
    more: List[str], expected: Dict[str, str], checkpoints: Dict[str, Path], tmp_path: Path
) -> None:
    arch = "convmixer_768_32"
    path = tmp_path / ("net.onnx" if "ONNX" in more else "net.mindir")
    arguments = [*words(arch), "--pretrained", str(checkpoints[arch]), "--output", str(path)]
    run([*arguments, "--write_converter_config", *more])
    beside = {p.name[len(path.name) + 1 :]: p for p in tmp_path.glob(f"{path.name}.*")}
    assert set(beside) == {"json", *expected}
    for name, text in expected.items():
        assert text in beside[name].read_text()


def test_records_from_before_a_key_say_what_was_done_then(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"x")
    transform = export_record.transform_of(Config())
    assert {"background", "exif_orientation"} <= set(transform)
    del transform["background"], transform["exif_orientation"]
    sha256 = hashlib.sha256(b"x").hexdigest()
    record = export_record.ExportRecord(
        "cct_2_3x2_32", 2, 16, "uint8_nhwc", 1, transform, sha256, "2.10"
    )
    export_record.write_record(path, record)
    before = export_record.read_record(path).transform
    assert (before["background"], before["exif_orientation"]) == (None, False)
