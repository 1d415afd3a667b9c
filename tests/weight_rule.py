"""Weights from a rule, so that two implementations can be compared without storing weights.

A tensor depends on its name and shape only; names are those of the reference implementation. The
scale is realistic: activations neither vanish nor explode, norms and biases are not trivial.
"""

from __future__ import annotations

import zlib
from typing import List, Sequence, Tuple

import numpy as np


def fill(name: str, shape: Sequence[int]) -> np.ndarray:
    """float32 array of `shape` for the tensor `name` (`weight` and `bias` of norms included).

    Running means are those of activated noise, running variances positive and around 1, layer
    scales (`gamma`) between 0.1 and 1.
    """
    rng = np.random.Generator(np.random.Philox(key=[zlib.crc32(name.encode()), 0]))
    noise = rng.standard_normal(tuple(shape))
    if len(shape) <= 1 and name.endswith("weight"):
        return (1.0 + 0.2 * noise).astype(np.float32)
    if name.endswith("running_mean"):
        return (0.35 + 0.1 * noise).astype(np.float32)
    if name.endswith("running_var"):
        return np.exp(0.3 * noise).astype(np.float32)
    if name.endswith("gamma"):
        return np.clip(0.4 + 0.2 * noise, 0.1, 1.0).astype(np.float32)
    if len(shape) <= 1:
        return (0.1 * noise).astype(np.float32)
    if not name.endswith("weight"):  # tables of positions, class tokens
        return (0.2 * noise).astype(np.float32)
    return (noise / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def images(batch: int, side: int) -> np.ndarray:
    """(batch, 3, side, side) float32, standard normal, the same for everyone."""
    rng = np.random.Generator(np.random.Philox(key=[side, batch]))
    return rng.standard_normal((batch, 3, side, side)).astype(np.float32)


def bright_batches(
    steps: int, *, batch: int, side: int, classes: int
) -> List[Tuple[np.ndarray, np.ndarray]]:
    """`steps` times (batch, side, side, 3) uint8 images whose brightness tells their class."""
    rng = np.random.Generator(np.random.Philox(key=[side, steps]))
    found = []
    for _ in range(steps):
        label = rng.integers(classes, size=batch)
        image = rng.normal(60 + 14 * label[:, None, None, None], 40, (batch, side, side, 3))
        found.append((np.clip(image, 0, 255).astype(np.uint8), label.astype(np.int32)))
    return found
