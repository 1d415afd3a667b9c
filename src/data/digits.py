"""1,797 handwritten digits that ship with the repository, as an image folder.

See DIGITS_LICENSE.md for where they come from.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError

_SOURCE = Path(__file__).with_name("digits.npz")
# Written into a finished folder, so that no other folder is taken for ours.
_MARKER = ".digits"
_NUM_IMAGES = 1797
_IMAGE_SIZE = 32
_MAX_VALUE = 16
_VAL_EVERY = 5


def prepare_digits(root: Path) -> None:
    """Write root/train (1,437 images) and root/val (360), unless they are there already.

    Image i of the data set goes to val when i is a multiple of 5. The 8x8 values of 0..16 become
    grey PNGs of 32x32, bicubic, 0..255. Several processes may call this at once.

    Raises:
        UserError: `root` holds something else, lacks files, or cannot be written.
    """
    if _is_prepared(root):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as parent:
            # A folder inside: the temporary one is closed to other users.
            finished = Path(parent) / "digits"
            _write_folder(finished)
            _publish(finished, root)
    except OSError as error:
        raise UserError(f"data_url {str(root)!r}: {error}; choose another folder") from error


def read_digits(count: int) -> np.ndarray:
    """The first `count` digits, over again past the last, (count, 8, 8) uint8 in 0..255."""
    with np.load(_SOURCE) as source:
        digits = source["image"]
    return np.stack([_grey(digits[index % len(digits)]) for index in range(count)])


def _grey(digit: np.ndarray) -> np.ndarray:
    return np.rint(digit * (255.0 / _MAX_VALUE)).astype(np.uint8)


def _is_prepared(root: Path) -> bool:
    if not os.path.lexists(root) or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / _MARKER).is_file():
        raise UserError(
            f"data_url {str(root)!r}: holds something else than Digits, and is left alone; choose "
            "a folder that does not exist yet"
        )
    num_images = sum(1 for split in ("train", "val") for _ in (root / split).glob("*/*.png"))
    if num_images != _NUM_IMAGES:
        raise UserError(
            f"data_url {str(root)!r}: {num_images} of {_NUM_IMAGES} images; move the folder "
            "away, it is written anew"
        )
    return True


def _publish(finished: Path, root: Path) -> None:
    try:
        finished.rename(root)
    except OSError:
        # Another process was first. What it renamed is whole, and the same.
        if not _is_prepared(root):
            raise


def _write_folder(folder: Path) -> None:
    with np.load(_SOURCE) as source:
        digits, labels = source["image"], source["label"]
    for index, (digit, label) in enumerate(zip(digits, labels)):
        split = "val" if index % _VAL_EVERY == 0 else "train"
        class_folder = folder / split / str(label)
        class_folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(_grey(digit)).resize(
            (_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.BICUBIC
        )
        image.save(class_folder / f"{index:04d}.png")
    (folder / _MARKER).touch()
