"""The inner loops of the geometric operations, compiled.

Warps have the pixels of Pillow (`Geometry.c`): colours are computed in float32, which is twice as
fast as Pillow's float64, and those so near to an integer that the difference could show are
computed again in float64, in Pillow's order of operations.

H, W height and width in pixels; images are (H, W, 3) uint8, contiguous.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from .compiled import compiled
from .vectors import BEYOND, weighted_square

# "Near to an integer" is within 1/1024, more than float32 is wrong by: sums of 16 products of up to
# 255 * 9/4 together, the weights of a cubic in two dimensions.
_NEAR_UNITS = np.float32(1024)

Taps = Tuple[np.float32, np.float32, np.float32, np.float32]


@compiled
def _pad_line(line: np.ndarray, padded: np.ndarray) -> None:
    """(W * 3,) uint8 into (W * 3 + 12,) float32, two border pixels repeated on each side."""
    width = len(line)
    for i in range(width):
        padded[6 + i] = line[i]
    for channel in range(3):
        for pixel in range(2):
            padded[3 * pixel + channel] = line[channel]
            padded[6 + width + 3 * pixel + channel] = line[width - 3 + channel]


@compiled
def _between(v1: float, v2: float, v3: float, v4: float, d: float, is_bicubic: bool) -> float:
    """The value `d` right of v2, by Pillow's operations in Pillow's order."""
    if is_bicubic:
        p3 = 2 * (v1 - v2) + v3 - v4
        return v2 + d * ((-v1 + v3) + d * (p3 + d * (-v1 + v2 - v3 + v4)))
    return v2 + (v3 - v2) * d


@compiled
def _to_uint8(value: float) -> int:
    return int(min(max(value, 0.0), 255.0))


@compiled
def _is_near_integer(value: np.float32) -> np.bool_:
    """Whether the exact value may have another integer part."""
    units = np.int32(np.int32(value * _NEAR_UNITS) + np.int32(1))
    return (units & np.int32(1023)) <= np.int32(2)


@compiled
def _interpolate_line(
    padded: np.ndarray, d: np.float32, is_bicubic: bool, out: np.ndarray, is_near: np.ndarray
) -> None:
    """Values `d` pixels right of each third of `padded`, 0..255, decimals cut off as by Pillow.

    `is_near` becomes 1 where float32 may have taken the neighbouring integer, else 0. Between equal
    values it takes none.
    """
    low, high = np.float32(0), np.float32(255)
    two = np.float32(2)
    for i in range(len(out)):
        v1, v2, v3, v4 = padded[i], padded[i + 3], padded[i + 6], padded[i + 9]
        if is_bicubic:
            p3 = two * (v1 - v2) + v3 - v4
            value = v2 + d * ((v3 - v1) + d * (p3 + d * (-v1 + v2 - v3 + v4)))
        else:
            value = v2 + (v3 - v2) * d
        out[i] = np.uint8(np.int32(min(max(value, low), high)))
        is_near[i] = _is_near_integer(value) & ((v1 != v2) | (v2 != v3) | (v3 != v4))


@compiled
def _exact_in_line(line: np.ndarray, i: int, shift: float, is_bicubic: bool) -> int:
    """What Pillow has at entry `i` of the row (W * 3,) uint8 that moves left by `shift` pixels."""
    x, channel = divmod(i, 3)
    source = ((x + 0.5) + shift) - 0.5
    column = math.floor(source)
    last = len(line) // 3 - 1
    v1 = float(line[3 * min(max(column - 1, 0), last) + channel])
    v2 = float(line[3 * min(max(column, 0), last) + channel])
    v3 = float(line[3 * min(max(column + 1, 0), last) + channel])
    v4 = float(line[3 * min(max(column + 2, 0), last) + channel])
    return _to_uint8(_between(v1, v2, v3, v4, source - column, is_bicubic))


@compiled
def _range_inside(width: int, shift: float) -> Tuple[int, int]:
    """First and last + 1 of the x whose (x + 1/2) + shift lies in [0, width), as float64 rounds."""
    first = min(max(math.ceil(-0.5 - shift) - 1, 0), width)
    while first < width and (first + 0.5) + shift < 0.0:
        first += 1
    last = max(min(math.ceil(width - 0.5 - shift) + 1, width), first)
    while last > first and (last - 0.5) + shift >= width:
        last -= 1
    return first, last


@compiled
def shift_rows(
    image: np.ndarray, shifts: np.ndarray, fill: Tuple[int, int, int], is_bicubic: bool
) -> np.ndarray:
    """Move every row to the left by its own number of pixels.

    Args:
        image: (H, W, 3) uint8.
        shifts: (H,) float64, pixels.
        fill: RGB, 0..255, for what comes in from outside.
        is_bicubic: the cubic with a = -1 of Pillow's warps; else bilinear.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    flat = image.reshape(height, width * 3)
    result = np.empty((height, width * 3), np.uint8)
    padded = np.empty(width * 3 + 12, np.float32)
    is_near = np.empty(width * 3, np.uint8)
    for y in range(height):
        first, last = _range_inside(width, shifts[y])
        for x in range(width):
            if x < first or x >= last:
                for channel in range(3):
                    result[y, 3 * x + channel] = fill[channel]
        if first == last:
            continue
        _pad_line(flat[y], padded)
        base = math.floor(shifts[y])
        inside = padded[3 * (base + 1 + first) : 3 * (base + 1 + last) + 9]
        fraction = np.float32(shifts[y] - base)
        line = result[y, 3 * first : 3 * last]
        _interpolate_line(inside, fraction, is_bicubic, line, is_near)
        for i in range(len(line)):
            if is_near[i]:
                line[i] = _exact_in_line(flat[y], 3 * first + i, shifts[y], is_bicubic)
    return result.reshape(height, width, 3)


