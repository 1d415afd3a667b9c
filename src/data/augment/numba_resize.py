"""The inner loops of the resize, compiled.

It has the pixels of Pillow (`Resample.c`): weights of 22 bits, 8 bits between the passes, and its
order of the passes.

H, W height and width in pixels; images are (H, W, 3) uint8, contiguous.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from .compiled import compiled
from .transposing import columns_of, rows_of

# Pillow's 32 - 8 - 2.
_PRECISION_BITS = 22
Box = Tuple[int, int, int, int]


@compiled
def _filter_weight(x: float, is_bicubic: bool) -> float:
    x = abs(x)
    if not is_bicubic:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@compiled
def _inputs_of(output: int, in_size: int, out_size: int, is_bicubic: bool) -> Tuple[int, int]:
    """First and last + 1 of the inputs that an output is the weighted sum of."""
    scale = in_size / out_size
    center = (output + 0.5) * scale
    support = (2.0 if is_bicubic else 1.0) * max(scale, 1.0)
    return max(int(center - support + 0.5), 0), min(int(center + support + 0.5), in_size)


@compiled
def inputs_between(
    first: int, last: int, in_size: int, out_size: int, is_bicubic: bool
) -> Tuple[int, int]:
    """First and last + 1 of the inputs that outputs first..last-1 see."""
    return (
        _inputs_of(first, in_size, out_size, is_bicubic)[0],
        _inputs_of(last - 1, in_size, out_size, is_bicubic)[1],
    )


@compiled
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
        low, high = _inputs_of(first + i, in_size, out_size, is_bicubic)
        count = high - low
        total = 0.0
        for k in range(count):
            reals[k] = _filter_weight((k + low - center + 0.5) * (1.0 / filter_scale), is_bicubic)
            total += reals[k]
        for k in range(count):
            real = reals[k] * (1.0 / total) * (1 << _PRECISION_BITS)
            weights[i, k] = int(real - 0.5) if real < 0 else int(real + 0.5)
        bounds[i, 0], bounds[i, 1] = low, count
    return bounds, weights


@compiled
def _weighted_lines(lines: np.ndarray, bounds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of lines: (N, L) uint8 -> (len(bounds), L) uint8."""
    width = lines.shape[1]
    result = np.empty((len(bounds), width), np.uint8)
    sums = np.empty(width, np.int32)
    for y in range(len(bounds)):
        sums[:] = 1 << (_PRECISION_BITS - 1)
        for k in range(bounds[y, 1]):
            weight = weights[y, k]
            line = lines[bounds[y, 0] + k]
            for x in range(width):
                sums[x] += np.int32(line[x]) * weight
        for x in range(width):
            result[y, x] = min(max(sums[x] >> _PRECISION_BITS, 0), 255)
    return result


@compiled
def _resample_columns(
    flat: np.ndarray, box: Box, bounds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The horizontal pass over the box (top, left, height, width) of an image (H, W * 3)."""
    top, left, height, width = box
    columns = columns_of(flat, top, top + height, left, left + width)
    sums = _weighted_lines(columns.view(np.uint8), bounds, weights)
    return rows_of(sums.view(np.uint32))


@compiled
def resize_box(
    image: np.ndarray,
    box: Box,
    size: Tuple[int, int],
    part: Box,
    origin: Tuple[int, int],
    is_bicubic: bool,
    has_pillows_order: bool,
) -> np.ndarray:
    """Part of a box of the image, resized with antialiasing; nothing outside the box is seen.

    Args:
        image: (H, W, 3) uint8, or as much of it as the part sees.
        box: (top, left, height, width), pixels of the whole image.
        size: (width, height) of the whole result, pixels.
        part: (left, top, right, bottom) of the result that is wanted, inside it.
        origin: (top, left) of what there is of the image.
        is_bicubic: Keys' cubic with a = -0.5; else bilinear.
        has_pillows_order: the vertical pass comes first where Pillow 13 has it first; both passes
            round to 8 bits, so the order shows. Earlier versions begin with the horizontal one.

    Returns:
        (bottom - top, right - left, 3) uint8.
    """
    top, left, height, width = box
    out_width, out_height = size
    x0, y0, x1, y1 = part
    flat = image.reshape(image.shape[0], image.shape[1] * 3)
    across, across_weights = _weights(width, out_width, x0, x1, is_bicubic)
    down, down_weights = _weights(height, out_height, y0, y1, is_bicubic)
    is_shrunk = height > out_height and height - out_height > 2 * (width - out_width)
    # What no output needs is left out.
    first_y, first_x = down[0, 0], across[0, 0]
    rows = down[-1, 0] + down[-1, 1] - first_y
    columns = across[-1, 0] + across[-1, 1] - first_x
    down[:, 0] -= first_y
    across[:, 0] -= first_x
    y, x = top + first_y - origin[0], left + first_x - origin[1]
    if has_pillows_order and is_shrunk:
        lines = np.ascontiguousarray(flat[y : y + rows, 3 * x : 3 * (x + columns)])
        lines = _weighted_lines(lines, down, down_weights)
        lines = _resample_columns(lines, (0, 0, y1 - y0, columns), across, across_weights)
    else:
        lines = _resample_columns(flat, (y, x, rows, columns), across, across_weights)
        lines = _weighted_lines(lines, down, down_weights)
    return lines.reshape(y1 - y0, x1 - x0, 3)
