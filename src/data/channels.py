"""Images of other channels than RGB: grey as Pillow's `convert("L")`, and RGB with opacity.

Grey images are three equal channels until they are a row of a batch, which takes the first: every
transform keeps them equal, and knows RGB only. Opacity is a fourth channel.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

# Pixels that Pillow converts at a time: it holds several copies of them.
_BAND_PIXELS = 1 << 20


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, 3) uint8, RGB, as transforms take it: (H, W, 3), for 4 channels (H, W, 4), opaque."""
    if channels == 1:
        return _grey(pixels)
    if channels == 4:
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        return np.concatenate([pixels, opaque], axis=2)
    return pixels


def _grey(pixels: np.ndarray) -> np.ndarray:
    grey = pixels if pixels.flags.writeable else pixels.copy()
    rows = max(1, _BAND_PIXELS // max(1, pixels.shape[1]))
    for top in range(0, len(grey), rows):
        band = np.ascontiguousarray(grey[top : top + rows])
        grey[top : top + rows] = np.asarray(Image.fromarray(band).convert("L"))[..., None]
    return grey


def as_colours(image: np.ndarray) -> np.ndarray:
    """(..., C) uint8 of 1, 3 or 4 channels -> (..., 3) to look at, opacity left out."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
