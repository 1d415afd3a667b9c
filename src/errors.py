"""Exceptions that end a program in an orderly way, and the wording of their messages."""

from __future__ import annotations

from typing import Sequence


class UserError(ValueError):
    """A problem with what the user gave: a key, a file, a checkpoint.

    The message is one line that names the offending value, what is allowed, and the remedy. Entry
    points print it without a traceback and exit with code 2 (`--debug` shows the traceback).
    """


class TrainingFailed(RuntimeError):
    """Training cannot go on: the message says at which step, why, and what was saved of it.

    Entry points print it without a traceback and exit with code 1.
    """


class StoppedBySignal(Exception):
    """The run has saved its state because a signal asked it to end.

    Attributes:
        exit_code: 128 + number of the signal, as shells report it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


def on_one_line(said: object, limit: int = 200) -> str:
    """What another library's error says, up to `limit` characters; its type if it says nothing."""
    return " ".join(str(said).split())[:limit] or type(said).__name__


def some_of(names: Sequence[str], most: int = 4, separator: str = ", ") -> str:
    """`a, b, c, d and 3 more`."""
    hidden = len(names) - most
    return separator.join(names[:most]) + (f" and {hidden} more" if hidden > 0 else "")
