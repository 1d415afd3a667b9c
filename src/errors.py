"""Exceptions that end a program in an orderly way."""

from __future__ import annotations


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
