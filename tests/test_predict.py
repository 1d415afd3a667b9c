"""predict.py on good and bad input, and what it draws."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
from pathlib import Path
from typing import Any, List, Tuple

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from mindspore import nn
from model_parity import HAS_TIMM, load_rule_weights, load_rule_weights_of_reference, sized
from model_parity import convnext as convnext_case
from PIL import Image

import export as export_program
import predict as program
from src.args import parse_args, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.data.augment.batch_transform import ImageNormalize
from src.data.imagenet_names import imagenet_names
from src.models.registry import create_model
from src.report.class_names import class_names
from src.report.heat_maps import create_heat_maps
from src.report.pictures import HEAT_STOPS, Tile, contact_sheet, overlay, with_scale
from src.report.predictions import Prediction, top_k
from src.report.sheets import PredictionSheets

NAMES = ["ant", "bee", "cat"]
TINY = {"num_layers": 1, "n_conv_layers": 1, "embedding_dim": 16, "num_heads": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as train.py writes it: it says everything predict.py needs."""
    path = tmp_path_factory.mktemp("weights") / "best.ckpt"
    network = create_model("cct_2_3x2_32", num_classes=3, img_size=16, **TINY)
    flat = "--arch cct_2_3x2_32 --num_classes 3 --image_size 16 --crop_pct 1.0"
    config = parse_args([*flat.split(), "--model_args", str(TINY)])
    meta = {"arch": "cct_2_3x2_32", "num_classes": 3, "config": to_yaml(config)}
    save_checkpoint(path, load_rule(network).get_parameters(), {**meta, "class_names": NAMES})
    return path


