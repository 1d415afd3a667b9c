"""The two inner loops of the pipeline, compiled: resizing, and shifting rows by fractions.

Arithmetic is Pillow's, and so are the pixels: weights of 22 bits and 8 bits between the passes
(`Resample.c`), float64 and cut-off decimals for warps (`Geometry.c`). Both loops run along
contiguous rows, which the compiler vectorises; the other axis is reached by transposing.

H, W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import Tuple

import numba
import numpy as np

# Pillow's 32 - 8 - 2.
_PRECISION_BITS = 22


@numba.njit(cache=True, nogil=True)
def _filter_weight(x: float, is_bicubic: bool) -> float:
    x = abs(x)
    if not is_bicubic:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@numba.njit(cache=True, nogil=True)
def _weights(
    in_size: int, out_size: int, first: int, last: int, is_bicubic: bool
) -> Tuple[np.ndarray, np.ndarray]:
    """For outputs first..last-1: (first input, number of inputs), and their int32 weights."""
    scale = in_size / out_size
    filter_scale = max(scale, 1.0)
    support = (2.0 if is_bicubic else 1.0) * filter_scale
    bounds = np.empty((last - first, 2), np.int32)
    weights = np.zeros((last - first, math.ceil(support) * 2 + 1), np.int32)
    reals = np.empty(weights.shape[1], np.float64)
    for i in range(last - first):
        center = (first + i + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        count = min(int(center + support + 0.5), in_size) - low
        total = 0.0
        for k in range(count):
            reals[k] = _filter_weight((k + low - center + 0.5) * (1.0 / filter_scale), is_bicubic)
            total += reals[k]
        for k in range(count):
            real = reals[k] * (1.0 / total) * (1 << _PRECISION_BITS)
            weights[i, k] = int(real - 0.5) if real < 0 else int(real + 0.5)
        bounds[i, 0], bounds[i, 1] = low, count
    return bounds, weights


@numba.njit(cache=True, nogil=True)
def resize_rows(
    image: np.ndarray, out_height: int, first: int, last: int, is_bicubic: bool
) -> np.ndarray:
    """The vertical pass of a resize with antialiasing.

    Args:
        image: (H, W, 3) uint8, contiguous.
        out_height: rows of the whole result, pixels.
        first: row of the result that is wanted first.
        last: row behind the last one that is wanted.
        is_bicubic: Keys' cubic with a = -0.5; else bilinear.

    Returns:
        (last - first, W, 3) uint8.
    """
    bounds, weights = _weights(image.shape[0], out_height, first, last, is_bicubic)
    width = image.shape[1] * 3
    flat = image.reshape(image.shape[0], width)
    result = np.empty((last - first, width), np.uint8)
    sums = np.empty(width, np.int32)
    for y in range(last - first):
        sums[:] = 1 << (_PRECISION_BITS - 1)
        for k in range(bounds[y, 1]):
            weight = weights[y, k]
            line = flat[bounds[y, 0] + k]
            for x in range(width):
                sums[x] += np.int32(line[x]) * weight
        for x in range(width):
            result[y, x] = min(max(sums[x] >> _PRECISION_BITS, 0), 255)
    return result.reshape(last - first, image.shape[1], 3)


@numba.njit(cache=True, nogil=True)
def _pad_line(line: np.ndarray, padded: np.ndarray) -> None:
    """(W * 3,) uint8 into (W * 3 + 12,) float64, two border pixels repeated on each side."""
    width = len(line)
    for i in range(width):
        padded[6 + i] = line[i]
    for channel in range(3):
        for pixel in range(2):
            padded[3 * pixel + channel] = line[channel]
            padded[6 + width + 3 * pixel + channel] = line[width - 3 + channel]


@numba.njit(cache=True, nogil=True)
def shift_rows(
    image: np.ndarray, shifts: np.ndarray, fill: Tuple[int, int, int], is_bicubic: bool
) -> np.ndarray:
    """Move every row to the left by its own number of pixels.

    Args:
        image: (H, W, 3) uint8, contiguous.
        shifts: (H,) float64, pixels.
        fill: RGB, 0..255, for what comes in from outside.
        is_bicubic: the cubic with a = -1 of Pillow's warps; else bilinear.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    flat = image.reshape(height, width * 3)
    result = np.empty((height, width * 3), np.uint8)
    padded = np.empty(width * 3 + 12, np.float64)
    fractions = np.empty(width * 3, np.float64)
    for y in range(height):
        base = math.floor(shifts[y])
        # Output x shows x + shift, which must lie in [-1/2, width - 1/2).
        first = min(max(math.ceil(-0.5 - shifts[y]), 0), width)
        last = max(min(math.ceil(width - 0.5 - shifts[y]), width), first)
        for x in range(first, last):
            # The last bits change from column to column, and decide where decimals are cut off.
            fraction = ((x + 0.5) + shifts[y]) - 0.5 - (x + base)
            for channel in range(3):
                fractions[3 * x + channel] = fraction
        for x in range(width):
            if x < first or x >= last:
                for channel in range(3):
                    result[y, 3 * x + channel] = fill[channel]
        _pad_line(flat[y], padded)
        start = 3 * (int(base) + 1)
        for i in range(3 * first, 3 * last):
            d = fractions[i]
            v1, v2 = padded[start + i], padded[start + i + 3]
            v3, v4 = padded[start + i + 6], padded[start + i + 9]
            if is_bicubic:
                p3 = 2 * (v1 - v2) + v3 - v4
                value = v2 + d * ((-v1 + v3) + d * (p3 + d * (-v1 + v2 - v3 + v4)))
                value = min(max(value, 0.0), 255.0)
            else:
                value = v2 + (v3 - v2) * d
            result[y, i] = np.uint8(value)
    return result.reshape(height, width, 3)
