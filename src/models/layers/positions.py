"""Position embeddings."""

from __future__ import annotations

from typing import Callable, Tuple

import numpy as np

# (offset from the position below, weight of each output) pairs, from the distance to that position.
_Weights = Tuple[Tuple[int, np.ndarray], ...]


def sinusoidal_embedding(length: int, dim: int) -> np.ndarray:
    """Fixed table (1, length, dim), float32 (Vaswani et al. 2017, section 3.5).

    Channels 2i and 2i+1 of position p hold sin and cos of p / 10000^(2i / dim).
    """
    channel = np.arange(dim)
    angle = np.arange(length)[:, None] / 10000.0 ** (2 * (channel // 2) / dim)
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return table[None].astype(np.float32)


def resize_positions(
    table: np.ndarray, grid: Tuple[int, int], *, num_prefix_tokens: int, mode: str
) -> np.ndarray:
    """A learnt table for another grid of patches, (1, P + n n, C) -> (1, P + rows columns, C).

    The arithmetic is that of torch.nn.functional.interpolate with align_corners False, as in the
    authors' code. It does not smooth when the grid shrinks; timm's resampling does.

    Args:
        table: float; the first P tokens (class, distillation) have no place and are kept.
        grid: (rows, columns) of the new one; the old one is a square.
        num_prefix_tokens: P.
        mode: `bicubic` (DeiT) or `bilinear` (CCT).

    Raises:
        ValueError: the old grid is no square, or an unknown mode.
    """
    filters = {"bicubic": _cubic_weights, "bilinear": _linear_weights}
    if mode not in filters:
        raise ValueError(f"mode {mode!r}: expected 'bicubic' or 'bilinear'")
    prefix, places = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    side = round(places.shape[1] ** 0.5)
    if side * side != places.shape[1]:
        raise ValueError(
            f"positions {tuple(table.shape)}: {places.shape[1]} places after {num_prefix_tokens} "
            "prefix tokens are no square grid"
        )
    square = places.astype(np.float64).reshape(side, side, -1)
    down, across = (_resampling(side, size, filters[mode]) for size in grid)
    resized = np.einsum("rh,cw,hwd->rcd", down, across, square, optimize=True)
    resized = resized.reshape(1, -1, table.shape[2])
    return np.concatenate([prefix, resized], axis=1).astype(np.float32)


def _resampling(old: int, new: int, weights: Callable[[np.ndarray], _Weights]) -> np.ndarray:
    """(new, old) matrix: each output position as a mixture of input positions."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for offset, share in weights(centre - first):
        np.add.at(matrix, (np.arange(new), np.clip(first + offset, 0, old - 1)), share)
    return matrix


def _linear_weights(t: np.ndarray) -> _Weights:
    return (0, 1 - t), (1, t)


def _cubic_weights(t: np.ndarray) -> _Weights:
    """Keys 1981 with a = -0.75, which is PyTorch's choice."""
    a = -0.75

    def near(x: np.ndarray) -> np.ndarray:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: np.ndarray) -> np.ndarray:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return (-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))
