"""The filters that resizes and geometric operations choose from, and the resize itself."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import PIL
from PIL import Image

from . import numba_resize
from .parts import CropBox, Part

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# From this version on Pillow sometimes resizes vertically first, see `numba_resize.resize_box`.
_HAS_VERTICAL_FIRST = int(PIL.__version__.split(".")[0]) >= 13


def draw_filter(interpolation: str, rng: np.random.Generator) -> Image.Resampling:
    """The named filter; for `random` either of the two, each with probability 1/2."""
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    return FILTERS[interpolation]


def resize_box(
    image: Part,
    box: CropBox,
    size: Tuple[int, int],
    resample: Image.Resampling,
    part: Tuple[int, int, int, int],
) -> np.ndarray:
    """Part of a box of the image, resized: as Pillow crops, resizes and crops again.

    Args:
        image: what `box_seen` says of it, or more.
        box: (top, left, height, width), pixels; nothing outside it is seen.
        size: (width, height) of the whole result, pixels.
        resample: bilinear or bicubic, antialiased.
        part: (left, top, right, bottom) of the result, inside it.
    """
    if image.pixels.shape[2] == 4:
        return _with_opacity(image, box, size, resample, part)
    is_bicubic = resample == Image.Resampling.BICUBIC
    origin = image.top, image.left
    return numba_resize.resize_box(
        image.pixels, box, size, part, origin, is_bicubic, _HAS_VERTICAL_FIRST
    )


def _with_opacity(
    image: Part,
    box: CropBox,
    size: Tuple[int, int],
    resample: Image.Resampling,
    part: Tuple[int, int, int, int],
) -> np.ndarray:
    """`resize_box` of (h, w, 4): of colours times opacity, so that transparent ones do not show."""
    left, top, right, bottom = part
    if box[2:] == size[::-1]:  # Pillow copies it
        y, x = box[0] - image.top, box[1] - image.left
        return np.ascontiguousarray(image.pixels[y + top : y + bottom, x + left : x + right])
    weighed = np.asarray(Image.fromarray(image.pixels).convert("RGBa"))
    planes = (np.ascontiguousarray(weighed[..., :3]), np.repeat(weighed[..., 3:], 3, axis=2))
    parts = [image._replace(pixels=plane) for plane in planes]
    colours, opacity = (resize_box(plane, box, size, resample, part) for plane in parts)
    content = np.dstack([colours, opacity[..., :1]]).tobytes()
    resized = Image.frombytes("RGBa", (right - left, bottom - top), content)
    return np.array(resized.convert("RGBA"))


def box_seen(
    box: CropBox,
    size: Tuple[int, int],
    resample: Image.Resampling,
    part: Tuple[int, int, int, int],
) -> CropBox:
    """The pixels that `resize_box` reads."""
    is_bicubic = resample == Image.Resampling.BICUBIC
    top, bottom = numba_resize.inputs_between(part[1], part[3], box[2], size[1], is_bicubic)
    left, right = numba_resize.inputs_between(part[0], part[2], box[3], size[0], is_bicubic)
    return box[0] + top, box[1] + left, bottom - top, right - left
