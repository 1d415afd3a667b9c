"""The lines of docs/inference.md that prepare images for an exported file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from model_parity import load_rule_weights
from photographs import encoded, load_photographs
from PIL import Image

import export as export_program
import predict as predict_program
from src.args import parse_args, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.data.imagenet import create_dataset
from src.report.image_files import ImageStream, find_images
from src.report.predictions import top_k
from src.serving.export_record import transform_of
from src.trainer.build import build_network

ROOT = Path(__file__).resolve().parent.parent
SIDE = 24
NETWORK = ["--arch", "convmixer_768_32", "--image_size", str(SIDE), "--crop_pct", "0.9"]
# (width, height): even and odd differences to the crop, upright and wide, smaller than the crop.
SIZES = [(64, 48), (48, 64), (61, 101), (101, 61), (33, 32), (31, 45), (200, 27), (17, 90), (9, 9)]
TRANSFORMS = [
    [],
    ["--crop_pct", "0.9", "--interpolation", "bilinear"],
    ["--crop_pct", "1.0", "--interpolation", "random"],
    ["--crop_pct", "0.74", "--crop_mode", "squash"],
    ["--crop_pct", "0.95", "--background", "null", "--exif_orientation"],
    ["--background", "[10, 20, 30]"],
]


def blocks() -> List[str]:
    """Python of the page's section: the pixels, ONNX, MINDIR, a file that takes pixels."""
    page = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    section = page.split("\n## Images for an exported file\n")[1].split("\n## ")[0]
    found = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(found) == 4
    return found


def run(block: str, names: Dict[str, Any]) -> None:
    exec(compile(block, "docs/inference.md", "exec"), names)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs as JPEGs of SIZES; grey, CMYK, turned by EXIF; PNGs that are transparent."""
    folder = tmp_path_factory.mktemp("images") / "val" / "ant"
    folder.mkdir(parents=True)
    photographs = load_photographs()
    for index, size in enumerate(SIZES):
        sized = photographs[index % len(photographs)].resize(size)
        (folder / f"{size[0]}x{size[1]}.jpg").write_bytes(encoded(sized, "JPEG", quality=90))
    sized = photographs[2].resize((61, 44))
    for mode in ("L", "CMYK"):
        (folder / f"{mode}.jpg").write_bytes(encoded(sized.convert(mode), "JPEG"))
    turned = Image.Exif()
    turned[274] = 6
    (folder / "turned.jpg").write_bytes(encoded(sized, "JPEG", exif=turned))
    clear = sized.convert("RGBA")
    clear.putalpha(photographs[3].resize(sized.size).convert("L"))
    (folder / "alpha.png").write_bytes(encoded(clear, "PNG"))
    (folder / "palette.png").write_bytes(encoded(sized.quantize(16), "PNG", transparency=3))
    return folder


@pytest.mark.parametrize("transform", TRANSFORMS, ids=" ".join)
def test_the_pixels_of_the_page_are_those_of_eval_and_predict(
    transform: List[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data_url", str(images.parent.parent), "--num_classes", "1", "--batch_size", "20"]
    config = parse_args([*NETWORK, *transform, *data])
    record = {"image_size": SIDE, "transform": transform_of(config)}
    (tmp_path / "net.onnx.json").write_text(json.dumps(record))
    root, files = find_images(str(images))
    for name, file in zip(("a.jpg", "b.jpg"), files):
        (tmp_path / name).write_bytes((root / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    names: Dict[str, Any] = {}
    run(blocks()[0], names)
    found = np.stack([names["read_pixels"](root / file) for file in files])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(names["pixels"], found[:2])
    (of_predict,) = ImageStream.of_config(config, root, files)
    np.testing.assert_array_equal(found, of_predict.image)
    (of_eval,) = create_dataset(config, False).batches()
    np.testing.assert_array_equal(found, of_eval.image[: len(found)])
    assert (of_eval.label >= 0).sum() == len(found) == len(SIZES) + 5


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The folder of the page's lines: `a.jpg`, `b.jpg`, a checkpoint and what is exported of it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "shown").mkdir()
    for name, size in (("a.jpg", "61x101"), ("b.jpg", "101x61")):
        for place in (folder, folder / "shown"):
            (place / name).write_bytes((images / f"{size}.jpg").read_bytes())
    layers = "{dim: 16, depth: 1, patch_size: 4, kernel_size: 3}"
    config = parse_args([*NETWORK, "--num_classes", "10", "--model_args", layers])
    network = load_rule_weights(build_network(config))
    meta = {"arch": config.model.arch, "num_classes": 10, "config": to_yaml(config)}
    weights = folder / "best.ckpt"
    save_checkpoint(weights, network.get_parameters(), meta)
    for name, more in (
        ("net.onnx", ["--file_format", "ONNX", "--dynamic_batch"]),
        ("pixels.onnx", ["--file_format", "ONNX", "--batch_size", "2", "--input", "uint8_nhwc"]),
        ("net.mindir", []),
    ):
        given = ["--pretrained", str(weights), "--output", str(folder / name), *more]
        assert export_program.main(given) == 0
    return folder


def predicted(weights: Path, capsys: pytest.CaptureFixture[str]) -> np.ndarray:
    """Probabilities of a.jpg and b.jpg in the order of the classes, as predict.py says them."""
    capsys.readouterr()
    given = ["--pretrained", str(weights), "--input", str(weights.parent / "shown")]
    assert predict_program.main([*given, "--output", "json", "--top_k", "10"]) == 0
    found = [sorted(said["top"], key=by_label) for said in json.loads(capsys.readouterr().out)]
    return np.array([[entry["probability"] for entry in top] for top in found])


def by_label(entry: Dict[str, Any]) -> int:
    label: int = entry["label"]
    return label


def softmax(logits: np.ndarray) -> np.ndarray:
    labels, shares = top_k(logits, logits.shape[1])
    return np.take_along_axis(shares, np.argsort(labels, axis=1), axis=1)


def test_the_probabilities_of_the_page_are_those_of_predict(
    served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(served)
    names: Dict[str, Any] = {}
    of_pixels, of_onnx, of_mindir, of_uint8 = blocks()
    run(of_pixels + of_onnx, names)
    expected = predicted(served / "net.onnx", capsys)
    assert expected.shape == (2, 10)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2  # it sees which image it is
    np.testing.assert_allclose(names["shares"], expected, rtol=0, atol=1e-6)
    run(of_mindir, names)
    due = predicted(served / "net.mindir", capsys)
    np.testing.assert_allclose(softmax(names["logits"]), due, rtol=0, atol=1e-6)
    run(of_uint8, names)
    due = predicted(served / "pixels.onnx", capsys)
    np.testing.assert_allclose(softmax(names["logits"]), due, rtol=0, atol=1e-6)
    np.testing.assert_allclose(due, predicted(served / "best.ckpt", capsys), rtol=0, atol=1e-5)


def test_a_crop_that_is_off_by_one_is_seen(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says how a half is rounded because a pixel changes the probabilities."""
    monkeypatch.chdir(served)
    right: Dict[str, Any] = {}
    wrong: Dict[str, Any] = {}
    of_pixels, of_onnx, *_ = blocks()
    run(of_pixels + of_onnx, right)
    shifted = of_pixels.replace("round((length - side) / 2)", "(length - side) // 2")
    assert shifted != of_pixels
    run(shifted + of_onnx, wrong)
    assert np.abs(right["shares"] - wrong["shares"]).max() > 1e-3
