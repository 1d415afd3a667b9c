"""An image, or as much of it as is needed."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

# (top, left, height, width), pixels
CropBox = Tuple[int, int, int, int]


class Part(NamedTuple):
    """Some pixels of an image, at least those that are needed.

    Attributes:
        pixels: (h, w, 3) uint8, RGB.
        top: where they lie in the image, pixels.
        left: likewise.
        size: (height, width) of the image.
    """

    pixels: np.ndarray
    top: int
    left: int
    size: Tuple[int, int]


def whole(image: np.ndarray) -> Part:
    """All pixels of an image (H, W, 3) uint8."""
    return Part(image, 0, 0, (image.shape[0], image.shape[1]))
