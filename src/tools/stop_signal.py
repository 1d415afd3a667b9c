"""SIGTERM and Ctrl-C: finish the step, save, then end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Dict, Optional


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