@compiled
def _taps_of_line(
    source: np.ndarray, is_bicubic: bool, places: np.ndarray, weights: np.ndarray
) -> None:
    """Of places (N,) float64: the pixel left of each (N,) int32, and the weights (4, N) float32 of
    the neighbours -1, 0, 1, 2 of that."""
    one, two = np.float32(1), np.float32(2)
    for i in range(len(source)):
        place = math.floor(source[i] - 0.5)
        places[i] = np.int32(place)
        d = np.float32(source[i] - 0.5 - place)
        if is_bicubic:
            weights[0, i] = d * (-one + d * (two - d))
            weights[1, i] = one + d * d * (d - two)
            weights[2, i] = d * (one + d * (one - d))
            weights[3, i] = d * d * (d - one)
        else:
            weights[0, i] = weights[3, i] = np.float32(0)
            weights[1, i], weights[2, i] = one - d, d


@compiled
def _to_bytes(values: np.ndarray, result: np.ndarray, is_near: np.ndarray) -> None:
    """0..255, decimals cut off; `is_near` becomes 1 where that may be the neighbouring integer."""
    low, high = np.float32(0), np.float32(255)
    for i in range(len(values)):
        result[i] = np.uint8(np.int32(min(max(values[i], low), high)))
        is_near[i] = _is_near_integer(values[i])


@compiled
def _clamped(place: int, size: int) -> int:
    return min(max(place, 0), size - 1)


@compiled
def _weighted_sum(
    image: np.ndarray, row: int, column: int, down: Taps, across: Taps
) -> Tuple[np.float32, np.float32, np.float32]:
    """Red, green and blue of the 4x4 neighbours -1, 0, 1, 2 of a pixel; those outside repeat."""
    height, width = image.shape[:2]
    red = green = blue = np.float32(0)
    for j in range(4):
        y = _clamped(row - 1 + j, height)
        for k in range(4):
            x = _clamped(column - 1 + k, width)
            weight = down[j] * across[k]
            red += weight * np.float32(image[y, x, 0])
            green += weight * np.float32(image[y, x, 1])
            blue += weight * np.float32(image[y, x, 2])
    return red, green, blue


@compiled
def _exact_between(
    image: np.ndarray, row: int, source_x: float, channel: int, is_bicubic: bool
) -> float:
    """What Pillow has right of the pixel centre left of `source_x`; rows outside repeat."""
    height, width = image.shape[:2]
    line, column = image[_clamped(row, height)], math.floor(source_x - 0.5)
    v1 = float(line[_clamped(column - 1, width), channel])
    v2 = float(line[_clamped(column, width), channel])
    v3 = float(line[_clamped(column + 1, width), channel])
    v4 = float(line[_clamped(column + 2, width), channel])
    return _between(v1, v2, v3, v4, source_x - 0.5 - column, is_bicubic)


