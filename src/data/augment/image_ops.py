"""The operations of the augmentation policies: (H, W, 3) uint8 in, (H, W, 3) uint8 out.

Pixels are those of timm 1.0.31 (`timm/data/auto_augment.py`) on Pillow. Operations that map each
value by itself go through one table of 256 entries per channel.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, NamedTuple, Tuple

import numpy as np
from PIL import Image, ImageFilter

from . import numba_colour, numba_warps
from .transposing import transposed

Rgb8 = Tuple[int, int, int]
_NUM_VALUES = 256
# Pillow's own arithmetic on this image yields a table that agrees with it on every machine.
_RAMP = Image.frombytes("L", (_NUM_VALUES, 1), bytes(range(_NUM_VALUES)))


class Warp(NamedTuple):
    """How the geometric operations resample.

    Attributes:
        resample: bilinear or bicubic.
        fill: RGB, 0..255, of what comes in from outside the image.
    """

    resample: Image.Resampling
    fill: Rgb8


def _map_by(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Maps each channel by the same 256 values, or each by its own row of (3, 256)."""
    tables = np.broadcast_to(np.clip(values, 0, 255).astype(np.uint8), (3, _NUM_VALUES))
    return numba_colour.map_values(image, np.ascontiguousarray(tables))


def identity(image: np.ndarray) -> np.ndarray:
    """The image itself."""
    return image


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel so that its extremes become 0 and 255."""
    values = np.arange(_NUM_VALUES)
    tables = np.tile(values, (3, 1))
    for channel, counts in enumerate(numba_colour.histogram(image)):
        present = np.flatnonzero(counts)
        low, high = int(present[0]), int(present[-1])
        if high > low:
            scale = 255.0 / (high - low)
            tables[channel] = np.trunc(values * scale + -low * scale)
    return _map_by(image, tables)


def equalize(image: np.ndarray) -> np.ndarray:
    """Give each channel an even histogram."""
    tables = np.tile(np.arange(_NUM_VALUES), (3, 1))
    for channel, counts in enumerate(numba_colour.histogram(image)):
        present = np.flatnonzero(counts)
        step = (image.shape[0] * image.shape[1] - counts[present[-1]]) // 255
        if len(present) > 1 and step > 0:
            below = np.cumsum(counts) - counts
            tables[channel] = (step // 2 + below) // step
    return _map_by(image, tables)


def invert(image: np.ndarray) -> np.ndarray:
    """255 - value."""
    return _map_by(image, np.arange(255, -1, -1))


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keep the top `bits` bits of each value; 8 or more: all, 0 or less: black.

    timm passes 0 bits on to Pillow, which draws black before version 13 and raises from then on.
    """
    if bits >= 8:
        return image
    mask = 0xFF & ~((1 << (8 - max(int(bits), 0))) - 1)
    return _map_by(image, np.arange(_NUM_VALUES) & mask)


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Invert values from `threshold` on; 256: none, 0: all."""
    values = np.arange(_NUM_VALUES)
    return _map_by(image, np.where(values < threshold, values, 255 - values))


def solarize_add(image: np.ndarray, addend: float) -> np.ndarray:
    """Add `addend` to values below 128; the sum stops at 255."""
    values = np.arange(_NUM_VALUES)
    return _map_by(image, np.where(values < 128, values + addend, values))


def _blend_from_level(image: np.ndarray, level: int, factor: float) -> np.ndarray:
    degenerate = Image.new("L", _RAMP.size, level)
    return _map_by(image, np.asarray(Image.blend(degenerate, _RAMP, factor)).reshape(-1))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend from black; factor 0: black, 1: unchanged."""
    return _blend_from_level(image, 0, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend from the mean grey; factor 0: that grey everywhere, 1: unchanged."""
    mean = numba_colour.grey_sum(image) / (image.shape[0] * image.shape[1])
    return _blend_from_level(image, int(mean + 0.5), factor)


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend from the grey image; factor 0: grey, 1: unchanged."""
    return numba_colour.blend_from_grey(image, np.float32(factor))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend from a smoothed copy (3x3); factor 0: smoothed, 1: unchanged."""
    return numba_colour.blend_from_smooth(image, np.float32(factor))


def desaturate(image: np.ndarray, amount: float) -> np.ndarray:
    """Blend towards the grey image; amount 1: grey, 0: unchanged."""
    return color(image, min(1.0, max(0.0, 1.0 - amount)))


def extended_box_blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Blur with a standard deviation of `radius` pixels as Pillow does it: three box filters.

    timm's policies take this one, its `gaussian_blur_prob` a true Gaussian (colour.py); on a
    photograph they differ by up to 30 grey levels.
    """
    blur = ImageFilter.GaussianBlur(radius=radius)
    return np.asarray(Image.fromarray(image).filter(blur))


def _is_bicubic(warp: Warp) -> bool:
    return warp.resample == Image.Resampling.BICUBIC


def _shift_rows(image: np.ndarray, shifts: np.ndarray, warp: Warp) -> np.ndarray:
    return numba_warps.shift_rows(image, shifts, warp.fill, _is_bicubic(warp))


def _shift_columns(image: np.ndarray, shifts: np.ndarray, warp: Warp) -> np.ndarray:
    return transposed(_shift_rows(transposed(image), shifts, warp))


def shear_x(image: np.ndarray, factor: float, warp: Warp) -> np.ndarray:
    """Move row y to the left by factor * y pixels, y counted to the row's middle."""
    return _shift_rows(image, factor * (np.arange(image.shape[0]) + 0.5), warp)


def shear_y(image: np.ndarray, factor: float, warp: Warp) -> np.ndarray:
    """Move column x up by factor * x pixels, x counted to the column's middle."""
    return _shift_columns(image, factor * (np.arange(image.shape[1]) + 0.5), warp)


def translate_x(image: np.ndarray, pixels: float, warp: Warp) -> np.ndarray:
    """Move the content to the left."""
    return _shift_rows(image, np.full(image.shape[0], float(pixels)), warp)


def translate_y(image: np.ndarray, pixels: float, warp: Warp) -> np.ndarray:
    """Move the content up."""
    return _shift_columns(image, np.full(image.shape[1], float(pixels)), warp)


def translate_x_rel(image: np.ndarray, share: float, warp: Warp) -> np.ndarray:
    """Move the content to the left by a share of the width."""
    return translate_x(image, share * image.shape[1], warp)


def translate_y_rel(image: np.ndarray, share: float, warp: Warp) -> np.ndarray:
    """Move the content up by a share of the height."""
    return translate_y(image, share * image.shape[0], warp)


def rotate(image: np.ndarray, degrees: float, warp: Warp) -> np.ndarray:
    """Turn counter-clockwise about the centre; the size stays."""
    # As Pillow does: the last digit of the angle may decide a pixel.
    degrees %= 360.0
    if degrees == 0:
        return image
    center_x, center_y = image.shape[1] / 2, image.shape[0] / 2
    # Pillow rounds them, lest a quarter turn pull in a border.
    cos = round(math.cos(math.radians(-degrees)), 15)
    sin = round(math.sin(math.radians(-degrees)), 15)
    offset_x = cos * -center_x + sin * -center_y + center_x
    offset_y = -sin * -center_x + cos * -center_y + center_y
    matrix = (cos, sin, offset_x, -sin, cos, offset_y)
    return numba_warps.warp_affine(image, matrix, warp.fill, _is_bicubic(warp))


# By what they take besides the image.
PLAIN_OPS: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Identity": identity,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
}
VALUE_OPS: Dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "Desaturate": desaturate,
    "GaussianBlur": extended_box_blur,
}
WARP_OPS: Dict[str, Callable[[np.ndarray, float, Warp], np.ndarray]] = {
    "Rotate": rotate,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "TranslateXRel": translate_x_rel,
    "TranslateYRel": translate_y_rel,
}


def apply_op(image: np.ndarray, name: str, argument: float, warp: Warp) -> np.ndarray:
    """Apply one operation of the three tables; those of PLAIN_OPS ignore `argument`."""
    if name in PLAIN_OPS:
        return PLAIN_OPS[name](image)
    if name in VALUE_OPS:
        return VALUE_OPS[name](image, argument)
    return WARP_OPS[name](image, argument, warp)
