"""A dataset as a folder: `root/train/<class>/<image>` and `root/val/<class>/<image>`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import List

import numpy as np
from PIL import Image

from src.errors import UserError

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_SPLITS = ("train", "val")
_NAMED_CLASSES = 5


@dataclass(frozen=True)
class ImageFolder:
    """One split.

    Attributes:
        folder: the split's folder.
        class_names: sorted; the position is the label.
        file_names: `<class>/<image>`, by class, then by name.
        labels: (len(file_names),) int32.
    """

    folder: Path
    class_names: List[str]
    file_names: List[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.file_names)

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.folder / self.file_names[index]
        try:
            with Image.open(path) as image:
                image.load()
                # convert() copies even what is RGB already.
                return image if image.mode == "RGB" else image.convert("RGB")
        # Pillow's readers raise nearly anything on damaged bytes: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: not a readable image ({reason}); replace or delete the file"
            ) from error


def scan_image_folder(root: Path, split: str) -> ImageFolder:
    """List one split, `train` or `val`, of the dataset at `root`. Hidden files are left out.

    Raises:
        UserError: a folder is missing or empty, or the splits have different classes.
    """
    if not root.is_dir():
        raise UserError(
            f"data_url {str(root)!r}: no such folder; give one that has train/ and val/"
        )
    class_names = _list_classes(root, split)
    file_names: List[str] = []
    labels: List[int] = []
    _check_same_classes(root)
    for label, class_name in enumerate(class_names):
        images = _list_images(root / split / class_name)
        file_names += [f"{class_name}/{image}" for image in images]
        labels += [label] * len(images)
    return ImageFolder(root / split, class_names, file_names, np.array(labels, np.int32))


def _list_classes(root: Path, split: str) -> List[str]:
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data_url needs train/ and val/")
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no class folders; put the images of each class into one folder")
    return names


def _check_same_classes(root: Path) -> None:
    train, val = (set(_list_classes(root, split)) for split in _SPLITS)
    if train == val:
        return
    sides = [("train", train - val), ("val", val - train)]
    differences = "; ".join(
        f"only in {split}/: {_abbreviate(sorted(names))}" for split, names in sides if names
    )
    raise UserError(f"{root}: train/ and val/ need the same class folders ({differences})")


def _abbreviate(names: List[str]) -> str:
    shown = ", ".join(names[:_NAMED_CLASSES])
    hidden = len(names) - _NAMED_CLASSES
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _list_images(folder: Path) -> List[str]:
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(_EXTENSIONS)
            and not e.name.startswith(".")
            and not e.is_dir()
        )
    if not names:
        raise UserError(
            f"{folder}: no images ({' '.join(_EXTENSIONS)}); add some, or delete the folder in "
            "train/ and val/"
        )
    return names
