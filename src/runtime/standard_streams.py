"""The screen of a process, where it is closed, a pipe without a reader or a lost terminal."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import sys
from typing import TextIO


def open_standard_streams() -> None:
    """Opens what the caller has closed (`2>&-`) on nothing; a pipe without a reader is no error.

    Else the next file that is opened gets the number, and what C++ writes to its log goes into it.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _point_at_nothing(number)
        if getattr(sys, name) is None:  # as Python leaves them then
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    _flush_at_exit()


@functools.cache  # once
def _flush_at_exit() -> None:
    atexit.register(flush_standard_streams)


def flush_standard_streams() -> None:
    """As Python does at its end, but without a word of what cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            drop_output(stream)


def has_no_reader(stream: TextIO) -> bool:
    """Whether what `stream` writes to is a pipe that nobody reads, or a terminal that is gone."""
    with contextlib.suppress(OSError, ValueError):
        return _is_lost(stream.fileno())
    return False


def drop_output(stream: TextIO) -> None:
    """What is left to write goes nowhere: Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        _point_at_nothing(stream.fileno())


def leave_terminal() -> None:
    """What is written to a terminal that is gone fails: writes nowhere instead."""
    for number in (0, 1, 2):
        if os.isatty(number) or _is_lost(number):
            _point_at_nothing(number)


def _point_at_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


def _is_lost(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    lost = select.POLLERR | select.POLLHUP | select.POLLNVAL
    return any(event & lost for _, event in poll.poll(0))
