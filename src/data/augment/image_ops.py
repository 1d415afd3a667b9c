"""The operations of the augmentation policies: RGB Pillow image in, RGB Pillow image out.

Pixels are those of timm 1.0.31 (`timm/data/auto_augment.py`) on Pillow. Operations that map each
value by itself go through one table of 256 entries per channel; shears and translations are
compiled.
"""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple, Tuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from src.data.augment.kernels import shift_rows

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


def _map_values(image: Image.Image, table: bytes) -> Image.Image:
    """Maps each channel by the same 256 values, or each by its own 256 of 768."""
    return image.point(list(table) if len(table) == 3 * _NUM_VALUES else list(table) * 3)


def _map_by(image: Image.Image, values: np.ndarray) -> Image.Image:
    return _map_values(image, np.clip(values, 0, 255).astype(np.uint8).tobytes())


def _histogram(image: Image.Image) -> np.ndarray:
    """(3, 256) int64, pixels per channel and value."""
    return np.array(image.histogram(), np.int64).reshape(3, _NUM_VALUES)


def identity(image: Image.Image) -> Image.Image:
    """The image itself."""
    return image


def auto_contrast(image: Image.Image) -> Image.Image:
    """Stretch each channel so that its extremes become 0 and 255."""
    values = np.arange(_NUM_VALUES)
    tables = np.tile(values, (3, 1))
    for channel, counts in enumerate(_histogram(image)):
        present = np.flatnonzero(counts)
        low, high = int(present[0]), int(present[-1])
        if high > low:
            scale = 255.0 / (high - low)
            tables[channel] = np.trunc(values * scale + -low * scale)
    return _map_by(image, tables)


def equalize(image: Image.Image) -> Image.Image:
    """Give each channel an even histogram."""
    tables = np.tile(np.arange(_NUM_VALUES), (3, 1))
    for channel, counts in enumerate(_histogram(image)):
        present = np.flatnonzero(counts)
        step = (image.width * image.height - counts[present[-1]]) // 255
        if len(present) > 1 and step > 0:
            below = np.cumsum(counts) - counts
            tables[channel] = (step // 2 + below) // step
    return _map_by(image, tables)


def invert(image: Image.Image) -> Image.Image:
    """255 - value."""
    return _map_by(image, np.arange(255, -1, -1))


def posterize(image: Image.Image, bits: float) -> Image.Image:
    """Keep the top `bits` bits of each value; 8 or more: all, 0 or less: black.

    timm passes 0 bits on to Pillow, which draws black before version 13 and raises from then on.
    """
    if bits >= 8:
        return image
    mask = 0xFF & ~((1 << (8 - max(int(bits), 0))) - 1)
    return _map_by(image, np.arange(_NUM_VALUES) & mask)


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Invert values from `threshold` on; 256: none, 0: all."""
    values = np.arange(_NUM_VALUES)
    return _map_by(image, np.where(values < threshold, values, 255 - values))


def solarize_add(image: Image.Image, addend: float) -> Image.Image:
    """Add `addend` to values below 128; the sum stops at 255."""
    values = np.arange(_NUM_VALUES)
    return _map_by(image, np.where(values < 128, values + addend, values))


def _blend_from_grey(image: Image.Image, grey: int, factor: float) -> Image.Image:
    degenerate = Image.new("L", _RAMP.size, grey)
    return _map_values(image, Image.blend(degenerate, _RAMP, factor).tobytes())


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Blend from black; factor 0: black, 1: unchanged."""
    return _blend_from_grey(image, 0, factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blend from the mean grey; factor 0: that grey everywhere, 1: unchanged."""
    counts = np.array(image.convert("L").histogram(), np.int64)
    mean = float(np.dot(counts, np.arange(_NUM_VALUES))) / (image.width * image.height)
    return _blend_from_grey(image, int(mean + 0.5), factor)


def color(image: Image.Image, factor: float) -> Image.Image:
    """Blend from the grey image; factor 0: grey, 1: unchanged."""
    return ImageEnhance.Color(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Blend from a smoothed copy (3x3); factor 0: smoothed, 1: unchanged."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def desaturate(image: Image.Image, amount: float) -> Image.Image:
    """Blend towards the grey image; amount 1: grey, 0: unchanged."""
    return color(image, min(1.0, max(0.0, 1.0 - amount)))


def gaussian_blur(image: Image.Image, radius: float) -> Image.Image:
    """Blur with a standard deviation of `radius` pixels (Pillow's approximation by boxes)."""
    return image.filter(ImageFilter.GaussianBlur(radius=radius))


def _shift_rows(image: Image.Image, shifts: np.ndarray, warp: Warp) -> Image.Image:
    is_bicubic = warp.resample == Image.Resampling.BICUBIC
    return Image.fromarray(shift_rows(np.asarray(image), shifts, warp.fill, is_bicubic))


def _shift_columns(image: Image.Image, shifts: np.ndarray, warp: Warp) -> Image.Image:
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    return _shift_rows(turned, shifts, warp).transpose(Image.Transpose.TRANSPOSE)


def shear_x(image: Image.Image, factor: float, warp: Warp) -> Image.Image:
    """Move row y to the left by factor * y pixels, y counted to the row's middle."""
    return _shift_rows(image, factor * (np.arange(image.height) + 0.5), warp)


def shear_y(image: Image.Image, factor: float, warp: Warp) -> Image.Image:
    """Move column x up by factor * x pixels, x counted to the column's middle."""
    return _shift_columns(image, factor * (np.arange(image.width) + 0.5), warp)


def translate_x(image: Image.Image, pixels: float, warp: Warp) -> Image.Image:
    """Move the content to the left."""
    return _shift_rows(image, np.full(image.height, float(pixels)), warp)


def translate_y(image: Image.Image, pixels: float, warp: Warp) -> Image.Image:
    """Move the content up."""
    return _shift_columns(image, np.full(image.width, float(pixels)), warp)


def translate_x_rel(image: Image.Image, share: float, warp: Warp) -> Image.Image:
    """Move the content to the left by a share of the width."""
    return translate_x(image, share * image.width, warp)


def translate_y_rel(image: Image.Image, share: float, warp: Warp) -> Image.Image:
    """Move the content up by a share of the height."""
    return translate_y(image, share * image.height, warp)


def rotate(image: Image.Image, degrees: float, warp: Warp) -> Image.Image:
    """Turn counter-clockwise about the centre; the size stays."""
    return image.rotate(degrees, resample=warp.resample, fillcolor=warp.fill)


# By what they take besides the image.
PLAIN_OPS: Dict[str, Callable[[Image.Image], Image.Image]] = {
    "Identity": identity,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
}
VALUE_OPS: Dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "Desaturate": desaturate,
    "GaussianBlur": gaussian_blur,
}
WARP_OPS: Dict[str, Callable[[Image.Image, float, Warp], Image.Image]] = {
    "Rotate": rotate,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "TranslateXRel": translate_x_rel,
    "TranslateYRel": translate_y_rel,
}


def apply_op(image: Image.Image, name: str, argument: float, warp: Warp) -> Image.Image:
    """Apply one operation of the three tables; those of PLAIN_OPS ignore `argument`."""
    if name in PLAIN_OPS:
        return PLAIN_OPS[name](image)
    if name in VALUE_OPS:
        return VALUE_OPS[name](image, argument)
    return WARP_OPS[name](image, argument, warp)
