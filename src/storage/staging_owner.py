"""One process of several copies into a folder; the others wait, and take over when it dies."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..errors import UserError
from ..runtime.owner import OWNER_S, OwnerFile

_LOGGER = logging.getLogger(__name__)

_POLL_S = 0.2


class StagingOwner:
    """Held while entered by one process; the marker file says by which.

    A marker whose process is gone (seen on its own host), or without a sign of life, is taken
    over, so nothing has to be cleaned up by hand.

    Args:
        marker: the file.
        timeout_s: how long to wait for a living owner.
        owner_s: how long a sign of life counts.

    Raises:
        UserError: the owner lives, but has not finished within `timeout_s`.
    """

    def __init__(self, marker: Path, *, timeout_s: float, owner_s: float = OWNER_S) -> None:
        self._timeout_s = timeout_s
        self._file = OwnerFile(marker, owner_s=owner_s)

    def __enter__(self) -> StagingOwner:
        marker, start = self._file.path, time.monotonic()
        is_told = False
        while not self._file.take():
            owner = self._file.owner() or "another process"
            if time.monotonic() - start > self._timeout_s:
                raise UserError(
                    f"{marker}: {owner}, has not finished within {self._timeout_s:g} s; end that "
                    "process, or delete the file"
                )
            if not is_told:
                _LOGGER.info("%s: waiting for %s, to copy", marker.parent, owner)
                is_told = True
            time.sleep(_POLL_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.release()
