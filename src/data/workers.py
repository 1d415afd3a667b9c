"""Threads or processes that fill batches, in the order of the keys.

Which worker makes which sample, and when, changes nothing: a sample is a function of its key. The
workers write into the batch itself, so nothing is copied when it is complete (threads), or once,
out of shared memory (processes).
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Deque, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..args import Config
from ..runtime.memory import check_room, remedies
from .rows import Fill, Rows, Shape, fill_rows
from .sampler import Key
from .worker_processes import NoSharedMemory, Processes

# Finished or unfinished batches beside the one that is read.
_BATCHES_AHEAD = 2
# Samples that a worker takes at a time.
_SAMPLES_PER_TASK = 8


def check_room_for_batches(shape: Shape, config: Config) -> None:
    """Refuses batches that cannot fit, before the first of them is there.

    Raises:
        UserError: those that `batches_of` holds take more than this process may.
    """
    count = _BATCHES_AHEAD + 1
    check_room(
        count * shape.num_bytes,
        f"{count} batches of batch_size {shape.batch_size} and image_size {shape.image_size}",
        remedies(config),
    )


def batches_of(
    fill: Fill, keys: Iterator[Key], shape: Shape, *, num_workers: int, in_processes: bool
) -> Iterator[Rows]:
    """Whole batches of the samples of `keys`, in order; an incomplete last one is dropped.

    Raises:
        Exception: what `fill` raised for a sample, at its batch's turn.
    """
    pool = _open_pool(fill, shape, num_workers, in_processes=in_processes)
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
            filled = [task.result() for task in tasks]
            bad = [sample for part in filled for sample in part.bad]
            slowest = max(part.slowest for part in filled)
            rows = pool.collect(buffer, shape)
            yield rows._replace(bad=bad, slowest=slowest, lost=pool.lost)
    finally:
        pool.close()


def _open_pool(fill: Fill, shape: Shape, num_workers: int, *, in_processes: bool) -> Any:
    if not in_processes:
        return _Threads(fill, num_workers)
    try:
        return Processes(fill, shape, num_workers, num_buffers=_BATCHES_AHEAD + 1)
    except NoSharedMemory as error:
        return _Threads(fill, num_workers, lost=str(error))


class _Threads:
    """Workers in this process: decoding and the compiled loops release the interpreter's lock."""

    def __init__(self, fill: Fill, num_workers: int, *, lost: Optional[str] = None) -> None:
        self.lost = lost
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
