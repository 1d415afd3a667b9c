"""Sums of what a run has seen: 768 bytes by which changed images are found, and which they are.

Every image has a digest of 32 bits, of its file as it is and of its label. It is added (XOR) to one
cell of each of six rows; its position in the run says to which, and what it is multiplied by
before. Who reads the same images again has the same sums. Where one image is another, its six cells
differ, all by the same bits; so the position follows from the sums, and from the position the file.
Several are found one after the other (the decoding of an invertible Bloom lookup table: Goodrich
and Mitzenmacher, arXiv 1101.2245).
"""

from __future__ import annotations

import base64
import zlib
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

ROWS, CELLS = 6, 32
_CELL_BITS = 5
# Where two changed images share a cell, the other rows still tell them apart.
_ENOUGH_ROWS = 5


def image_digest(content: int, label: int) -> int:
    """32 bits of an image by `Share.content`, and its label."""
    return (content ^ content >> 32 ^ label * 0x9E3779B1) & 0xFFFFFFFF


def label_number(label: np.ndarray) -> int:
    """What stands for a label, () int32, or for several, (K,) int32, in a digest."""
    return int(label) if label.ndim == 0 else zlib.crc32(label.tobytes())


class ImageSums:
    """The sums of the images of one rank.

    Args:
        batch_size: images of a batch.
    """

    def __init__(self, batch_size: int, rank: int, world_size: int) -> None:
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._sums = np.zeros((ROWS, CELLS), np.uint32)

    def add(self, number: int, digests: np.ndarray) -> None:
        """Adds a batch.

        Args:
            number: of the batch among this rank's in the run, from 0.
            digests: (B,) uint32.
        """
        own = np.arange(number * self._batch_size, (number + 1) * self._batch_size)
        positions = own * self._world_size + self._rank
        cells = cells_of(positions) + CELLS * np.arange(ROWS)[:, None]
        # Two images that change places would differ by the same bits otherwise.
        placed = digests * (_mixed(positions) >> np.uint64(32) | np.uint64(1)).astype(np.uint32)
        np.bitwise_xor.at(self._sums.reshape(-1), cells.reshape(-1), np.tile(placed, ROWS))

    def take(self) -> np.ndarray:
        """(ROWS, CELLS) uint32 of all since the last call, and starts anew."""
        taken, self._sums = self._sums, np.zeros_like(self._sums)
        return taken


def cells_of(positions: np.ndarray) -> np.ndarray:
    """(ROWS, N) int64: the cell of each row that images at (N,) positions of the run belong to."""
    shifts = np.arange(ROWS, dtype=np.uint64) * np.uint64(_CELL_BITS)
    return ((_mixed(positions) >> shifts[:, None]) & np.uint64(CELLS - 1)).astype(np.int64)


def _mixed(positions: np.ndarray) -> np.ndarray:
    """(N,) uint64 by splitmix64 (Steele, Lea, Flood 2014), whose bits are all as good."""
    mixed = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ mixed >> np.uint64(31)


def to_text(sums: np.ndarray) -> str:
    """(ROWS, CELLS) uint32 as base64, 1,024 characters."""
    return base64.b64encode(sums.astype("<u4").tobytes()).decode()


def from_text(text: str) -> np.ndarray:
    """The sums that `to_text` wrote.

    Raises:
        ValueError: a text that it did not write.
    """
    content = base64.b64decode(text.encode(), validate=True)
    if len(content) != 4 * ROWS * CELLS:
        raise ValueError(f"{len(content)} bytes instead of {4 * ROWS * CELLS}")
    return np.frombuffer(content, "<u4").reshape(ROWS, CELLS)


class Changed(NamedTuple):
    """Positions of images that are others, and whether these are all."""

    positions: List[int]
    are_all: bool


def find_changed(before: np.ndarray, now: np.ndarray, interval: Tuple[int, int]) -> Changed:
    """Which images have other digests, by two sums of the same positions.

    Args:
        interval: [start, end) of the positions.
    """
    left = before ^ now
    rows = np.arange(ROWS)
    positions = np.arange(*interval)
    cells = cells_of(positions)
    is_possible = (left[rows[:, None], cells] != 0).sum(axis=0) >= _ENOUGH_ROWS
    positions, cells = positions[is_possible], cells[:, is_possible]
    found: List[int] = []
    while (place := _surest(left[rows[:, None], cells])) is not None:
        index, difference = place
        left[rows, cells[:, index]] ^= difference
        found.append(int(positions[index]))
        positions, cells = np.delete(positions, index), np.delete(cells, index, axis=1)
    return Changed(sorted(found), not left.any())


def _surest(differing: np.ndarray) -> Optional[Tuple[int, np.uint32]]:
    """Whose cells differ by the same bits in most rows, and by which; None: nobody's.

    Args:
        differing: (ROWS, N) uint32.
    """
    agreeing = (differing[:, None] == differing[None]).sum(axis=1) * (differing != 0)  # (ROWS, N)
    most = agreeing.max(axis=0, initial=0)
    for enough in range(ROWS, _ENOUGH_ROWS - 1, -1):
        candidates = np.flatnonzero(most >= enough)
        bits = differing[agreeing[:, candidates].argmax(axis=0), candidates]
        # Of two that one image could have been, neither is named.
        values, firsts, counts = np.unique(bits, return_index=True, return_counts=True)
        if (counts == 1).any():
            only = int((counts == 1).argmax())
            return int(candidates[firsts[only]]), values[only]
    return None