@compiled
def _exact_in_square(
    image: np.ndarray, source_y: float, source_x: float, channel: int, is_bicubic: bool
) -> int:
    """What Pillow has at a place of a channel."""
    row = math.floor(source_y - 0.5)
    v1 = _exact_between(image, row - 1, source_x, channel, is_bicubic)
    v2 = _exact_between(image, row, source_x, channel, is_bicubic)
    v3 = _exact_between(image, row + 1, source_x, channel, is_bicubic)
    v4 = _exact_between(image, row + 2, source_x, channel, is_bicubic)
    return _to_uint8(_between(v1, v2, v3, v4, source_y - 0.5 - row, is_bicubic))


@compiled
def _range_of_line(xs: np.ndarray, ys: np.ndarray, width: int, height: int) -> Tuple[int, int]:
    """First and last + 1 of the places of a line that are inside the image."""
    first, last = 0, len(xs)
    while first < last and not (0.0 <= xs[first] < width and 0.0 <= ys[first] < height):
        first += 1
    while last > first and not (0.0 <= xs[last - 1] < width and 0.0 <= ys[last - 1] < height):
        last -= 1
    return first, last


@compiled
def _values_between(
    image: np.ndarray,
    places: Tuple[np.ndarray, np.ndarray],
    weights: Tuple[np.ndarray, np.ndarray],
    part: Tuple[int, int],
    values: np.ndarray,
) -> None:
    """Writes the colours (N, 3) float32 of part of a line, as of `_taps_of_line` for x and y."""
    height, width = image.shape[:2]
    step = image.strides[0]
    (columns, rows), (across, down) = places, weights
    for x in range(part[0], part[1]):
        row, column = np.int64(rows[x]), np.int64(columns[x])
        wide = (across[0, x], across[1, x], across[2, x], across[3, x])
        high = (down[0, x], down[1, x], down[2, x], down[3, x])
        if 1 <= column < width - 2 - BEYOND and 1 <= row < height - 2:
            at = (row - 1) * step + 3 * (column - 1)
            value = weighted_square(image, at, step, high, wide)
        else:
            value = _weighted_sum(image, row, column, high, wide)
        values[x, 0], values[x, 1], values[x, 2] = value


@compiled
def warp_affine(
    image: np.ndarray,
    matrix: Tuple[float, float, float, float, float, float],
    fill: Tuple[int, int, int],
    is_bicubic: bool,
) -> np.ndarray:
    """The image where the pixel centre (x, y) shows (a x + b y + c, d x + e y + f) of `image`.

    Args:
        image: (H, W, 3) uint8.
        matrix: (a, b, c, d, e, f).
        fill: RGB, 0..255, for what comes in from outside.
        is_bicubic: the cubic with a = -1 of Pillow's warps; else bilinear.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    a, b, c, d, e, f = matrix
    result = np.empty_like(image)
    xs, ys = np.empty(width, np.float64), np.empty(width, np.float64)
    columns, rows = np.empty(width, np.int32), np.empty(width, np.int32)
    across, down = np.empty((4, width), np.float32), np.empty((4, width), np.float32)
    values, is_near = np.empty((width, 3), np.float32), np.empty(3 * width, np.uint8)
    for y in range(height):
        for x in range(width):
            xs[x] = a * (x + 0.5) + b * (y + 0.5) + c
            ys[x] = d * (x + 0.5) + e * (y + 0.5) + f
        first, last = _range_of_line(xs, ys, width, height)
        _taps_of_line(xs, is_bicubic, columns, across)
        _taps_of_line(ys, is_bicubic, rows, down)
        _values_between(image, (columns, rows), (across, down), (first, last), values)
        line = result[y].reshape(-1)
        _to_bytes(values.reshape(-1), line, is_near)
        for i in range(3 * first, 3 * last):
            if is_near[i]:
                x = i // 3
                line[i] = _exact_in_square(image, ys[x], xs[x], i - 3 * x, is_bicubic)
        for x in range(first):
            result[y, x, 0], result[y, x, 1], result[y, x, 2] = fill
        for x in range(last, width):
            result[y, x, 0], result[y, x, 1], result[y, x, 2] = fill
    return result