def load_rule(network: nn.Cell) -> nn.Cell:
    rng = np.random.default_rng(3)
    for parameter in network.get_parameters():
        noise = rng.normal(0, 0.5, parameter.shape).astype(np.float32)
        parameter.set_data(ms.Tensor(noise))
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images at two depths; their names have a space and another alphabet."""
    root = tmp_path_factory.mktemp("images")
    (root / "deep er").mkdir()
    rng = np.random.default_rng(0)
    for index in range(7):
        name = f"deep er/图{index}.png" if index > 3 else f"{index}.jpg"
        pixels = rng.integers(0, 256, (20 + index, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


def words(weights: Path, given: Any, *more: str) -> List[str]:
    return ["--pretrained", str(weights), "--input", str(given), *more]


def expected(weights: Path, paths: List[Path]) -> np.ndarray:
    """Softmax of the network by hand: Pillow, NumPy, one image at a time."""
    network = load_rule(create_model("cct_2_3x2_32", num_classes=3, img_size=16, **TINY))
    network.set_train(False)
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = 16 / min(image.size)
        size = [max(16, int(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = round((size[0] - 16) / 2), round((size[1] - 16) / 2)
        pixels = np.asarray(image.crop((left, top, left + 16, top + 16))) / 255.0
        pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        tensor = ms.Tensor(pixels.transpose(2, 0, 1)[None].astype(np.float32))
        logits = network(tensor).asnumpy()[0].astype(np.float64)
        found.append(np.exp(logits) / np.exp(logits).sum())
    return np.stack(found)


def test_all_four_forms_say_the_same(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet

    # Three batches, the last partial; more classes asked for than there are.
    more = ["--batch_size", "3", "--top_k", "5"]
    assert program.main(words(weights, folder, *more, "--output", "json")) == 0
    objects = json.loads(capsys.readouterr().out)
    assert program.main(words(weights, folder, *more, "--output", "csv")) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    parquet = tmp_path / "p.parquet"
    file = ["--output", "parquet", "--output_file", str(parquet)]
    assert program.main(words(weights, folder, *more, *file)) == 0
    table = pyarrow.parquet.read_table(parquet).to_pylist()
    assert program.main(words(weights, folder, *more)) == 0
    lines = capsys.readouterr().out.splitlines()

    paths = [Path(item["image"]) for item in objects]
    names = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "图4.png", "图5.png", "图6.png"]
    assert [path.name for path in paths] == names
    due = expected(weights, paths)
    for number, item in enumerate(objects):
        assert len(item["top"]) == 3
        shares = [entry["probability"] for entry in item["top"]]
        assert shares == sorted(shares, reverse=True)
        for entry in item["top"]:
            assert entry["name"] == NAMES[entry["label"]]
            assert entry["probability"] == pytest.approx(due[number, entry["label"]], abs=0.02)
        flat = [(row["name"], float(row["probability"])) for row in rows[3 * number :][:3]]
        assert flat == [(entry["name"], entry["probability"]) for entry in item["top"]]
        shown = re.split(r" {2,}", lines[number])
        assert shown[1] == f"{flat[0][0]} {100 * flat[0][1]:.1f} %"
    assert [(r["image"], r["rank"]) for r in table[:4]] == [
        *((str(paths[0]), rank) for rank in (1, 2, 3)),
        (str(paths[1]), 1),
    ]
    assert [r["probability"] for r in table] == [float(r["probability"]) for r in rows]


@pytest.mark.parametrize("form", ["MINDIR", "ONNX"])
def test_exported_files_predict_what_the_checkpoint_does(
    form: str, weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"net.{form.lower()}"
    # One with pixels as input and a fixed batch, one normalised, of any number.
    more = {"MINDIR": "--batch_size 4 --input uint8_nhwc", "ONNX": "--dynamic_batch"}[form]
    words_of_export = ["--pretrained", str(weights), "--file_format", form, *more.split()]
    assert export_program.main([*words_of_export, "--output", str(file)]) == 0
    found = []
    for network in (weights, file):
        capsys.readouterr()
        assert program.main(words(network, folder, "--output", "json")) == 0
        found.append(json.loads(capsys.readouterr().out))
    for due, item in zip(*found):
        assert [entry["name"] for entry in item["top"]] == [entry["name"] for entry in due["top"]]
        shares = [[entry["probability"] for entry in one["top"]] for one in (item, due)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-4)
    assert len(found[1]) == 7
    maps = ["--heat_maps", "--save_pictures", str(tmp_path / "maps")]
    assert "exported from" in failure(capsys, program, words(file, folder, *maps))
    file.write_bytes(file.read_bytes()[:-1])
    assert "damaged" in failure(capsys, program, words(file, folder))


def test_top_k_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(0, 5, (6, 9)).astype(np.float32)
    labels, shares = top_k(logits, 4)
    due = torch.tensor(logits).double().softmax(dim=1).topk(4)
    np.testing.assert_array_equal(labels, due.indices.numpy())
    np.testing.assert_allclose(shares, due.values.numpy(), rtol=1e-12)
    assert top_k(np.array([[1e4, -1e4, 0.0]]), 1)[1].tolist() == [[1.0]]


def test_a_file_and_a_url_are_inputs_too(
    weights: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "deep er" / "图4.png"
    for given in (image, image.as_uri()):
        assert program.main(words(weights, given, "--output", "csv", "--top_k", "1")) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_unreadable_image_is_left_out_and_named(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    (tmp_path / "a.jpg").write_bytes((folder / "0.jpg").read_bytes()[:200])
    (tmp_path / "b.jpg").write_bytes((folder / "0.jpg").read_bytes())
    caplog.set_level("INFO")
    assert program.main(words(weights, tmp_path, "--output", "csv", "--top_k", "1")) == 0
    assert "b.jpg" in capsys.readouterr().out
    assert "a.jpg" in caplog.text
    assert "1 images predicted, 1 left out" in caplog.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--input", "nowhere"], "'nowhere'"),
        (["--input", "http://example.org/x.jpg"], "file:///PATH"),
        (["--top_k", "0"], "top_k 0"),
        (["--heat_maps"], "--save_pictures"),
        (["--pretrained", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--arch", "deit_tiny_patch16_224"], "cct_2_3x2_32"),
        (["--num_classes", "4"], "num_classes is 3 in the file and 4 here"),
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (["--labels", __file__], "class 1 is called '', which is no name"),
        (["--labels", "src/data/imagenet_classes.txt"], "one name for each"),
        (["--output_file", "nowhere/x.csv"], "nowhere"),
        (["--save_pictures", __file__], "save_pictures"),
    ],
)
def test_predict_refuses(
    more: List[str],
    said: str,
    weights: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in failure(capsys, program, words(weights, folder, *more))


@pytest.mark.parametrize("kind", ["empty", "all damaged"])
def test_a_folder_without_images_is_refused(
    kind: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ("x.txt" if kind == "empty" else "x.png")).write_text("words")
    message = failure(capsys, program, words(weights, tmp_path))
    assert "image" in message
    assert str(tmp_path) in message


def test_weights_are_needed_and_unknown_keys_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--pretrained" in failure(capsys, program, ["--input", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        program.main(["--input", str(folder), "--topk", "3"])
    assert stopped.value.code == 2
    assert "topk" in capsys.readouterr().err


def test_pictures_hold_every_image(weights: Path, folder: Path, tmp_path: Path) -> None:
    more = ["--save_pictures", str(tmp_path / "new"), "--heat_maps", "--output_file"]
    assert program.main(words(weights, folder, *more, str(tmp_path / "x"))) == 0
    (sheet,) = (tmp_path / "new").iterdir()
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    # Seven images and their heat maps: three rows, of six, six and two.
    assert pixels.shape[1] == 6 * (176 + 8) + 8
    rows = [pixels[8 + row * 237 + 88] for row in range(3)]
    for column in range(6):
        assert rows[0][8 + column * 184 : 184 + column * 184].std() > 10
    assert (rows[2][8 + 2 * 184 :] == 255).all()


def test_ten_thousand_images_in_flat_memory_and_none_lost(
    weights: Path, folder: Path, tmp_path: Path
) -> None:
    source = folder / "0.jpg"
    (tmp_path / "in" / "first").mkdir(parents=True)
    due = []
    for number in range(10_000):
        name = f"first/{number:05d}.jpg" if number < 2_000 else f"{number:05d}.jpg"
        (tmp_path / "in" / name).symlink_to(source)
        due.append(str(tmp_path / "in" / name))
    output = tmp_path / "p.csv"
    file = ["--output", "csv", "--output_file", str(output), "--top_k", "1"]

    def peak_mb_after(given: Path) -> float:
        assert program.main(words(weights, given, *file, "--batch_size", "500")) == 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak_mb_after(tmp_path / "in" / "first")
    grown = peak_mb_after(tmp_path / "in") - before
    with output.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert sorted(row["image"] for row in rows) == sorted(due)
    assert len({row["name"] for row in rows}) == 1
    # Its place in the batch decides how the image's sums round.
    assert np.ptp([float(row["probability"]) for row in rows]) < 1e-6
    # The predictions themselves are kept, half a kilobyte each.
    assert grown < 40, f"{grown:.0f} MB"


# --- names ----------------------------------------------------------------------------------------


def test_imagenets_names_are_torchvisions_in_timms_order() -> None:
    timm = pytest.importorskip("timm")
    from torch_oracle import torchvision

    info = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert list(imagenet_names()) == info.read_text().split()
    assert list(imagenet_names().values()) == torchvision.models._meta._IMAGENET_CATEGORIES


def test_where_names_come_from(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"0": "a", "1": "b"}))
    assert class_names(2, labels=labels, of_weights=["x", "y"]) == ["a", "b"]
    assert class_names(2, of_weights=["n01440764", "y"]) == ["tench", "y"]
    assert class_names(1000)[0] == "tench"
    assert class_names(3) == ["0", "1", "2"]


# --- heat maps ------------------------------------------------------------------------------------


def ours_and_pixels(case: Any) -> Tuple[nn.Cell, nn.Cell, np.ndarray]:
    network = load_rule_weights(case.build(num_classes=7)).set_train(False)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, case.side, case.side, 3), dtype=np.uint8)
    return network, ImageNormalize(mean=(0.5,) * 3, std=(0.25,) * 3), pixels


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
@pytest.mark.parametrize("family", ["convnext", "twins"])
def test_grad_cam_is_autograds(family: str) -> None:
    import torch

    if family == "convnext":
        case = convnext_case("convnext_tiny", "convnext_tiny", 96, depths=(1, 1, 1, 1))
    else:
        case = sized("pcpvt_small_v0", "twins_pcpvt_small", 96, depths=(1, 1, 1, 1))
    network, normalize, pixels = ours_and_pixels(case)
    method, heat_map = create_heat_maps(normalize, network)
    assert method == "Grad-CAM"
    found = heat_map(pixels, np.array([4, 2]), 7)

    reference = load_rule_weights_of_reference(case.build_reference(num_classes=7)).eval()
    image = torch.tensor((pixels.transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.25).float()
    features = reference.forward_features(image).detach().requires_grad_()
    logits = reference.forward_head(features)
    (logits[0, 4] + logits[1, 2]).backward()
    values, gradient = features.detach(), features.grad
    if values.ndim == 3:
        values = values.transpose(1, 2).reshape(2, -1, 3, 3)
        gradient = gradient.transpose(1, 2).reshape(2, -1, 3, 3)
    due = (gradient.mean(dim=(2, 3), keepdim=True) * values).sum(dim=1).clamp(min=0)
    assert due.max() > 0
    np.testing.assert_allclose(found, due.numpy(), atol=1e-4 * float(due.max()))


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
@pytest.mark.parametrize("distilled", [False, True])
def test_attention_rollout_is_that_of_timms_attention(distilled: bool) -> None:
    import torch

    name = f"deit_tiny_{'distilled_' if distilled else ''}patch16_224"
    case = sized(name, name, 64, depth=2)
    network, normalize, pixels = ours_and_pixels(case)
    method, heat_map = create_heat_maps(normalize, network)
    assert method == "attention rollout"
    found = heat_map(pixels, np.zeros(2, np.int64), 7)

    reference = load_rule_weights_of_reference(case.build_reference(num_classes=7)).eval()
    kept: List[Any] = []
    for block in reference.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: kept.append(out))
    image = torch.tensor((pixels.transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.25).float()
    with torch.no_grad():
        reference(image)
    flow = torch.eye(kept[0].shape[-1])
    for attention in kept:
        flow = (0.5 * attention.mean(dim=1) + 0.5 * torch.eye(flow.shape[-1])) @ flow
    tokens = 2 if distilled else 1
    due = flow[:, :tokens].mean(dim=1)[:, tokens:].reshape(2, 4, 4)
    np.testing.assert_allclose(found, due.numpy(), rtol=1e-4)


@pytest.mark.parametrize("arch", ["cct_2_3x2_32", "vit_lite_2_4_32"])
def test_rollout_of_compact_transformers_is_a_share_of_the_input(arch: str) -> None:
    network = load_rule_weights(create_model(arch)).set_train(False)
    _, heat_map = create_heat_maps(ImageNormalize(mean=(0.5,) * 3, std=(0.25,) * 3), network)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    found = heat_map(pixels, np.zeros(1, np.int64), 10)
    assert found.shape == (1, 8, 8)
    # The rows of every factor sum to 1; ViT-Lite's class token keeps the rest.
    total = found.sum()
    assert total == pytest.approx(1.0, abs=1e-5) if "cct" in arch else 0.2 < total < 1.0


def test_an_overlay_is_red_where_the_heat_is() -> None:
    heat = np.zeros((4, 4))
    heat[1, 2] = 1.0
    shown = overlay(np.full((64, 64, 3), 128, np.uint8), heat).astype(int)
    redness = shown[..., 0] - shown[..., 2]
    assert np.unravel_index(redness.argmax(), redness.shape)[0] in range(16, 32)
    assert redness[24, 40] > 50
    assert redness[60, 4] < 0
    assert overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2))).shape == (8, 8, 3)


def test_a_heat_map_of_one_position_leaves_the_image_as_it_is(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    assert (overlay(image, np.ones((1, 1))) == image).all()
    maps = ("Grad-CAM", lambda images, *_: np.ones((len(images), 1, 1)))
    sheets = PredictionSheets(tmp_path, num_classes=2, heat_maps=maps)
    sheets.add(image[None], [Prediction("a.png", [0], ["a"], [1.0])])
    assert sheets._tiles[1].caption == ["no heat map: the last stage", "is of a single position"]
    sheets.close()


def test_a_sheet_of_heat_maps_has_its_colours_below() -> None:
    sheet = contact_sheet([Tile(np.zeros((8, 8, 3), np.uint8), []) for _ in range(2)])
    pixels = np.asarray(with_scale(sheet))
    assert (pixels[: sheet.height] == np.asarray(sheet)).all()
    row = pixels[sheet.height + 8 + 2 + 6]
    bar = row[(row.max(axis=1).astype(int) - row.min(axis=1)) > 60]
    np.testing.assert_allclose([bar[0], bar[-1]], [HEAT_STOPS[0], HEAT_STOPS[-1]], atol=3)


def test_captions_are_cut_to_the_tile() -> None:
    tiles = [Tile(np.zeros((9, 9, 3), np.uint8), ["x" * 300, "y"], good) for good in (True, None)]
    pixels = np.asarray(contact_sheet(tiles))
    gap = pixels[8 + 176 + 3 :, 8 + 178 : 8 + 183]  # between the captions
    assert (gap == 255).all()
    assert (pixels[7, 20] != 255).any()  # the frame


def test_an_image_keeps_its_shape_on_the_sheet() -> None:
    pixels = np.asarray(contact_sheet([Tile(np.zeros((20, 40, 3), np.uint8), [])]))
    black = (pixels == 0).all(axis=2)
    assert (black.any(axis=0).sum(), black.any(axis=1).sum()) == (176, 88)
