"""One process of several copies into a folder; the others wait, and take over when it dies."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Dict, Optional

from ..errors import UserError
from ..runtime.files import write_whole

_LOGGER = logging.getLogger(__name__)

# An owner that has not moved its deadline on for so long is dead.
OWNER_S = 60.0
_POLL_S = 0.2


class StagingOwner:
    """Held while entered by one process; the marker file says by which, and until when.

    The owner moves its deadline on. A marker whose process is gone (seen on its own host) or whose
    deadline is over is taken over, so nothing has to be cleaned up by hand.

    Args:
        marker: the file.
        timeout_s: how long to wait for a living owner.
        owner_s: how long a sign of life counts.

    Raises:
        UserError: the owner lives, but has not finished within `timeout_s`.
    """

    def __init__(self, marker: Path, *, timeout_s: float, owner_s: float = OWNER_S) -> None:
        self._marker = marker
        self._timeout_s = timeout_s
        self._owner_s = owner_s
        self._is_over = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> StagingOwner:
        start = time.monotonic()
        is_told = False
        while not self._take():
            if time.monotonic() - start > self._timeout_s:
                raise UserError(
                    f"{self._marker}: {self._owner_name()} has not finished within "
                    f"{self._timeout_s:g} s; end that process, or delete the file"
                )
            if not is_told:
                _LOGGER.info("%s: waiting for %s to copy", self._marker.parent, self._owner_name())
                is_told = True
            time.sleep(_POLL_S)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        assert self._thread is not None
        self._thread.join()
        if self._is_mine():
            self._marker.unlink(missing_ok=True)

    def _take(self) -> bool:
        # Whoever links first is the owner; the file has its content before it has its name.
        mine = self._write(f".owner.{os.getpid()}.{threading.get_ident()}")
        try:
            os.link(mine, self._marker)
            return True
        except FileExistsError:
            self._remove_dead()
            return False
        finally:
            mine.unlink(missing_ok=True)

    def _write(self, name: str) -> Path:
        path = self._marker.with_name(name)
        path.write_bytes(self._sign())
        return path

    def _sign(self) -> bytes:
        content = {"process": _identity(), "deadline": time.time() + self._owner_s}
        return json.dumps(content).encode()

    def _owner_name(self) -> str:
        owner = self._read(self._marker)
        return "process {pid} on {host}".format(**owner["process"]) if owner else "another process"

    @staticmethod
    def _read(path: Path) -> Optional[Dict[str, Any]]:
        try:
            content: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        except (FileNotFoundError, ValueError):
            return None

    def _remove_dead(self) -> None:
        if not self._is_dead(self._read(self._marker)):
            return
        # Another process may have taken over since it was read: look at what was taken away.
        taken = self._marker.with_name(f".owner.dead.{os.getpid()}.{threading.get_ident()}")
        try:
            os.rename(self._marker, taken)
        except FileNotFoundError:
            return
        if not self._is_dead(self._read(taken)):
            os.rename(taken, self._marker)
        taken.unlink(missing_ok=True)

    @staticmethod
    def _is_dead(owner: Optional[Dict[str, Any]]) -> bool:
        if owner is None:
            return False
        process, here = owner["process"], _identity()
        is_here = all(process[key] == here[key] for key in ("host", "namespace"))
        is_gone = is_here and not Path(f"/proc/{process['pid']}").exists()
        return is_gone or time.time() > owner["deadline"]

    def _is_mine(self) -> bool:
        owner = self._read(self._marker)
        return owner is not None and owner["process"] == _identity()

    def _keep(self) -> None:
        # Whoever took over from a process that had been stopped for long keeps it.
        while not self._is_over.wait(self._owner_s / 4) and self._is_mine():
            write_whole(self._marker, self._sign())


def _identity() -> Dict[str, Any]:
    # Containers of one host may share its name, and number their processes each for itself.
    namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "namespace": namespace, "pid": os.getpid()}
