"""MNIST and Fashion-MNIST against torchvision's readers; damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest
from torch_oracle import torchvision

from src.args import DataConfig, parse_args
from src.data import idx
from src.data.idx import SETS, open_idx
from src.data.sources import count_classes
from src.errors import UserError

COUNTS = {"train": 50, "t10k": 20}


def content(prefix: str) -> Tuple[np.ndarray, np.ndarray]:
    """What the files of a split hold."""
    rng, count = np.random.default_rng(len(prefix)), COUNTS[prefix]
    return rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10


def write_idx(folder: Path, ending: str = "") -> None:
    """The four files, as the page of MNIST's authors describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in COUNTS:
        images, labels = content(prefix)
        header = struct.pack(">4I", 2051, len(images), 28, 28)
        write(folder / f"{prefix}-images-idx3-ubyte{ending}", header + images.tobytes())
        header = struct.pack(">2I", 2049, len(labels))
        write(folder / f"{prefix}-labels-idx1-ubyte{ending}", header + labels.tobytes())


def write(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("place", [".", "raw", "{}/raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_images_are_those_that_torchvision_reads(
    tmp_path: Path, name: str, place: str, ending: str
) -> None:
    write_idx(tmp_path / place.format(name), ending)
    write_idx(tmp_path / "oracle" / name / "raw")
    for split in ("train", "val"):
        images = open_idx(tmp_path, name, split)
        theirs = getattr(torchvision.datasets, name)(tmp_path / "oracle", train=split == "train")
        assert len(images) == len(theirs)
        np.testing.assert_array_equal(images.labels, theirs.targets.numpy())
        for index, (picture, _) in enumerate(theirs):
            np.testing.assert_array_equal(images.read(index), np.asarray(picture.convert("RGB")))
        assert all(
            own in their.lower() for own, their in zip(words(images.class_names), theirs.classes)
        )


def words(names: Any) -> Any:
    return [name.lower() for name in names]


def test_names_with_a_dot_are_taken(tmp_path: Path) -> None:
    write_idx(tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / file.name.replace("-idx", ".idx"))
    assert len(open_idx(tmp_path, "MNIST", "val")) == COUNTS["t10k"]
    assert count_classes(parse_args(["--set", "MNIST", "--data_url", str(tmp_path)])) == 10


Edit = Callable[[bytes], bytes]
IMAGES: Dict[str, Tuple[Edit, str]] = {
    "empty": (lambda data: b"", "0 bytes, and the header alone has 16"),
    "header cut": (lambda data: data[:15], "15 bytes, and the header alone has 16"),
    "one byte less": (lambda data: data[:-1], "15679 bytes behind a header that says 20 items"),
    "one byte more": (lambda data: data + b"x", "15681 bytes behind a header that says 20 items"),
    "no images": (lambda data: data[:4] + bytes(4) + data[8:16], "0 bytes behind a header"),
    "too many": (lambda data: data[:4] + b"\xff" * 4 + data[8:], "a header that says 4294967295"),
    "labels": (lambda data: b"\0\0\x08\x01" + data[4:], "it begins with 00000801, which no file"),
    "floats": (lambda data: b"\0\0\x0d\x03" + data[4:], "it begins with 00000d03"),
    "little endian": (lambda data: data[3::-1] + data[4:], "it begins with 03080000"),
    "rows": (lambda data: data[:8] + b"\0\0\0\x1d" + data[12:], "images of 29 x 28 pixels"),
    "columns": (lambda data: data[:12] + bytes(4) + data[16:], "images of 28 x 0 pixels"),
    "a page": (lambda data: b"<!DOCTYPE html><html>" + data, "it begins with 3c21444f"),
    "cut gzip": (lambda data: gzip.compress(data)[:-9], "ended before the end-of-stream marker"),
    "gzip's checksum": (lambda data: flipped(gzip.compress(data), -7), "CRC check failed"),
    "gzip's body": (lambda data: flipped(gzip.compress(data), 300), ""),
    "behind gzip": (lambda data: gzip.compress(data) + b"more", "Not a gzipped file"),
    "two of gzip": (lambda data: gzip.compress(gzip.compress(data)), "it begins with 1f8b0800"),
    "a bomb": (lambda data: gzip.compress(data + bytes(idx._FILE_BYTES)), "more than 134,217,728"),
}
LABELS: Dict[str, Tuple[Edit, str]] = {
    "one label less": (lambda data: data[:7] + b"\x13" + data[8:-1], "19 labels for 20 images"),
    "the other split's": (lambda data: data[:7] + b"\x32" + data[8:] + bytes(30), "50 labels for"),
    "a label": (lambda data: data[:-1] + b"\x0a", "label 10, of 0..9"),
    "images": (lambda data: b"\0\0\x08\x03" + data[4:], "it begins with 00000803, which no file"),
    "header": (lambda data: data[:7], "7 bytes, and the header alone has 8"),
    "short": (lambda data: data[:-1], "19 bytes behind a header that says 20 items"),
}


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 16
    return bytes(changed)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *(("t10k-images-idx3-ubyte", damage) for damage in IMAGES),
        *(("t10k-labels-idx1-ubyte", damage) for damage in LABELS),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, file: str, damage: str) -> None:
    write_idx(tmp_path)
    path = tmp_path / file
    edit, reason = {**IMAGES, **LABELS}[damage]
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        open_idx(tmp_path, "FashionMNIST", "val")
    message = str(caught.value)
    assert message.startswith(f"{path}: damaged (")
    assert reason in message
    assert "\n" not in message
    # The other split is whole.
    assert len(open_idx(tmp_path, "FashionMNIST", "train")) == COUNTS["train"]


def test_a_dead_link_is_called_one(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: damaged \(dead link to else"):
        open_idx(tmp_path, "MNIST", "train")


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("missing", ["folder", "images", "labels"])
def test_what_is_missing_is_named_with_where_it_comes_from(
    tmp_path: Path, name: str, missing: str
) -> None:
    if missing != "folder":
        write_idx(tmp_path)
        next(tmp_path.glob(f"train-{missing}*")).unlink()
    with pytest.raises(UserError) as caught:
        open_idx(tmp_path, name, "train")
    message = str(caught.value)
    assert "no train-images-idx3-ubyte and train-labels-idx1-ubyte there (.gz or not)" in message
    assert ("apt-get install dataset-fashion-mnist" in message) == (name == "FashionMNIST")


def test_the_sets_of_the_recipe_are_those_of_the_reader() -> None:
    choices = DataConfig.__dataclass_fields__["set"].metadata
    assert set(SETS) <= set(str(choices).replace("'", " ").split())
