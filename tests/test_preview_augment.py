"""scripts/preview_augment.py shows what the network gets."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from photographs import load_photographs
from PIL import Image
from test_data_idx import content as idx_content
from test_data_idx import write_idx

from src.args import parse_args
from src.data.idx import SETS
from src.data.imagenet import create_dataset

ROOT = Path(__file__).resolve().parent.parent
SIZE, BATCH = 32, 6


@pytest.fixture(scope="module")
def preview():
    path = ROOT / "scripts" / "preview_augment.py"
    spec = importlib.util.spec_from_file_location("preview_augment", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A recipe over a folder of two classes."""
    root = tmp_path_factory.mktemp("photographs")
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i, photograph in enumerate(load_photographs()):
                photograph.resize((60, 45)).save(root / split / name / f"{i}.png")
    recipe = root / "recipe.yaml"
    recipe.write_text(
        f"arch: convmixer_768_32\nset: ImageNet\ndata_url: {root}\nnum_classes: 2\n"
        f"image_size: {SIZE}\nbatch_size: {BATCH}\nauto_augment: rand-m9-mstd0.5-inc1\n"
        "re_prob: 0.6\nmix_up: 0.8\ncutmix: 1.0\nmixup_mode: elem\nrepeated_aug: 3\n"
        "num_parallel_workers: 1\nseed: 4\n"
    )
    return ["--config", str(recipe), "--train_url", str(root / "run")]


def in_floats(config, batch):
    """Erased and mixed as the papers say, in NumPy: two of (B, H, W, 3), 0..255 and beyond."""
    erased = batch.image.astype(np.float64)
    for image, box in zip(erased, batch.mix[:, 5:]):
        x0, y0, x1, y1 = box[:4].astype(int)
        image[y0:y1, x0:x1] = 255 * (np.array(config.data.mean) + config.data.std * box[4:7])
    mixed = erased.copy()
    for image, partner, row in zip(mixed, erased[::-1], batch.mix[:, :5]):
        x0, y0, x1, y1 = row[1:].astype(int)
        if x1 > x0:
            image[y0:y1, x0:x1] = partner[y0:y1, x0:x1]
        else:
            image[:] = row[0] * image + (1 - row[0]) * partner
    return erased, mixed


@pytest.mark.parametrize("re_mode", ["const", "rand"])
def test_stages_are_those_of_the_batch(preview, words, re_mode):
    config = parse_args([*words, "--re_mode", re_mode])
    rows = preview.draw_rows(config)
    batch = next(create_dataset(config, training=True).batches())
    assert len(rows) == BATCH
    assert batch.mix[:, 5:9].any()
    for i, erased, mixed in zip(range(BATCH), *in_floats(config, batch)):
        names, images = zip(*rows[i].stages)
        middle = ["RandomResizedCrop", "RandomFlip", "RandAugment"]
        assert list(names) == ["as read", *middle, "erased", "mixed"]
        assert images[0].shape == (45, 60, 3)
        np.testing.assert_array_equal(images[-3], batch.image[i])
        for image, expected in zip(images[-2:], (erased, mixed)):
            np.testing.assert_allclose(image, np.clip(expected, 0, 255), rtol=0, atol=0.501)
        weights = dict.fromkeys(("ant", "bee"), 0.0)
        for name, weight in rows[i].target:
            weights[name] += weight
        lam, own = batch.mix[i, 0], ("ant", "bee")[batch.label[i]]
        expected_weight = lam + (1 - lam) * (batch.label[i] == batch.label[BATCH - 1 - i])
        assert weights[own] == pytest.approx(expected_weight)
        assert sum(weights.values()) == pytest.approx(1)


def test_sheet_holds_every_row(preview, words, capsys):
    assert preview.main([*words, "--device_target", "Ascend"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == Path(words[3]) / "preview.png"
    with Image.open(path) as sheet:
        assert sheet.size == (6 * 184 + 8, BATCH * 237 + 8)
        pixels = np.asarray(sheet.convert("RGB"))
    # Nothing but white in none of the tiles.
    for row in range(BATCH):
        for column in range(6):
            top, left = 8 + row * 237, 8 + column * 184
            tile = pixels[top : top + 132, left : left + 176]  # of 60 x 45 pixels
            assert (tile != 255).any(axis=(1, 2)).all()
            assert (pixels[top + 176 : top + 190, left : left + 176] != 255).any()  # its name


def test_sheets_have_names_of_their_own(preview, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preview, "contact_sheet", lambda _: b"sheet")
    monkeypatch.setattr(preview, "draw_rows", lambda _: [])
    given = [*words[:2], *words[4:]]
    assert [preview.main(given), preview.main(given)] == [0, 0]
    printed = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in printed] == ["preview.png", "preview_2.png"]
    assert {path.parent.parent for path in printed} == {Path("outputs")}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == []


def test_a_folder_that_cannot_be_made_is_said_in_one_line(preview, words, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert preview.main([*words[:2], "--train_url", str(tmp_path / "file" / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_are_one_line_and_leave_no_folder(preview, words, capsys, tmp_path):
    # A folder of two classes.
    folder = tmp_path / "run"
    assert preview.main([*words, "--num_classes", "3", "--train_url", str(folder)]) == 2
    assert not folder.exists()
    error = capsys.readouterr().err
    assert error.startswith("error: num_classes 3: ")
    assert error.count("\n") == 1


def test_images_of_one_colour_are_counted(preview, words, tmp_path, capsys):
    for name in ("train", "val"):
        for label in ("ant", "bee"):
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(6):
                image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
                image.save(tmp_path / name / label / f"{i}.png")
    preview.draw_rows(parse_args([*words, "--data_url", str(tmp_path)]))
    assert "6 of 6 images have one colour only (" in capsys.readouterr().err


def test_small_grey_images_at_a_url(preview, tmp_path, monkeypatch):
    write_idx(tmp_path / "data")
    words = ["--set", "FashionMNIST", "--data_url", f"file://{tmp_path / 'data'}"]
    words += ["--arch", "cct_2_3x2_32", "--image_size", "28", "--batch_size", "8"]
    words += ["--crop_padding", "4", "--auto_augment", "cifar10", "--train_url", str(tmp_path)]
    drawn = []
    monkeypatch.setattr(preview, "contact_sheet", lambda rows: drawn.extend(rows) or b"")
    assert preview.main([*words, "--seed", "4"]) == 0
    assert {tuple(name for name, _ in row.stages) for row in drawn} == {
        ("as read", "PaddedCrop", "RandomFlip", "AutoAugment", "mixed")
    }
    images, labels = idx_content("train")
    for row in drawn:
        (index,) = np.flatnonzero((images == row.stages[0][1][..., 0]).all(axis=(1, 2)))
        assert row.target == [(SETS["FashionMNIST"].class_names[labels[index]], 1.0)]
