"""Images in a folder per class: `root/train/<class>/<image>` and `root/val/<class>/<image>`.

Or `root/<class>/<image>` alone, of which a share is set aside for validation.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, List

import numpy as np

from ..errors import UserError, some_of
from .classes import sort_classes
from .decode import BadImageError, Decoder
from .folder_index import (
    Listing,
    images_by_class,
    list_class_folders,
    scan_classes,
    to_listing,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_SPLITS = ("train", "val")
_NAMED_CLASSES = 5


@dataclass(frozen=True)
class ImageFolder:
    """One split.

    File names are kept as one text, which takes a third of the memory of as many Python strings.

    Attributes:
        folder: the split's folder.
        class_names: in the order asked for; the position is the label.
        names: uint8, every file name, one after the other, UTF-8.
        ends: (N,) int64, end of each name in `names`.
        labels: (N,) int32.
        decoder: reads the files.
    """

    folder: Path
    class_names: List[str]
    names: np.ndarray = field(repr=False)
    ends: np.ndarray
    labels: np.ndarray
    decoder: Decoder = field(default_factory=Decoder)

    def __len__(self) -> int:
        return len(self.ends)

    def file_name(self, index: int) -> str:
        """`<class>/<image>`."""
        start = int(self.ends[index - 1]) if index else 0
        name = self.names[start : int(self.ends[index])].tobytes()
        return f"{self.class_names[self.labels[index]]}/{os.fsdecode(name)}"

    def read_bytes(self, index: int) -> bytes:
        """The file as it is.

        Raises:
            BadImageError: it cannot be opened.
        """
        path = self.folder / self.file_name(index)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise BadImageError(f"{path}: {error.strerror or error}") from error

    def read(self, index: int) -> np.ndarray:
        """The pixels of one image: (H, W, 3) uint8, RGB.

        Raises:
            BadImageError: the file is missing or damaged.
        """
        return self.decoder.decode(self.read_bytes(index), str(self.folder / self.file_name(index)))


def scan_image_folder(
    root: Path,
    split: str,
    *,
    val_share: float = 0.0,
    class_order: str = "code_point",
    decoder: Decoder | None = None,
) -> ImageFolder:
    """List one split, `train` or `val`, of the dataset at `root`. Hidden files are left out.

    Args:
        root: of the dataset.
        split: `train` or `val`.
        val_share: where `root` holds class folders only, the share of each class that is `val`.
        class_order: of `classes.CLASS_ORDERS`.
        decoder: reads the files; None: with the defaults.

    Raises:
        UserError: a folder is missing or empty, or the splits have different classes.
    """
    if not root.is_dir():
        raise UserError(
            f"data_url {str(root)!r}: no such folder; give one that has train/ and val/"
        )
    is_split = any((root / name).is_dir() for name in _SPLITS)
    if not is_split and val_share == 0 and list_class_folders(root):
        raise UserError(
            f"data_url {str(root)!r}: neither train/ nor val/; to set a share of its "
            f"{len(list_class_folders(root))} class folders aside for validation, give "
            "--val_share 0.1"
        )
    # Where nothing is trained val/ may stand alone.
    if is_split and (split == "train" or (root / "train").is_dir()):
        _check_same_classes(root)
    folder = root / split if is_split else root
    listing = _scan(folder, is_split, class_order)
    if not is_split:
        listing = _share_of(listing, split, val_share)
    return ImageFolder(
        folder=folder,
        class_names=listing.class_names,
        names=listing.names,
        ends=np.cumsum(listing.lengths, dtype=np.int64),
        labels=np.repeat(np.arange(len(listing.counts), dtype=np.int32), listing.counts),
        decoder=decoder or Decoder(),
    )


def _scan(folder: Path, is_split: bool, class_order: str) -> Listing:
    listing = scan_classes(folder, sort_classes(_list_classes(folder), class_order), EXTENSIONS)
    empty = np.flatnonzero(listing.counts == 0)
    if len(empty):
        raise UserError(
            f"{folder / listing.class_names[empty[0]]}: no images ({' '.join(EXTENSIONS)}); add "
            "some, or move the folder away" + (" in train/ and val/" if is_split else "")
        )
    return listing


def _share_of(listing: Listing, split: str, val_share: float) -> Listing:
    """The part of every class that belongs to a split, by a hash of the names.

    The run's seed has no part in it: what was trained on with one must not be validated on with
    another. Every split gets at least one image.
    """
    images = []
    for class_name, names in zip(listing.class_names, images_by_class(listing)):
        if len(names) < 2:
            raise UserError(
                f"class folder {class_name!r}: one image, which cannot be in both splits; add "
                "more, or move the folder away"
            )
        count = min(max(round(val_share * len(names)), 1), len(names) - 1)
        is_val = set(sorted(names, key=lambda name: (zlib.crc32(name), name))[:count])
        images.append([name for name in names if (name in is_val) == (split == "val")])
    return to_listing(listing.class_names, images)


def list_classes(root: Path) -> List[str]:
    """Sorted class folders of train/, or of `root` where it is not split.

    Raises:
        UserError: no such folder, or none in it.
    """
    is_split = any((root / name).is_dir() for name in _SPLITS)
    return _list_classes(root / "train" if is_split else root)


def _list_classes(folder: Path) -> List[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data_url needs train/ and val/")
    names = list_class_folders(folder)
    if not names:
        raise UserError(f"{folder}: no class folders; put the images of each class into one folder")
    return names


def _check_same_classes(root: Path) -> None:
    train, val = (set(_list_classes(root / split)) for split in _SPLITS)
    if train == val:
        return
    sides = [("train", train - val), ("val", val - train)]
    differences = "; ".join(
        f"only in {split}/: {some_of(sorted(names), _NAMED_CLASSES)}"
        for split, names in sides
        if names
    )
    raise UserError(f"{root}: train/ and val/ need the same class folders ({differences})")


def paths_of(folder: ImageFolder) -> Iterator[str]:
    """Every `<class>/<image>`, in the order of the indices."""
    return (folder.file_name(index) for index in range(len(folder)))
