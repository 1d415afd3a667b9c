"""Threads or processes that fill batches, in the order of the keys.

Which worker makes which sample, and when, changes nothing: a sample is a function of its key. The
workers write into the batch itself, so nothing is copied when it is complete (threads), or once,
out of shared memory (processes).
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .sampler import Key
from .samples import BadSample

# Finished or unfinished batches beside the one that is read.
_BATCHES_AHEAD = 2
# Samples that a worker takes at a time.
_SAMPLES_PER_TASK = 8


class Rows(NamedTuple):
    """Samples of one batch, one after the other.

    Attributes:
        image: (B, H, W, 3) uint8.
        label: (B,) int32.
        boxes: (B, R * 7) float32 of random erasing.
        bad: samples that could not be read.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    bad: Sequence[BadSample] = ()


# (key, row, image, label, boxes): writes one sample into that row of the batch.
Fill = Callable[[Key, int, np.ndarray, np.ndarray, np.ndarray], Optional[BadSample]]


class Shape(NamedTuple):
    """Of a batch: B, H = W, and R * 7."""

    batch_size: int
    image_size: int
    box_columns: int

    @property
    def num_bytes(self) -> int:
        """Of all its arrays."""
        return self.batch_size * (self.image_size**2 * 3 + 4 + 4 * self.box_columns)

    def split(self, buffer: Any) -> Rows:
        """The arrays in a buffer of `num_bytes`."""
        count, side, columns = self
        boxes_at = 4 * count
        image_at = boxes_at + 4 * count * columns
        flat = np.frombuffer(buffer, np.uint8)
        return Rows(
            flat[image_at : self.num_bytes].reshape(count, side, side, 3),
            flat[:boxes_at].view(np.int32),
            flat[boxes_at:image_at].view(np.float32).reshape(count, columns),
        )


def fill_rows(fill: Fill, rows: Rows, start: int, keys: Sequence[Key]) -> List[BadSample]:
    """Writes consecutive samples from row `start` on."""
    found = [
        fill(key, row, rows.image[row], rows.label[row : row + 1], rows.boxes[row])
        for row, key in enumerate(keys, start)
    ]
    return [bad for bad in found if bad is not None]


def batches_of(
    fill: Fill, keys: Iterator[Key], shape: Shape, *, num_workers: int, in_processes: bool
) -> Iterator[Rows]:
    """Whole batches of the samples of `keys`, in order; an incomplete last one is dropped.

    Raises:
        Exception: what `fill` raised for a sample, at its batch's turn.
    """
    pool: Any = _Threads(fill, num_workers)
    if in_processes:
        pool = _Processes(fill, shape, num_workers)
    waiting: Deque[Tuple[Any, List[Future]]] = deque()
    groups = iter(lambda: list(itertools.islice(keys, shape.batch_size)), [])
    try:
        while True:
            while len(waiting) <= _BATCHES_AHEAD:
                group = next(groups, [])
                if len(group) < shape.batch_size:
                    break
                buffer = pool.allocate(shape)
                tasks = [
                    pool.submit(buffer, start, group[start : start + _SAMPLES_PER_TASK])
                    for start in range(0, len(group), _SAMPLES_PER_TASK)
                ]
                waiting.append((buffer, tasks))
            if not waiting:
                return
            buffer, tasks = waiting.popleft()
            bad = [sample for task in tasks for sample in task.result()]
            yield pool.collect(buffer, shape)._replace(bad=bad)
    finally:
        pool.close()


class _Threads:
    """Workers in this process: decoding and the compiled loops release the interpreter's lock."""

    def __init__(self, fill: Fill, num_workers: int) -> None:
        self._fill = fill
        self._executor: Executor = ThreadPoolExecutor(num_workers, "image-worker")

    def allocate(self, shape: Shape) -> Rows:
        return shape.split(np.empty(shape.num_bytes, np.uint8))

    def submit(self, rows: Rows, start: int, keys: Sequence[Key]) -> Future:
        return self._executor.submit(fill_rows, self._fill, rows, start, keys)

    def collect(self, rows: Rows, shape: Shape) -> Rows:
        return rows

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class _Processes:
    """Workers in processes of their own, which write into shared memory."""

    def __init__(self, fill: Fill, shape: Shape, num_workers: int) -> None:
        # Spawned: a fork would copy the locks of the framework's threads, some of them held.
        self._executor = ProcessPoolExecutor(
            num_workers, multiprocessing.get_context("spawn"), _start_worker, (fill, shape)
        )
        self._free: List[SharedMemory] = []
        self._all: List[SharedMemory] = []

    def allocate(self, shape: Shape) -> SharedMemory:
        if not self._free:
            self._all.append(SharedMemory(create=True, size=shape.num_bytes))
            return self._all[-1]
        return self._free.pop()

    def submit(self, memory: SharedMemory, start: int, keys: Sequence[Key]) -> Future:
        return self._executor.submit(_fill_shared, memory.name, start, keys)

    def collect(self, memory: SharedMemory, shape: Shape) -> Rows:
        assert memory.buf is not None
        copy = np.frombuffer(memory.buf, np.uint8)[: shape.num_bytes].copy()
        self._free.append(memory)
        return shape.split(copy)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for memory in self._all:
            memory.close()
            memory.unlink()


# What a worker process was started with, and the shared memory it has opened.
_WORKER: Dict[str, Any] = {}


def _start_worker(fill: Fill, shape: Shape) -> None:
    _WORKER.update(fill=fill, shape=shape)


def _fill_shared(name: str, start: int, keys: Sequence[Key]) -> List[BadSample]:
    if name not in _WORKER:
        _WORKER[name] = SharedMemory(name=name)
    rows = _WORKER["shape"].split(_WORKER[name].buf)
    return fill_rows(_WORKER["fill"], rows, start, keys)
