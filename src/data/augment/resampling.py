"""The filters that resizes and geometric operations choose from, and the resize itself."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from PIL import Image

from src.data.augment.kernels import resize_rows

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def draw_filter(interpolation: str, rng: np.random.Generator) -> Image.Resampling:
    """The named filter; for `random` either of the two, each with probability 1/2."""
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    return FILTERS[interpolation]


def resize(
    image: Image.Image,
    size: Tuple[int, int],
    resample: Image.Resampling,
    part: Tuple[int, int, int, int],
) -> Image.Image:
    """A part of the image resized to `size`, with the pixels of `image.resize(size).crop(part)`.

    Args:
        image: RGB.
        size: (width, height) of the whole result, pixels.
        resample: bilinear or bicubic, antialiased.
        part: (left, top, right, bottom) of the result, inside it.
    """
    # Both passes round to 8 bits, so their order shows. Pillow begins with the horizontal one,
    # except that version 13 does not always when the height shrinks more than the width.
    if image.height * size[0] > max(image.width, size[0]) * size[1]:
        return image.resize(size, resample).crop(part)
    left, top, right, bottom = part
    is_bicubic = resample == Image.Resampling.BICUBIC
    columns = np.asarray(image.transpose(Image.Transpose.TRANSPOSE))
    narrow = Image.fromarray(resize_rows(columns, size[0], left, right, is_bicubic))
    rows = np.asarray(narrow.transpose(Image.Transpose.TRANSPOSE))
    return Image.fromarray(resize_rows(rows, size[1], top, bottom, is_bicubic))
