"""The filters that resizes and geometric operations choose from, and the resize itself."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import PIL
from PIL import Image

from . import numba_resize

# (top, left, height, width), pixels
CropBox = Tuple[int, int, int, int]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# From this version on Pillow sometimes resizes vertically first, see `numba_resize.resize_box`.
_HAS_VERTICAL_FIRST = int(PIL.__version__.split(".")[0]) >= 13


def draw_filter(interpolation: str, rng: np.random.Generator) -> Image.Resampling:
    """The named filter; for `random` either of the two, each with probability 1/2."""
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    return FILTERS[interpolation]


def resize_box(
    image: np.ndarray,
    box: CropBox,
    size: Tuple[int, int],
    resample: Image.Resampling,
    part: Tuple[int, int, int, int],
) -> np.ndarray:
    """Part of a box of the image, resized: as Pillow crops, resizes and crops again.

    Args:
        image: (H, W, 3) uint8.
        box: (top, left, height, width), pixels; nothing outside it is seen.
        size: (width, height) of the whole result, pixels.
        resample: bilinear or bicubic, antialiased.
        part: (left, top, right, bottom) of the result, inside it.
    """
    is_bicubic = resample == Image.Resampling.BICUBIC
    return numba_resize.resize_box(image, box, size, part, is_bicubic, _HAS_VERTICAL_FIRST)
