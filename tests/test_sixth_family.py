"""A further family is a file and a row: it trains, converts, exports and shows where it looks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Dict, Iterator, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import rows
from PIL import Image
from safetensors.numpy import load_file
from sixth_family import FAMILY

import export as export_program
import predict as predict_program
import train as train_program
from scripts import convert_weights
from src.checkpoints.checkpoint import read_checkpoint
from src.models import registry
from src.models.registry import count_macs, create_model, default_image_size, list_models
from src.report.heat_maps import create_heat_maps

ARCH = "sixth_tiny"


@pytest.fixture(scope="module", autouse=True)
def family() -> Iterator[None]:
    """The row in the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "sixth", FAMILY)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on dark and bright images."""
    root = tmp_path_factory.mktemp("sixth")
    rng = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for name, grey in (("bright", 190), ("dark", 60)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(grey, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    words = ["--arch", ARCH, "--data_url", str(root), "--train_url", str(root / "run")]
    words += ["--image_size", "32", "--batch_size", "16", "--epochs", "4", "--base_lr", "3e-3"]
    words += ["--model_args", "{patch_size: 8}", "--drop_path_rate", "0.1", "--log_interval", "1"]
    assert train_program.main(words) == 0
    return root / "run"


def tensors(path: Path) -> Dict[str, np.ndarray]:
    return {name: tensor.asnumpy() for name, tensor in read_checkpoint(path).tensors.items()}


def test_it_is_listed_and_its_work_is_counted() -> None:
    assert list_models("sixth") == ["sixth_small", ARCH]
    assert default_image_size(ARCH) == 32
    # Stem, two layers of projections, products and perceptron, classifier.
    layers = 2 * (4 * 17 * 32**2 + 2 * 17**2 * 32 + 17 * 2 * 32 * 64)
    assert count_macs(ARCH) == 16 * 3 * 64 * 32 + layers + 320
    assert count_macs(ARCH, num_classes=0) == count_macs(ARCH) - 320


def test_it_learns(run: Path) -> None:
    losses = [float(row["loss"]) for row in rows(run) if row["loss"]]
    assert np.mean(losses[-4:]) < 0.5 * losses[0]
    record = read_checkpoint(run / "last.ckpt").record
    assert (record.arch, record.num_classes) == (ARCH, 2)


def convert(source: Path, target: Path, *more: str) -> int:
    words = ["--arch", ARCH, "--input", str(source), "--output", str(target)]
    return convert_weights.main([*words, *more])


def test_its_weights_go_to_the_reference_and_come_back(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, renamed, back = (tmp_path / name for name in ("a.safetensors", "b.npz", "c.ckpt"))
    assert convert(run / "best.ckpt", there, "--to", "torch") == 0
    arrays = load_file(there)
    assert {"layers.0.norm1.weight", "logits.weight", "places"} <= set(arrays)
    np.savez(renamed, **{f"net.{name}": value for name, value in arrays.items()})
    assert convert(renamed, back, "--num_classes", "2") == 0
    assert "(Sixth, named as by the authors)" in capsys.readouterr().out
    due, found = tensors(run / "best.ckpt"), tensors(back)
    assert set(found) == {name for name in due if not name.startswith("train.")}
    for name, value in found.items():
        np.testing.assert_array_equal(value, due[name], err_msg=name)
    words = ["--arch", "deit_tiny_patch16_224", "--input", str(there)]
    assert convert_weights.main([*words, "--output", str(tmp_path / "d.ckpt")]) == 2
    assert "look like Sixth" in capsys.readouterr().err


def test_it_starts_with_other_classes_on_larger_images(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = run / "best.ckpt"
    create_model(ARCH, pretrained=str(path), img_size=48, num_classes=7)
    assert "logits: 2 -> 7 classes, freshly initialised" in caplog.messages
    assert "places: 4x4 -> 6x6 positions, bilinear, 1 further kept" in caplog.messages
    caplog.clear()
    model = create_model(ARCH, pretrained=str(path), num_classes=0).set_train(False)
    assert "logits: left out, the network has no classifier" in caplog.messages
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert model(ms.Tensor(image)).shape == (2, 32)


def test_it_exports(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "sixth.onnx"
    words = ["--pretrained", str(run / "best.ckpt"), "--file_format", "ONNX"]
    assert export_program.main([*words, "--output", str(target)]) == 0
    assert "logits from the network's" in capsys.readouterr().out
    assert target.is_file()


def test_it_shows_where_it_looks(run: Path, tmp_path: Path) -> None:
    image = tmp_path / "seven.png"
    Image.fromarray(np.arange(32 * 32, dtype=np.uint32).reshape(32, 32).astype(np.uint8)).save(
        image
    )
    words: List[str] = ["--pretrained", str(run / "best.ckpt"), "--input", str(image)]
    words += ["--save_pictures", str(tmp_path / "maps"), "--heat_maps"]
    assert predict_program.main(words) == 0
    assert [path.suffix for path in (tmp_path / "maps").rglob("*") if path.is_file()]


def test_its_rollout_is_the_mean_of_the_rows() -> None:
    model = create_model(ARCH).set_train(False)
    method, heat_map = create_heat_maps(ms.nn.Identity(), model)
    assert method == "attention rollout"
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    found = heat_map(pixels, np.zeros(2, np.int64), 10)
    flow = np.eye(17)
    x = model.embed(ms.Tensor(pixels))
    for layer in model.layers:
        qkv = layer.attn.qkv(layer.norm1(x)).asnumpy().reshape(2, 17, 3, 2, 16)
        q, k = (qkv[:, :, part].transpose(0, 2, 1, 3).astype(np.float64) for part in (0, 1))
        scores = np.exp(q @ k.swapaxes(2, 3) / 4)
        attention = (scores / scores.sum(axis=3, keepdims=True)).mean(axis=1)
        flow = (attention + np.eye(17)) / 2 @ flow
        x = layer(x)
    np.testing.assert_allclose(found, flow.mean(axis=1)[:, 1:].reshape(2, 4, 4), rtol=1e-3)
