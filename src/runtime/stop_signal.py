"""Signals that ask a program to end: what is trained is saved first, and repeats count once."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Dict, Iterator, Optional

from ..errors import EndedBySignal
from .standard_streams import flush_standard_streams, leave_terminal

# scancel and Kubernetes; Ctrl-C; a terminal that is gone; Slurm's --signal=USR1@120.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# Seconds in which further ones count as the first: a launcher hands on what Slurm, or a terminal,
# has sent to each process already.
MOMENT_S = 2.0
# Seconds that work with nothing to save may take to end, before it is ended.
_PATIENCE_S = 1.5
# Seconds that a run may take to save before it says so.
_SAVING_S = 10.0
_FLUSH_S = 0.2
# Stands in for SIGINT where MindSpore has taken that over; nobody else uses it.
_INTERRUPT = signal.SIGRTMAX
_OVER = b"\0"


class _Arrived:
    """When handlers saw the first signal of this program, and which.

    Attributes:
        noted_at: when a `StopSignal` that is entered got it.
    """

    at: Optional[float] = None
    number: Optional[int] = None
    noted_at: Optional[float] = None

    @classmethod
    def is_repeat(cls, number: int) -> bool:
        """Notes a signal; whether it comes within a moment of the first."""
        if cls.at is None:
            cls.at, cls.number = time.monotonic(), number
            return False
        return time.monotonic() - cls.at < MOMENT_S


def ended_by() -> Optional[int]:
    """The signal that has asked this program to end, if one has."""
    return _Arrived.number


def stop_noted_at() -> Optional[float]:
    """When a `StopSignal` that is entered has got its signal, monotonic; None: not so far."""
    return _Arrived.noted_at


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """While entered, this thread starts processes that hear none of `ENDING` in all their life.

    What the library behind `multiprocessing` does to this thread's mask meanwhile is undone.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _raised_again() -> Iterator[None]:
    """While entered, EndedBySignal is raised once more where Python has to ignore it: in `__del__`.

    Else the work would go on, below a traceback.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not isinstance(error, EndedBySignal):
            before(unraisable)
            return
        _Arrived.at = None
        number = _INTERRUPT if error.number == signal.SIGINT else error.number
        # Not here, where it would be ignored again.
        later = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), number))
        later.daemon = True
        later.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def signals_end_this() -> Iterator[None]:
    """While entered, a signal raises EndedBySignal where no `StopSignal` takes it.

    A second one, after a moment, ends the process at once; so does the first when nothing has come
    of it for some seconds: handlers run between two lines of Python, and MindSpore may compile for
    minutes. MindSpore takes SIGINT over with every graph call, and its handler sends SIGTERM in its
    place. So all threads started within block SIGINT, and one waits for it and passes it on. Enter
    before MindSpore is imported: threads that run already go on receiving it.
    """
    # Handlers run in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Arrived.at = _Arrived.number = None
    before = {_INTERRUPT: signal.signal(_INTERRUPT, _call_handler)}
    for number in ENDING:
        if not _is_ignored_for_good(number):
            before[number] = signal.signal(number, _end)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # A launcher may have held them for itself.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING} - {signal.SIGINT})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    is_over = threading.Event()
    waiting = threading.Thread(target=_pass_on, args=(is_over, writer), daemon=True)
    watching = threading.Thread(target=_watch, args=(reader,), daemon=True)
    waiting.start()
    watching.start()
    try:
        with _raised_again():
            yield
    finally:
        is_over.set()
        assert waiting.ident is not None
        signal.pthread_kill(waiting.ident, signal.SIGINT)
        waiting.join()
        os.write(writer, _OVER)
        watching.join()
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """From now on this process hears none of `ENDING`: others need it until they have ended."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _is_ignored_for_good(number: int) -> bool:
    """As `nohup` leaves SIGHUP; a handler that is not Python's could not be put back."""
    handler = signal.getsignal(number)
    return handler is None or (number == signal.SIGHUP and handler == signal.SIG_IGN)


def _pass_on(is_over: threading.Event, writer: int) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while True:
        signal.sigwait({signal.SIGINT})
        if is_over.is_set():
            return
        # The main thread may hang in a call that no signal reaches: the one that watches must know.
        with contextlib.suppress(BlockingIOError):
            os.write(writer, bytes([signal.SIGINT]))
        # A signal, not `_thread.interrupt_main`: it ends what the main thread is waiting in.
        signal.pthread_kill(main, _INTERRUPT)


def _call_handler(_number: int, frame: Optional[FrameType]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


def _end(number: int, _frame: Optional[FrameType]) -> None:
    if number == signal.SIGHUP:
        leave_terminal()
    if not _Arrived.is_repeat(number):
        raise EndedBySignal(number)


def _watch(reader: int) -> None:
    """Ends the process where the main thread does not come to it."""
    first: Optional[float] = None
    deadline: Optional[float] = None
    saves = False
    ending = int(signal.SIGTERM)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            if not saves:
                _exit_now(ending)
            if _is_noting(ending):
                _print(f"signal {ending}: not saved so far; another one ends this at once")
            deadline = None
        for number in os.read(reader, 256):
            if number == _OVER[0]:
                return
            is_noting = _is_noting(number)
            if number not in ENDING or not (is_noting or signal.getsignal(number) is _end):
                continue  # somebody else's business, such as a launcher's
            now = time.monotonic()
            if first is None:
                first, ending, saves = now, number, is_noting
                deadline = now + (_SAVING_S if saves else _PATIENCE_S)
            elif now - first >= MOMENT_S:
                _exit_now(number)


def _is_noting(number: int) -> bool:
    """Whether a `StopSignal` takes this signal."""
    return isinstance(getattr(signal.getsignal(number), "__self__", None), StopSignal)


def _exit_now(number: int) -> None:
    # Not here: the main thread may hang while it writes there.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_FLUSH_S)
    _print(f"error: ended at once by signal {number}")
    os._exit(128 + number)


def _flush() -> None:
    flush_standard_streams()
    logging.shutdown()


def _print(said: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{said}\n".encode())


class StopSignal:
    """While entered, the first signal of `ENDING` is only noted, and repeats within a moment.

    A later one acts as it did before.

    Attributes:
        received: number of the signal; None so far.
    """

    def __init__(self) -> None:
        self.received: Optional[int] = None
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if not _is_ignored_for_good(number):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        _Arrived.noted_at = None

    def _note(self, number: int, _frame: Optional[FrameType]) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        is_repeat = _Arrived.is_repeat(number)
        if self.received is None:
            self.received, _Arrived.noted_at = number, time.monotonic()
        elif not is_repeat:
            self.__exit__()
            os.kill(os.getpid(), number)
