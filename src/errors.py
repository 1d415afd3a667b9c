"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(ValueError):
    """A problem with what the user gave: a key, a file, a checkpoint.

    The message is one line that names the offending value, what is allowed, and the remedy. Entry
    points print it without a traceback and exit with code 2 (`--debug` shows the traceback).
    """
