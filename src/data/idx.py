"""MNIST and Fashion-MNIST from their four IDX files, packed by gzip or not.

The format is that of MNIST's authors, LeCun, Cortes and Burges; Xiao, Rasul and Vollgraf (arXiv
1708.07747) took it over, with the names of the files.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, List, NamedTuple, Tuple, cast

import numpy as np

from ..errors import UserError, on_one_line
from ..runtime.regular_files import open_regular
from .array_images import ArrayImages
from .splits import of_another_set

_SIDE = 28
# 60,000 images have 47 MB.
_FILE_BYTES = 2**27
_UNSIGNED_BYTES = 8
_PREFIXES = {"train": "train", "val": "t10k"}
_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"


class _Set(NamedTuple):
    """One data set.

    Attributes:
        class_names: the position is the label.
        remedy: where its files come from.
    """

    class_names: List[str]
    remedy: str


SETS: Dict[str, _Set] = {
    "MNIST": _Set(
        [str(digit) for digit in range(10)],
        "https://ossci-datasets.s3.amazonaws.com/mnist/ has them, torchvision.datasets.MNIST "
        "downloads them from there",
    ),
    "FashionMNIST": _Set(
        _CLOTHES.split(", "),
        "on Debian and Ubuntu `apt-get install dataset-fashion-mnist` puts them into "
        "/usr/share/datasets/fashion-mnist, elsewhere https://github.com/zalandoresearch/"
        "fashion-mnist has them in data/fashion",
    ),
}


def open_idx(root: Path, name: str, split: str) -> ArrayImages:
    """Read one split, `train` or `val`, of `MNIST` or `FashionMNIST`.

    Args:
        root: folder with the files, or with raw/ or NAME/raw/, as torchvision leaves them.
        name: of the data set.
        split: train (60,000 images as published) or val (10,000, the files t10k-...).

    Returns:
        Grey images, (N, 28, 28).

    Raises:
        UserError: a file is missing, damaged or not what it should be.
    """
    images_path, labels_path = _find(root, name, split)
    images = _read(images_path, (_SIDE, _SIDE))
    labels = _read(labels_path, ())
    if len(images) != len(labels):
        raise _damaged(labels_path, f"{len(labels)} labels for {len(images)} images")
    class_names = SETS[name].class_names
    if labels.max() >= len(class_names):
        raise _damaged(labels_path, f"label {labels.max()}, of 0..{len(class_names) - 1}")
    return ArrayImages(root, class_names, images, labels.astype(np.int32))


def _find(root: Path, name: str, split: str) -> Tuple[Path, Path]:
    files = [f"{_PREFIXES[split]}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    for folder in (root, root / "raw", root / name / "raw"):
        # Some copies have a dot where the published names have a dash.
        found = [
            folder / f"{spelling}{ending}"
            for file in files
            for spelling in (file, file.replace("-idx", ".idx"))
            for ending in ("", ".gz")
            if os.path.lexists(folder / f"{spelling}{ending}")
        ]
        images = [path for path in found if "images" in path.name]
        labels = [path for path in found if "labels" in path.name]
        if images and labels:
            return images[0], labels[0]
    remedy = f"{SETS[name].remedy}; give their folder as --data_url"
    raise UserError(
        f"data_url {str(root)!r}: no {' and '.join(files)} there (.gz or not); "
        f"{of_another_set(root, name) or remedy}"
    )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged ({reason}); download it again")


def _read(path: Path, item: Tuple[int, ...]) -> np.ndarray:
    """The items of a file, (N, *item) uint8, N > 0."""
    try:
        data = _unpacked(path)
    # gzip and zlib have their own errors.
    except (OSError, EOFError, zlib.error) as error:
        reason = on_one_line(getattr(error, "strerror", None) or error)
        raise _damaged(path, reason) from error
    start = 4 * (2 + len(item))
    if len(data) < start:
        raise _damaged(path, f"{len(data)} bytes, and the header alone has {start}")
    magic, count, *sides = np.frombuffer(data, ">u4", count=start // 4).tolist()
    if magic != _UNSIGNED_BYTES << 8 | 1 + len(item):
        kind = "images" if item else "labels"
        raise _damaged(path, f"it begins with {data[:4].hex()}, which no file of {kind} does")
    if tuple(sides) != item:
        raise _damaged(path, f"images of {sides[0]} x {sides[1]} pixels, not {_SIDE} x {_SIDE}")
    body = np.frombuffer(data, np.uint8, offset=start)
    if count == 0 or len(body) != count * int(np.prod(item)):
        raise _damaged(path, f"{len(body)} bytes behind a header that says {count} items")
    return body.reshape(count, *item)


def _unpacked(path: Path) -> bytes:
    with open_regular(path, _FILE_BYTES) as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_packed else file
        # Read to the end, where the checksum is.
        data = unpacked.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise OSError(f"more than {_FILE_BYTES:,} bytes in it")
    return data
