"""Worker processes, which write into shared memory.

Each belongs to one thread of this process, which sends it a task and waits for the answer, over a
pipe of its own. A worker ends when the pipe does, however this process ended. It hears no signal:
those of a terminal or a scheduler go to whole groups, and this process needs it until it has saved.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import traceback
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.util import Finalize
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..runtime.stop_signal import ended_by, held_signals
from ..runtime.threads import GIVE_UP_S, ThreadPool, join
from .main_guard import require_main_guard
from .rows import Buffers, Fill, Filled, Rows, Shape, fill_rows
from .sampler import Key

# Where Linux keeps shared memory.
_SHARED = "/dev/shm"
# Seconds for a worker to end in, after its last task.
_END_S = 5.0
_REMEDY = (
    "give the job more memory (docker run --memory=..., --shm-size=8g), or set a smaller "
    "num_parallel_workers or batch_size, or python_multiprocessing: false"
)
_CAUSES = {
    int(signal.SIGKILL): "the system, for want of memory?",
    int(signal.SIGBUS): f"{_SHARED} is full?",
}


class NoSharedMemory(Exception):
    """There is not enough for the batches; says how much there is, and the remedy."""


class Processes:
    """Workers that fill batches; what a dead one was to do, its thread does.

    Attributes:
        lost: what became of a worker that has died, and the remedy; None: all live.

    Args:
        num_buffers: batches that are filled or read at a time.

    Raises:
        NoSharedMemory: they do not fit.
        UserError: the script would run again in each of them.
    """

    def __init__(self, fill: Fill, shape: Shape, num_workers: int, *, num_buffers: int) -> None:
        require_main_guard()
        self.lost: Optional[str] = None
        self._fill = fill
        self._shape = shape
        self._buffers = Buffers(shape.num_bytes)
        self._memories: List[SharedMemory] = []
        self._workers: List[_Worker] = []
        self._mine = threading.local()
        self._is_over = False
        self._pool = ThreadPool(num_workers, "image-process")
        with held_signals():
            # Started by the first memory otherwise, and it unblocks signals in this thread.
            resource_tracker.ensure_running()
        try:
            for _ in range(num_buffers):
                self._memories.append(_shared_memory(shape.num_bytes))
        except OSError as error:
            self.close()
            raise NoSharedMemory(_too_little(num_buffers * shape.num_bytes, error)) from error
        self._free = list(self._memories)

    def allocate(self) -> SharedMemory:
        memory = self._free.pop()
        self._shape.split(memory.buf).is_written[:] = 0
        return memory

    def submit(self, memory: SharedMemory, start: int, keys: Sequence[Key]) -> Future:
        return self._pool.submit(self._ask, memory, start, keys)

    def count_written(self, memory: SharedMemory, start: int, count: int) -> int:
        return int(self._shape.split(memory.buf).is_written[start : start + count].sum())

    def collect(self, memory: SharedMemory) -> Rows:
        assert memory.buf is not None
        copy = self._buffers.take()
        copy[:] = np.frombuffer(memory.buf, np.uint8)[: len(copy)]
        self._free.append(memory)
        return self._shape.split(copy)

    def close(self, patience_s: float = GIVE_UP_S) -> None:
        self._is_over = True
        try:
            self._pool.close(patience_s)
        finally:
            for worker in self._workers:
                worker.close()
            for memory in self._memories:
                with contextlib.suppress(BufferError):  # an abandoned thread writes there
                    memory.close()
                memory.unlink()

    def _ask(self, memory: SharedMemory, start: int, keys: Sequence[Key]) -> Filled:
        if self.lost is None:
            try:
                return self._worker().fill(memory.name, start, keys)
            except _WorkerDied as died:
                if self._is_over:
                    raise  # nobody waits for it
                self.lost = self.lost or f"a process that reads images {died}; {_REMEDY}"
        assert memory.buf is not None
        return fill_rows(self._fill, self._shape.split(memory.buf), start, keys)

    def _worker(self) -> _Worker:
        """This thread's."""
        if not hasattr(self._mine, "worker"):
            self._mine.worker = _Worker(self._fill, self._shape)
            self._workers.append(self._mine.worker)
        return self._mine.worker


def _shared_memory(num_bytes: int) -> SharedMemory:
    """Memory that is there: else the first write beyond what is left would kill the process."""
    memory = SharedMemory(create=True, size=num_bytes)
    try:
        with open(f"{_SHARED}/{memory.name}", "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        # Not every system shows it as a file, or allocates ahead.
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            memory.close()
            memory.unlink()
            raise
    return memory


def _too_little(num_bytes: int, error: OSError) -> str:
    free = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else 0
    return (
        f"python_multiprocessing: {num_bytes / 2**20:.0f} MiB of shared memory are needed and "
        f"{free / 2**20:.0f} MiB are free in {_SHARED} ({error.strerror}); {_REMEDY}"
    )


class _WorkerDied(Exception):
    """A worker has ended before it answered; says how."""


class _RemoteTraceback(Exception):
    """Where in a worker an error was raised."""


class _Worker:
    """One process, asked by one thread."""

    def __init__(self, fill: Fill, shape: Shape) -> None:
        # Spawned: a fork would copy the locks of the framework's threads, some of them held.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, fill, shape), daemon=True)
        with held_signals():
            self._process.start()
        theirs.close()  # so that the pipe ends with the process
        # Before Python, at its own end, waits for processes that are left.
        Finalize(self, self._pipe.close, exitpriority=10)

    def fill(self, name: str, start: int, keys: Sequence[Key]) -> Filled:
        """Has samples written into the shared memory `name`, from row `start` on.

        Raises:
            _WorkerDied: it has ended.
            Exception: what its work raised.
        """
        try:
            self._pipe.send((name, start, keys))
            filled, error, where = self._pipe.recv()
        except (EOFError, OSError) as problem:
            raise _WorkerDied(self._end()) from problem
        if error is not None:
            raise error from _RemoteTraceback(where)
        return filled

    def close(self) -> None:
        if ended_by() is not None:
            self._process.kill()  # it may read what never comes
        self._pipe.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            join([self._process])

    def _end(self) -> str:
        self._process.join(_END_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was killed by signal {-code} ({name}: {_CAUSES.get(-code, 'a crash?')})"
        return (
            f"ended with exit code {code} (what it printed says why; a script of your own has to "
            'do its work under `if __name__ == "__main__":`)'
        )


def _serve(pipe: Connection, fill: Fill, shape: Shape) -> None:
    """The life of a worker: tasks, until the pipe ends."""
    memories: Dict[str, SharedMemory] = {}
    while True:
        try:
            name, start, keys = pipe.recv()
        except (EOFError, OSError):
            # At once: Python's own end complains of arrays that are still in shared memory.
            os._exit(0)
        answer: Any
        try:
            if name not in memories:
                memories[name] = SharedMemory(name=name)
            answer = fill_rows(fill, shape.split(memories[name].buf), start, keys), None, ""
        except Exception as error:
            where = f"\n{traceback.format_exc()}"
            answer = None, _sendable(error), where
        with contextlib.suppress(OSError):
            pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    error.__traceback__ = None  # which would keep the shared memory in use
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
