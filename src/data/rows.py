"""The samples of a batch, one after the other, and the buffer that holds them."""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import Any, Callable, Deque, NamedTuple, Optional, Sequence

import numpy as np

from .image_sums import image_digest, label_number
from .pixel_budget import PixelsInFlight
from .sampler import Key
from .samples import BadSample
from .slow_images import Slowest


class Rows(NamedTuple):
    """Samples of one batch, one after the other.

    Attributes:
        image: (B, H, W, C) uint8.
        label: (B,) int32; of images with several labels (B, K), 1 for each label, else 0.
        boxes: (B, R * 7) float32 of random erasing.
        digests: (B,) uint32, see `image_digest`.
        is_written: (B,) uint8, 1 for each sample that is there.
        bad: samples that could not be read.
        slowest: the sample that took longest.
        pixels: of all images.
        lost: what became of a worker process that has died; the samples are made without it.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    digests: np.ndarray
    is_written: np.ndarray
    bad: Sequence[BadSample] = ()
    slowest: Slowest = Slowest()
    pixels: int = 0
    lost: Optional[str] = None


# (key, row, image, label, boxes): writes one sample into that row of the batch.
Fill = Callable[[Key, int, np.ndarray, np.ndarray, np.ndarray], Optional[BadSample]]


class Shape(NamedTuple):
    """Of a batch: B, H = W, R * 7, C, and K of images with several labels, else 0."""

    batch_size: int
    image_size: int
    box_columns: int
    channels: int = 3
    label_columns: int = 0

    @property
    def num_bytes(self) -> int:
        """Of all its arrays."""
        numbers = max(1, self.label_columns) + 1 + self.box_columns
        return self.batch_size * (self.image_size**2 * self.channels + 1 + 4 * numbers)

    def split(self, buffer: Any) -> Rows:
        """The arrays in a buffer of `num_bytes`."""
        count, side, columns, channels, label_columns = self
        label_shape = (count, label_columns) if label_columns else (count,)
        boxes_at = 4 * count * max(1, label_columns)
        digests_at = boxes_at + 4 * count * columns
        image_at = digests_at + 4 * count
        flat = np.frombuffer(buffer, np.uint8)
        return Rows(
            flat[image_at : self.num_bytes - count].reshape(count, side, side, channels),
            flat[:boxes_at].view(np.int32).reshape(label_shape),
            flat[boxes_at:digests_at].view(np.float32).reshape(count, columns),
            flat[digests_at:image_at].view(np.uint32),
            flat[self.num_bytes - count : self.num_bytes],
        )


class Buffers:
    """Memory for batches, used again once nothing reads it: fresh pages have to be cleared.

    An array of a batch, and a Tensor that shares its memory, keep it from that as long as they
    live.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._free: Deque[memoryview] = deque()

    def take(self) -> np.ndarray:
        """(num_bytes,) uint8 with whatever it held last."""
        memory = self._free.pop() if self._free else np.empty(self._num_bytes, np.uint8).data
        # The base of all arrays of the batch, so it ends with the last of them: NumPy would have
        # named an array as the base in its place, and names no memoryview.
        batch = np.frombuffer(memory, np.uint8)
        weakref.finalize(batch, self._free.append, memory).atexit = False
        return batch


class Filled(NamedTuple):
    """Of samples that a worker wrote one after the other.

    Attributes:
        pixels: of all their images.
    """

    bad: Sequence[BadSample]
    slowest: Slowest
    pixels: int


def fill_rows(fill: Fill, rows: Rows, start: int, keys: Sequence[Key]) -> Filled:
    """Writes consecutive samples from row `start` on."""
    bad, slowest, pixels = [], Slowest(), 0
    for row, key in enumerate(keys, start):
        began = time.perf_counter()
        with PixelsInFlight() as share:
            found = fill(key, row, rows.image[row], rows.label[row : row + 1], rows.boxes[row])
        slowest = max(slowest, Slowest(time.perf_counter() - began, key.sample))
        pixels += share.pixels
        if found is not None:
            bad.append(found)
        rows.digests[row] = image_digest(share.content, label_number(rows.label[row]))
        rows.is_written[row] = 1
    return Filled(bad, slowest, pixels)
