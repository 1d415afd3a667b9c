"""Transposed and mirrored images, in squares of 4 by 4 pixels.

Loops over bytes of three channels are compiled into moves of single bytes, a square into shuffles
of four vectors.

H, W height and width in pixels; images are (H, W, 3) uint8. RGB0 is a pixel in four bytes.
"""

from __future__ import annotations

from typing import Any, List, Optional

import numpy as np
from numba import types
from numba.extending import intrinsic

from .compiled import compiled
from .vectors import BEYOND, SPREAD, Emitter

_SIDE = 4
# Rows of squares that are read together: what is written fills a cache line.
_BAND = 4 * _SIDE
# Orders of a vector's bytes, 16 is a zero: RGB0 -> RGB, and four pixels from right to left.
_PACKED = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 16, 16, 16]
_TURNED = [9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2, 16, 16, 16, 16]


def _square_mover(before: Optional[List[int]], after: Optional[List[int]]) -> Any:
    """A function that transposes a square from bytes of one array to bytes of another.

    It takes (array, byte of the first row, bytes to the next) twice.

    Args:
        before: order of each row's bytes before it is transposed; None: as they are.
        after: of each row that is written.
    """

    @intrinsic
    def move(_: Any, source: Any, at: Any, step: Any, target: Any, to: Any, to_step: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emitter, kinds = Emitter(context, builder), signature.args
            source, at, step, target, to, to_step = values
            rows = []
            for _ in range(_SIDE):
                row = emitter.load(kinds[0], source, at)
                rows.append(emitter.moved(row, before) if before else row)
                at = emitter.add(at, step)
            for row in emitter.transposed(rows):
                row = emitter.moved(row, after) if after else row
                emitter.store(row, kinds[3], target, to)
                to = emitter.add(to, to_step)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate

    return move


_to_columns = _square_mover(SPREAD, None)
_to_rows = _square_mover(None, _PACKED)
_to_image = _square_mover(SPREAD, _PACKED)


def _emit_turn(_: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    """Four pixels from right to left; four bytes behind them are written over."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emitter, (source, at, target, to) = Emitter(context, builder), values
        turned = emitter.moved(emitter.load(signature.args[0], source, at), _TURNED)
        emitter.store(turned, signature.args[2], target, to)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


_turn_four: Any = intrinsic(_emit_turn)


@compiled
def _whole(length: int) -> int:
    """The largest multiple of a square's side, at least 0."""
    return max(length, 0) // _SIDE * _SIDE


@compiled
def columns_of(flat: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Part of an image (H, W * 3) uint8, transposed: (right - left, bottom - top) uint32 RGB0."""
    height, step = bottom - top, flat.strides[0]
    result = np.empty((right - left, height), np.uint32)
    whole_x = left + _whole(min(right, flat.shape[1] // 3 - BEYOND) - left)
    whole_y = top + _whole(height)
    for band in range(top, whole_y, _BAND):
        for x in range(left, whole_x, _SIDE):
            for y in range(band, min(band + _BAND, whole_y), _SIDE):
                to = 4 * ((x - left) * height + y - top)
                _to_columns(flat, y * step + 3 * x, step, result, to, 4 * height)
    for y in range(top, bottom):
        for x in range(whole_x if y < whole_y else left, right):
            red, green, blue = flat[y, 3 * x], flat[y, 3 * x + 1], flat[y, 3 * x + 2]
            result[x - left, y - top] = red | (green << 8) | (blue << 16)
    return result


@compiled
def rows_of(columns: np.ndarray) -> np.ndarray:
    """The way back: (W, H) uint32 RGB0 -> (H, W * 3) uint8."""
    width, height = columns.shape
    result = np.empty((height, width * 3), np.uint8)
    whole_x, whole_y = _whole(width - BEYOND), _whole(height)
    for band in range(0, whole_y, _BAND):
        for x in range(0, whole_x, _SIDE):
            for y in range(band, min(band + _BAND, whole_y), _SIDE):
                at, to = 4 * (x * height + y), 3 * (y * width + x)
                _to_rows(columns, at, 4 * height, result, to, 3 * width)
    for y in range(height):
        for x in range(whole_x if y < whole_y else 0, width):
            pixel = columns[x, y]
            result[y, 3 * x] = pixel & 255
            result[y, 3 * x + 1] = (pixel >> 8) & 255
            result[y, 3 * x + 2] = (pixel >> 16) & 255
    return result


@compiled
def transposed(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (W, H, 3) uint8."""
    height, width = image.shape[:2]
    result = np.empty((width, height, 3), np.uint8)
    step = image.strides[0]
    whole_x, whole_y = _whole(width - BEYOND), _whole(height - BEYOND)
    # What a square writes beyond its rows is written again by the next one below.
    for band in range(0, whole_x, _BAND):
        for y in range(0, whole_y, _SIDE):
            for x in range(band, min(band + _BAND, whole_x), _SIDE):
                _to_image(image, y * step + 3 * x, step, result, 3 * (x * height + y), 3 * height)
    for y in range(height):
        for x in range(whole_x if y < whole_y else 0, width):
            for channel in range(3):
                result[x, y, channel] = image[y, x, channel]
    return result


@compiled
def mirrored(image: np.ndarray) -> np.ndarray:
    """Left and right exchanged."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    step, end = image.strides[0], BEYOND + _whole(width - 2 * BEYOND)
    for y in range(height):
        # From left to right of the result: what is written behind four pixels is written again.
        for x in range(width - 1, end - 1, -1):
            for channel in range(3):
                result[y, width - 1 - x, channel] = image[y, x, channel]
        for x in range(end - _SIDE, 0, -_SIDE):
            _turn_four(image, y * step + 3 * x, result, 3 * (y * width + width - _SIDE - x))
        for x in range(min(BEYOND, width) - 1, -1, -1):
            for channel in range(3):
                result[y, width - 1 - x, channel] = image[y, x, channel]
    return result
