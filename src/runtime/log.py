"""Log lines of a run, on the screen and in its folder."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path


class _RunLog(logging.FileHandler):
    """Gives up at the first line that cannot be written, where logging would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        with contextlib.suppress(OSError):
            self.close()
        root.warning("%s: cannot be written any more", self.baseFilename)


def log_problems_only() -> None:
    """From now on only warnings and errors are logged: for all ranks but one."""
    logging.getLogger().setLevel(logging.WARNING)


def log_to_file(path: Path) -> None:
    """From now on everything logged is also appended to `path`, with the time.

    One file at a time: it takes the place of an earlier one.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root.addHandler(handler)
