"""Calls the compiled kernels directly, with NumPy arrays, as MindSpore would."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np


def call(
    library: Path,
    name: str,
    inputs: Sequence[np.ndarray],
    shapes: Sequence[Tuple[int, ...]],
    dtype: str = "",
) -> Tuple[np.ndarray, ...]:
    """Outputs of `shapes`, filled with NaN before the call so that a gap shows.

    Inputs are float32, but for those of int32 and uint8. `dtype`: what the kernel is told of all.
    """
    kinds = [x.dtype if x.dtype in (np.int32, np.uint8) else np.float32 for x in inputs]
    arrays = [np.ascontiguousarray(x, kind) for x, kind in zip(inputs, kinds)]
    arrays += [np.full(shape, np.nan, np.float32) for shape in shapes]
    status = call_status(library, name, arrays, dtype)
    assert status == 0, f"{name}: status {status}"
    return tuple(arrays[len(inputs) :])


def call_status(library: Path, name: str, arrays: Sequence[np.ndarray], dtype: str) -> int:
    count = len(arrays)
    dims = [(ctypes.c_int64 * max(1, x.ndim))(*x.shape) for x in arrays]
    function = getattr(ctypes.CDLL(str(library)), name)
    return function(
        ctypes.c_int(count),
        (ctypes.c_void_p * count)(*[x.ctypes.data for x in arrays]),
        (ctypes.c_int * count)(*[x.ndim for x in arrays]),
        (ctypes.POINTER(ctypes.c_int64) * count)(
            *[ctypes.cast(d, ctypes.POINTER(ctypes.c_int64)) for d in dims]
        ),
        (ctypes.c_char_p * count)(*[(dtype or x.dtype.name).encode() for x in arrays]),
        None,
        None,
    )
