"""SIGTERM and Ctrl-C: finish the step, save, then end."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Any, Dict, Iterator, Optional

# Stands in for SIGINT where MindSpore has taken that over; nobody else uses it.
_INTERRUPT = signal.SIGRTMAX


@contextlib.contextmanager
def interrupts_reach_python() -> Iterator[None]:
    """While entered, a SIGINT calls the handler that Python knows, whatever MindSpore installs.

    MindSpore takes SIGINT over with every graph call, and its handler sends SIGTERM in its place.
    So all threads started within block SIGINT, and one waits for it and passes it on. Enter before
    MindSpore is imported: threads that run already go on receiving it.
    """
    # Handlers run in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(_INTERRUPT, _call_handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    is_over = threading.Event()
    waiting = threading.Thread(target=_pass_on, args=(is_over,), daemon=True)
    waiting.start()
    try:
        yield
    finally:
        is_over.set()
        assert waiting.ident is not None
        signal.pthread_kill(waiting.ident, signal.SIGINT)
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(_INTERRUPT, handler)


def _pass_on(is_over: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while True:
        signal.sigwait({signal.SIGINT})
        if is_over.is_set():
            return
        # A signal, not `_thread.interrupt_main`: it ends what the main thread is waiting in.
        signal.pthread_kill(main, _INTERRUPT)


def _call_handler(_number: int, frame: Optional[FrameType]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


class StopSignal:
    """While entered, the first SIGTERM or SIGINT is only noted; a second one acts as usual.

    Attributes:
        received: number of the signal; None so far.
    """

    def __init__(self) -> None:
        self.received: Optional[int] = None
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: Optional[FrameType]) -> None:
        self.received = number
        self.__exit__()
