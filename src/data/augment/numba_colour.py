"""The inner loops of the operations that change colours, compiled; pixels are Pillow's.

H, W height and width in pixels; images are (H, W, 3) uint8, contiguous.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled


@compiled
def histogram(image: np.ndarray) -> np.ndarray:
    """Pixels per channel and value: (3, 256) int64."""
    counts = np.zeros((3, 256), np.int64)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                counts[channel, image[y, x, channel]] += 1
    return counts


@compiled
def map_values(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Each channel through its own row of `tables`, (3, 256) uint8."""
    result = np.empty_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                result[y, x, channel] = tables[channel, image[y, x, channel]]
    return result


@compiled
def _grey(red: int, green: int, blue: int) -> int:
    # ITU-R 601 in 16 bits, as in Pillow's Convert.c.
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@compiled
def grey_sum(image: np.ndarray) -> int:
    """Sum of the grey values."""
    total = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            total += _grey(int(image[y, x, 0]), int(image[y, x, 1]), int(image[y, x, 2]))
    return total


@compiled
def _blend(degenerate: np.float32, value: np.float32, factor: np.float32) -> np.uint8:
    """Pillow's Blend.c: float32, decimals cut off, ends at 0 and 255."""
    mixed = degenerate + factor * (value - degenerate)
    return np.uint8(np.int32(min(max(mixed, np.float32(0)), np.float32(255))))


@compiled
def blend_from_grey(image: np.ndarray, factor: np.float32) -> np.ndarray:
    """Blend from the grey image; factor 0: grey, 1: unchanged."""
    result = np.empty_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = int(image[y, x, 0]), int(image[y, x, 1]), int(image[y, x, 2])
            grey = np.float32(_grey(red, green, blue))
            result[y, x, 0] = _blend(grey, np.float32(red), factor)
            result[y, x, 1] = _blend(grey, np.float32(green), factor)
            result[y, x, 2] = _blend(grey, np.float32(blue), factor)
    return result


@compiled
def blend_from_smooth(image: np.ndarray, factor: np.float32) -> np.ndarray:
    """Blend from the image smoothed by 3x3 (centre 5, others 1; the border stays)."""
    height, width = image.shape[0], image.shape[1] * 3
    flat = image.reshape(height, width)
    result = np.empty((height, width), np.uint8)
    sums = np.empty(width, np.int32)
    for y in range(height):
        result[y] = flat[y]
        if y in (0, height - 1):
            continue
        for i in range(width):
            sums[i] = np.int32(flat[y - 1, i]) + np.int32(flat[y, i]) + np.int32(flat[y + 1, i])
        for i in range(3, width - 3):
            value = np.int32(flat[y, i])
            total = sums[i - 3] + sums[i] + sums[i + 3] + 4 * value
            # total / 13, rounded: exact for sums up to 13 * 255, and no division.
            smooth = np.int32((np.int32(total * 2 + 13) * np.int32(161320)) >> 22)
            result[y, i] = _blend(np.float32(smooth), np.float32(value), factor)
    return result.reshape(image.shape)
