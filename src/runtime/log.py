"""Log lines of a run, on the screen and in its folder."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Dict, Iterator, Optional

from .regular_files import UNLIMITED, open_regular
from .text import ESCAPES, OneLine

# How a file of glog starts.
_HEADER = (b"Log file created at", b"Running on machine", b"Running duration", b"Log line format")


class _RunLog(logging.FileHandler):
    """Gives up at the first line that cannot be written, where logging would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        with contextlib.suppress(OSError):
            self.close()
        root.warning("%s: cannot be written any more", self.baseFilename)


class FrameworkLog(logging.Handler):
    """Appends to the log of a run what MindSpore has written to files of its own.

    It does so before each line of ours and at the end of the process, when the files are removed.

    Args:
        folder: GLOG_log_dir of this process.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.run_log: Optional[Path] = None
        self._folder = folder
        self._taken: Dict[Path, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if self.run_log is None:
            return
        with contextlib.suppress(OSError), self.run_log.open("ab") as log:
            for text in self._news():
                log.write(text)

    def _news(self) -> Iterator[bytes]:
        """Whole lines that have been added to each file since the last call."""
        # Of Python and of C++, whose file of INFO holds the others too.
        names = ("mindspore.log.*", "*.log.INFO.*")
        for path in [p for name in names for p in self._folder.glob(f"rank_*/logs/{name}")]:
            with open_regular(path, UNLIMITED) as file:
                file.seek(self._taken.get(path, 0))
                text = file.read()
            text = text[: text.rfind(b"\n") + 1]
            self._taken[path] = self._taken.get(path, 0) + len(text)
            yield b"".join(line for line in text.splitlines(True) if not line.startswith(_HEADER))

    def close(self) -> None:
        self.emit(logging.makeLogRecord({}))
        shutil.rmtree(self._folder, ignore_errors=True)
        super().close()


def log_problems_only() -> None:
    """From now on only warnings and errors are logged: for all ranks but one."""
    logging.getLogger().setLevel(logging.WARNING)


@contextlib.contextmanager
def problems_only() -> Iterator[None]:
    """Within the block only warnings and errors are logged."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(before)


def log_to_file(path: Path) -> None:
    """From now on everything logged is also appended to `path`, with the time.

    One file at a time: it takes the place of an earlier one.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()
    handler = _RunLog(path, encoding="utf-8", errors=ESCAPES)
    handler.setFormatter(OneLine("%(asctime)s %(message)s"))
    root.addHandler(handler)
    for framework in [h for h in root.handlers if isinstance(h, FrameworkLog)]:
        framework.run_log = path
