"""Threads or processes that fill batches, in the order of the keys.

Which worker makes which sample, and when, changes nothing: a sample is a function of its key. The
workers write into the batch itself, so nothing is copied when it is complete (threads), or once,
out of shared memory (processes).
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Deque, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..args import Config
from ..errors import StoppedReading
from ..runtime.memory import check_room, remedies
from ..runtime.threads import GIVE_UP_S, ThreadPool, result_of
from .rows import Buffers, Fill, Filled, Rows, Shape, fill_rows
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


class _Task(NamedTuple):
    """Rows of a batch, from `start` on, and the samples that become them."""

    future: Future
    start: int
    keys: Sequence[Key]


def batches_of(
    fill: Fill,
    keys: Iterator[Key],
    shape: Shape,
    *,
    num_workers: int,
    in_processes: bool,
    file_name: Callable[[int], str],
    patience_s: float = GIVE_UP_S,
) -> Iterator[Rows]:
    """Whole batches of the samples of `keys`, in order; an incomplete last one is dropped.

    Args:
        file_name: how messages name a sample.
        patience_s: how long one may take when a stop is asked for.

    Raises:
        Exception: what `fill` raised for a sample, at its batch's turn.
        StoppedReading: as of `result_of`.
    """
    pool = _open_pool(fill, shape, num_workers, in_processes=in_processes)
    groups = iter(lambda: list(itertools.islice(keys, shape.batch_size)), [])
    waiting: Deque[Tuple[Any, List[_Task]]] = deque()
    closing_s = GIVE_UP_S
    try:
        while True:
            while len(waiting) <= _BATCHES_AHEAD:
                group = next(groups, [])
                if len(group) < shape.batch_size:
                    break
                buffer = pool.allocate()
                waiting.append((buffer, list(_submitted(pool, buffer, group))))
            if not waiting:
                return
            buffer, tasks = waiting.popleft()
            filled = [_result(task, pool, buffer, file_name, patience_s) for task in tasks]
            bad = [sample for part in filled for sample in part.bad]
            slowest = max(part.slowest for part in filled)
            pixels = sum(part.pixels for part in filled)
            rows = pool.collect(buffer)
            del buffer, tasks  # those who read it decide how long it lives
            yield rows._replace(bad=bad, slowest=slowest, pixels=pixels, lost=pool.lost)
    except StoppedReading:
        closing_s = 0.0  # it has been waited for
        raise
    finally:
        pool.close(closing_s)


def _result(
    task: _Task, pool: Any, buffer: Any, file_name: Callable[[int], str], patience_s: float
) -> Filled:
    def reading() -> str:
        """The first sample that is not written."""
        num_written = pool.count_written(buffer, task.start, len(task.keys))
        return file_name(task.keys[min(num_written, len(task.keys) - 1)].sample)

    filled: Filled = result_of(task.future, reading, patience_s=patience_s)
    return filled


def _submitted(pool: Any, buffer: Any, group: Sequence[Key]) -> Iterator[_Task]:
    for start in range(0, len(group), _SAMPLES_PER_TASK):
        keys = group[start : start + _SAMPLES_PER_TASK]
        yield _Task(pool.submit(buffer, start, keys), start, keys)


def _open_pool(fill: Fill, shape: Shape, num_workers: int, *, in_processes: bool) -> Any:
    if not in_processes:
        return _Threads(fill, shape, num_workers)
    try:
        return Processes(fill, shape, num_workers, num_buffers=_BATCHES_AHEAD + 1)
    except NoSharedMemory as error:
        return _Threads(fill, shape, num_workers, lost=str(error))


class _Threads:
    """Workers in this process: decoding and the compiled loops release the interpreter's lock."""

    def __init__(
        self, fill: Fill, shape: Shape, num_workers: int, *, lost: Optional[str] = None
    ) -> None:
        self.lost = lost
        self._fill = fill
        self._shape = shape
        self._buffers = Buffers(shape.num_bytes)
        self._pool = ThreadPool(num_workers, "image-worker")

    def allocate(self) -> Rows:
        rows = self._shape.split(self._buffers.take())
        rows.is_written[:] = 0
        return rows

    def submit(self, rows: Rows, start: int, keys: Sequence[Key]) -> Future:
        return self._pool.submit(fill_rows, self._fill, rows, start, keys)

    def count_written(self, rows: Rows, start: int, count: int) -> int:
        return int(rows.is_written[start : start + count].sum())

    def collect(self, rows: Rows) -> Rows:
        return rows

    def close(self, patience_s: float) -> None:
        self._pool.close(patience_s)
