"""Exported files and their records: changed, edited or with weights elsewhere they are refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, List

import numpy as np
import onnx
import pytest
from digits_run import failure
from onnx import helper, numpy_helper
from PIL import Image

import predict as predict_program
from src.args import Config
from src.errors import UserError
from src.runtime.files import file_sha256
from src.serving.export_record import (
    ExportRecord,
    read_record,
    record_path,
    transform_of,
    write_record,
)

SIDE = 16


def record_of(path: Path) -> ExportRecord:
    return ExportRecord(
        arch="cct_2_3x2_32",
        num_classes=3,
        image_size=SIDE,
        input="float32_nchw",
        batch_size=None,
        transform=transform_of(Config()),
        sha256=file_sha256(path),
        mindspore="2.10.0",
        class_names=["a", "b", "c"],
    )


def exported(folder: Path, location: str = "") -> Path:
    """(B, 3, 16, 16) float32 -> the means of its channels; with a weight at `location`."""
    scale = numpy_helper.from_array(np.ones(3, np.float32), "scale")
    if location:
        onnx.external_data_helper.set_external_data(scale, location, offset=0, length=12)
        scale.ClearField("raw_data")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "scale"], ["logits"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", 1, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", 1, ["batch", 3])],
        [scale],
    )
    opset = [helper.make_opsetid("", 13)]
    path = folder / "net.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    write_record(path, record_of(path))
    return path


def words(path: Path) -> List[str]:
    Image.new("RGB", (SIDE, SIDE)).save(path.with_name("image.png"))
    return ["--pretrained", str(path), "--input", str(path.with_name("image.png"))]


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    write_record(path, replace(record_of(path), format=2))
    with pytest.raises(UserError, match="format 2, of a newer version than this, which reads up"):
        read_record(path)


def test_a_whole_one_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exported(tmp_path)
    assert read_record(path).sha256 == record_of(path).sha256
    assert predict_program.main(words(path)) == 0
    assert "image.png" in capsys.readouterr().out


def test_no_bit_of_file_and_record_can_be_changed(tmp_path: Path) -> None:
    path = exported(tmp_path)
    due = read_record(path)
    bits = np.random.default_rng(0).integers(0, 8, 10_000)
    for file in (path, record_path(path)):
        content = file.read_bytes()
        for place, byte in enumerate(content):
            changed = bytes([byte ^ 1 << int(bits[place])])
            file.write_bytes(content[:place] + changed + content[place + 1 :])
            with contextlib.suppress(UserError):
                # It may be the key that holds the digest, or a space.
                assert read_record(path) == due
        file.write_bytes(content[:-20] + b"x" + content[-19:])
        with pytest.raises(UserError, match=r"\A[^\n]*damaged[^\n]*\Z"):
            read_record(path)
        for size in (0, len(content) // 2, len(content) - 2):
            file.write_bytes(content[:size])
            with pytest.raises(UserError, match="damaged"):
                read_record(path)
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("arch", "../x", "unknown architecture"),
        ("num_classes", 0, ">= 1"),
        ("num_classes", 10**9, "<= 1000000"),
        ("num_classes", 4, "3 class_names of 4 classes"),
        ("image_size", 10**6, "<= 100000"),
        ("image_size", True, "got `bool`"),
        ("input", "uint8_nchw", "Invalid enum value"),
        ("batch_size", 10**9, "<= 65536"),
        ("batch_size", -1, ">= 1"),
        ("transform", {}, "unknown here or missing there"),
        ("transform", {**transform_of(Config()), "gamma": 2}, "gamma: unknown here"),
        ("transform", [], "got `array`"),
        ("sha256", "x", "matching regex"),
        ("mindspore", 2.1, "got `float`"),
        ("class_names", ["a", 7, "c"], "got `int`"),
        ("is_converted", "no", "got `str`"),
    ],
)
def test_a_wrong_field_is_refused(tmp_path: Path, key: str, value: Any, words: str) -> None:
    path = exported(tmp_path)
    older = {**asdict(record_of(path)), key: value}  # which had no digest
    record_path(path).write_text(json.dumps(older))
    with pytest.raises(UserError) as caught:
        read_record(path)
    assert words in str(caught.value)
    assert "net.onnx.json beside it, which is missing or damaged (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    older = {**asdict(record_of(path)), "batch_size": 60_000, "image_size": 4096}
    record_path(path).write_text(json.dumps(older))
    with pytest.raises(UserError, match="12,079,595,520,000 bytes of images, more than the"):
        read_record(path)


def test_a_value_of_the_transform_is_checked_as_a_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(tmp_path)
    transform = {**transform_of(Config()), "crop_pct": -3}
    record_path(path).write_text(json.dumps({**asdict(record_of(path)), "transform": transform}))
    assert "crop_pct: -3 is not allowed" in failure(capsys, predict_program, words(path))


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin", "gone.bin"])
def test_weights_in_other_files_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], location: str
) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    path = exported(tmp_path, location)
    message = failure(capsys, predict_program, words(path))
    assert "weights of it lie in other files, which are not read" in message
