"""Bundles: whole ones agree, and everything that is otherwise on the target is found."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
from digits_run import failure
from small_networks import words, write_checkpoint
from test_commands import load

import export as export_program
from src.args import Config, PredictRun, parse_args, replace
from src.errors import UserError
from src.report.class_names import read_labels
from src.serving import bundle_check
from src.serving.bundle import BUNDLE, Bundle, predict_all, prepared, read_bundle
from src.serving.bundle_check import check_bundle, compare, explain
from src.serving.export_record import ExportRecord, read_record, write_record
from src.serving.predictor import CheckpointPredictor

ARCH = "convmixer_768_32"
TURNED = ["--exif_orientation", "True", "--crop_pct", "0.8", "--interpolation", "bilinear"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(ARCH, tmp_path_factory.mktemp("weights") / "net.ckpt")


@pytest.fixture(scope="module")
def bundles(checkpoint: Path) -> Dict[str, Path]:
    """One of normalised images, MINDIR of two a call; one of pixels, ONNX of any number."""
    options = {
        "mindir": ["--batch_size", "2"],
        "onnx": ["--file_format", "ONNX", "--dynamic_batch", "--input", "uint8_nhwc", *TURNED],
    }
    found = {name: checkpoint.with_name(f"bundle {name} 数") for name in options}
    for name, more in options.items():
        arguments = [*words(ARCH), "--pretrained", str(checkpoint), "--bundle", str(found[name])]
        assert export_program.main([*arguments, *more]) == 0
    return found


def check(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    return int(load("scripts/check_bundle.py", monkeypatch).main([str(folder), *more]))


@pytest.mark.parametrize("form", ["mindir", "onnx"])
def test_a_copy_agrees(
    form: str,
    bundles: Dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "elsewhere"
    caplog.set_level(logging.INFO)
    shutil.copytree(bundles[form], folder)
    assert check(folder, monkeypatch) == 0
    assert not caplog.messages
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [
        *("wide.jpg", "upright.jpg", "turned.jpg", "transparent.png", "small.png")
    ]
    assert all(line.endswith(", ok") and "pixels 0 of 255" in line for line in lines[:5])
    assert lines[5].startswith("5 images agree")
    assert read_labels(folder / "labels.txt") == [str(number) for number in range(10)]
    # Everything but bundle.tsv itself is listed in it.
    listed = [line.split("\t")[1] for line in text_of(folder).splitlines() if line[:5] == "file\t"]
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([*listed, BUNDLE])
    assert len(files) == 20


def test_the_logits_are_those_of_the_checkpoint(bundles: Dict[str, Path], checkpoint: Path) -> None:
    bundle = read_bundle(bundles["onnx"])
    config = parse_args([*words(ARCH), "--pretrained", str(checkpoint)])
    pixels = np.stack([golden.pixels for golden in bundle.golden])
    logits = np.stack([golden.logits for golden in bundle.golden])
    np.testing.assert_allclose(CheckpointPredictor(config)(pixels), logits, atol=1e-5)
    assert np.ptp(logits, axis=0).min() > 1e-3  # the images are told apart


def text_of(folder: Path) -> str:
    return (folder / BUNDLE).read_bytes().decode()


def sealed(folder: Path, **changes: str) -> None:
    """bundle.tsv as its writer would have it with other values, and digests of what is there."""
    lines = []
    for line in text_of(folder).splitlines()[:-1]:
        key, *rest = line.split("\t")
        if key == "file":
            content = (folder / rest[0]).read_bytes()
            line = f"file\t{rest[0]}\t{len(content)}\t{hashlib.sha256(content).hexdigest()}"
        lines.append(f"{key}\t{changes[key]}" if key in changes else line)
    text = "\n".join(lines) + "\n"
    files = text.count("\nfile\t")
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / BUNDLE).write_bytes(f"{text}end\t{files}\t{digest}\n".encode())


def test_a_changed_byte_of_any_file_is_found(bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mindir"], folder)
    rng = np.random.default_rng(0)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        places = [0, len(whole) // 2, len(whole) - 1, *rng.integers(0, len(whole), 5)]
        for place in places:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(changed))
            with pytest.raises(UserError, match=f"{path.name}[^\n]*copy the whole|bundle makes"):
                read_bundle(folder)
        for size in (0, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(UserError, match=path.name):
                read_bundle(folder)
        path.unlink()
        with pytest.raises(UserError, match=rf"{path.name}[^\n]*No such file"):
            read_bundle(folder)
        path.write_bytes(whole)
    assert len(read_bundle(folder).golden) == 5


@pytest.fixture
def opened(bundles: Dict[str, Path], checkpoint: Path) -> Tuple[Bundle, Config, Config]:
    """A bundle, the configuration of its transform, and that of the checkpoint."""
    folder = bundles["onnx"]
    record = read_record(folder / "network.onnx")
    config = replace(PredictRun(), **{**record.transform, "image_size": 32, "num_classes": 10})
    given = [*words(ARCH), "--pretrained", str(checkpoint)]
    return read_bundle(folder), config, parse_args(given)


def found_with(
    opened: Tuple[Bundle, Config, Config], predict: Callable[[np.ndarray], np.ndarray]
) -> str:
    bundle, config, _ = opened
    return explain(compare(bundle, config, predict, 5, bundle.tolerance))


def test_a_wrong_precision_of_the_runtime_is_found(
    opened: Tuple[Bundle, Config, Config],
) -> None:
    single = CheckpointPredictor(opened[2])
    half = CheckpointPredictor(replace(opened[2], amp_level="O3"))
    assert found_with(opened, single) == ""
    said = found_with(opened, half)
    assert "5 of 5 images differ; logits by up to" in said
    assert "another precision" in said
    # Weights alone rounded, as a converter stores them.
    rounded = CheckpointPredictor(opened[2])
    for parameter in rounded.eval_net().get_parameters():
        parameter.set_data(type(parameter)(parameter.asnumpy().astype(np.float16).astype("f4")))
    assert "another precision" in found_with(opened, rounded)


def test_swapped_channels_are_found(
    opened: Tuple[Bundle, Config, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = CheckpointPredictor(opened[2])
    said = found_with(opened, lambda pixels: network(np.ascontiguousarray(pixels[..., ::-1])))
    assert "logits by up to" in said
    assert "pixels" not in said
    monkeypatch.setattr(bundle_check, "prepared", lambda *given: prepared(*given)[..., ::-1])
    said = found_with(opened, network)
    assert "5 of 5 images differ; pixels by up to" in said
    assert "red and blue are swapped" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop_pct", 0.78),
        ("crop_mode", "squash"),
        ("interpolation", "bicubic"),
        ("exif_orientation", False),
        ("background", None),
        ("background", (254, 255, 250)),
    ],
)
def test_a_wrong_transform_is_found(
    opened: Tuple[Bundle, Config, Config], key: str, value: Any
) -> None:
    bundle, config, trained = opened
    other = replace(config, **{key: value})
    said = found_with((bundle, other, trained), CheckpointPredictor(trained))
    assert "of 5 images differ; pixels by up to" in said
    assert "the transform or the decoder is another one" in said
    assert "logits" not in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mean", (0.5, 0.456, 0.406), "normalises otherwise"),
        ("std", (0.229, 0.224, 0.226), "normalises otherwise"),
        ("crop_pct", 0.875, "pixels by up to"),
    ],
)
def test_another_transform_in_all_files_of_a_bundle_is_found(
    key: str,
    value: Any,
    said: str,
    bundles: Dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mindir"], folder)
    record = read_record(folder / "network.mindir")
    other = ExportRecord(**{**vars(record), "transform": {**record.transform, key: value}})
    write_record(folder / "network.mindir", other)
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    sealed(folder)
    with pytest.raises(UserError, match=f"{key} is [^\n]* in bundle.tsv and {shown} in network"):
        check_bundle(folder, PredictRun())
    sealed(folder, **{key: shown})
    capsys.readouterr()
    assert check(folder, monkeypatch) == 1
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert said in error
    assert "DIFFERS" in printed.out
    assert (check(folder, monkeypatch, "--tolerance", "100") == 0) == (key != "crop_pct")


def test_a_network_that_gives_no_numbers_is_found(opened: Tuple[Bundle, Config, Config]) -> None:
    said = found_with(opened, lambda pixels: np.full((len(pixels), 10), np.nan, np.float32))
    assert "logits by up to nan" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "2"}, "not of version 1"),
        ({"network": "../network.mindir"}, "the line 'network'"),
        ({"network": "other.mindir"}, "without a digest of 'other.mindir'"),
        ({"input": "uint8"}, "the line 'input' with 'uint8'"),
        ({"image_size": "31"}, "not the 31x31x3 numbers"),
        ({"image_size": "99999999"}, "the line 'image_size'"),
        ({"num_classes": "11"}, "not the 11 numbers of"),
        ({"crop_pct": "nan"}, "the line 'crop_pct' with 'nan'"),
        ({"mean": "0.5,0.5"}, "the line 'mean'"),
        ({"tolerance": "inf"}, "the line 'tolerance'"),
        ({"mindspore": ""}, "the line 'mindspore'"),
        ({"golden": "labels"}, "without a digest of 'labels'"),
        ({"background": "white"}, "the line 'background'"),
        ({"numpy": "1\ngamma\t2"}, "the line 'gamma'"),
        ({"numpy": "1\nmean\t1,1,1"}, "two lines of 'mean'"),
        ({"numpy": "1\nfile\t../x\t1\t" + "0" * 64}, "the line '../x"),
        ({"numpy": "1\nfile\tlabels.txt\t1"}, "the line 'labels.txt"),
    ],
)
def test_bundles_of_others_are_refused(
    changes: Dict[str, str], said: str, bundles: Dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mindir"], folder)
    sealed(folder, **changes)
    with pytest.raises(UserError) as caught:
        read_bundle(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_and_pipes_in_a_bundle_are_refused(bundles: Dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mindir"], folder)
    labels = folder / "labels.txt"
    shutil.move(labels, tmp_path / "labels.txt")
    labels.symlink_to("../labels.txt")
    with pytest.raises(UserError, match="a link that leaves the folder"):
        read_bundle(folder)
    labels.unlink()
    os.mkfifo(labels)
    with pytest.raises(UserError, match="a named pipe"):
        read_bundle(folder)
    with pytest.raises(UserError, match=r"export\.py --bundle makes such folders"):
        read_bundle(tmp_path / "none")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--output", "net.mindir"], "leave --output out"),
        (["--bundle", "there"], "is there already"),
        (["--bundle", "no/folder/b"], "no such folder"),
        (["--file_format", "AIR"], "--file_format MINDIR"),
    ],
)
def test_what_makes_no_bundle_leaves_nothing(
    more: List[str],
    said: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    given = [] if "--bundle" in more else ["--bundle", "new"]
    arguments = [*words(ARCH), "--pretrained", str(checkpoint), *given, *more]
    assert said in failure(capsys, export_program, arguments)
    assert os.listdir() == ["there"]
    assert os.listdir("there") == []


def test_a_bundle_is_whole_or_not_there(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*words(ARCH), "--pretrained", str(checkpoint), "--bundle", str(tmp_path / "b")]
    with monkeypatch.context() as patch:
        # What export.py finds when the file computes something else on its golden images.
        patch.setattr(bundle_check, "prepared", lambda *given: prepared(*given)[..., ::-1])
        assert "red and blue are swapped; it is not kept" in failure(
            capsys, export_program, arguments
        )
    assert os.listdir(tmp_path) == []
    with monkeypatch.context() as patch:
        patch.setattr("src.serving.bundle.write_whole", full_disk)
        assert "No space left" in failure(capsys, export_program, arguments)
    assert os.listdir(tmp_path) == []
    more = ["--write_converter_config", "--file_format", "ONNX"]
    assert export_program.main([*arguments, *more]) == 0
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755
    names = ["network.onnx.atc.sh", "network.onnx.converter_lite.cfg", "network.onnx.json"]
    assert {*names} < {path.name for path in (tmp_path / "b").iterdir()}
    assert all(f"file\t{name}\t" in text_of(tmp_path / "b") for name in names)


def full_disk(path: Path, data: bytes) -> None:
    if path.name == "000003.bin":
        raise OSError(28, "No space left on device", str(path))
    path.write_bytes(data)


def test_images_are_predicted_in_batches_that_are_filled_up() -> None:
    seen = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape[0])
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(predict_all(predict, pixels, 2)[:, 0], np.arange(5))
    assert seen == [2, 2, 2]
