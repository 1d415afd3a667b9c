"""Threads that this process can leave alone: what they read may never come.

A read from a stalled disk or a network mount whose server is gone hears no signal. Python waits at
its end for the threads of `concurrent.futures`; these are not waited for.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Callable, Iterable, Iterator, List, Optional, Protocol, Sequence, Tuple

from ..errors import StoppedReading
from .stop_signal import ended_by, stop_noted_at

_LOGGER = logging.getLogger(__name__)

# Seconds that a stop waits for a worker.
GIVE_UP_S = 1.0
# Seconds of one read after which the user is told.
_LONG_S = 60.0
_POLL_S = 0.1


class _Worker(Protocol):
    def is_alive(self) -> bool: ...

    def join(self, timeout: Optional[float] = None) -> None: ...


# Threads and processes that nobody waits for any more.
_abandoned: List[_Worker] = []


def has_abandoned() -> bool:
    """Whether one is left that Python, at its own end, would wait for or stumble over."""
    return any(worker.is_alive() for worker in _abandoned)


def join(workers: Sequence[_Worker], *, patience_s: float = GIVE_UP_S) -> None:
    """Waits until they have ended; once the program is asked to end, `patience_s` and no longer.

    Those that are left then, or when a signal ends the wait, are abandoned.
    """
    deadline = float("inf")
    try:
        for worker in workers:
            while worker.is_alive() and time.monotonic() < deadline:
                if ended_by() is not None:
                    deadline = min(deadline, time.monotonic() + patience_s)
                worker.join(_POLL_S)
    finally:
        _abandoned.extend(worker for worker in workers if worker.is_alive())


class ThreadPool:
    """Threads that run tasks in the order they are given; closed when left.

    Args:
        num_threads: at most; one is started with each task until there are so many.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads = num_threads
        self._name = name
        self._threads: List[Thread] = []
        self._tasks: SimpleQueue[Optional[Tuple[Future, Callable[[], Any]]]] = SimpleQueue()

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Has a thread call `function`."""
        future: Future = Future()
        self._tasks.put((future, functools.partial(function, *args)))
        if len(self._threads) < self._num_threads:
            name = f"{self._name}-{len(self._threads)}"
            thread = Thread(target=_work, args=(self._tasks,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        return future

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], name_of: Callable[[Any], str]
    ) -> Iterator[Any]:
        """What `function` makes of each item, in order; as of `result_of`."""
        for task, item in [(self.submit(function, item), item) for item in items]:
            yield result_of(task, functools.partial(name_of, item))

    def close(self, patience_s: float = GIVE_UP_S) -> None:
        """Cancels what has not been begun, and waits for the rest as `join` does."""
        with contextlib.suppress(Empty):
            while task := self._tasks.get_nowait():
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        join(self._threads, patience_s=patience_s)


def _work(tasks: SimpleQueue[Optional[Tuple[Future, Callable[[], Any]]]]) -> None:
    while task := tasks.get():
        future, call = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
        del task, future, call  # else they live until the next one comes


def result_of(task: Future, reading: Callable[[], str], *, patience_s: float = GIVE_UP_S) -> Any:
    """What a task of a pool returns, or raises; says so when one of its reads takes a minute.

    Args:
        reading: what the task reads at the moment, as messages name it.
        patience_s: how long that may have taken when a stop is asked for.

    Raises:
        StoppedReading: a `StopSignal` has its signal, and the read does not end.
    """
    name, since = "", time.monotonic()
    while not wait([task], timeout=_POLL_S).done:
        now, stopped = time.monotonic(), stop_noted_at()
        if name != reading():
            name, since = reading(), now
        if now - since >= _LONG_S:
            _say(name)
        if stopped is not None and now - stopped >= GIVE_UP_S and now - since >= patience_s:
            raise StoppedReading(name, now - since)
    return task.result()


@functools.cache  # once for each file
def _say(name: str) -> None:
    _LOGGER.warning(
        "reading %s for %.0f s: a stalled disk or network mount? Ctrl-C ends this program; "
        "training saves before",
        name,
        _LONG_S,
    )
