"""A run's folder and its copy at a URL."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from pathlib import Path
from typing import Callable, Dict, List, Optional, TypedDict

from ..errors import UserError
from ..runtime.files import write_whole
from ..runtime.json_files import read_typed
from ..runtime.regular_files import RECORD_BYTES
from .moxing_adapter import fetch, real_moxing, upload_by_moxing
from .remote_files import Listing, RemoteFile, Storage, reason

_LOGGER = logging.getLogger(__name__)

# In the run's folder: what has been sent, so that a restarted process knows it.
_RECORD = ".uploaded.json"
_LAST = "last.ckpt"


class Sent(TypedDict):
    """The version (as of `_version`) that was sent of a file, and when the URL got it."""

    local: List[int]
    there: Optional[float]


class RunMirror:
    """Brings the files of a run's folder to a URL, and back to a host that has none of them.

    A failed upload is kept in `failed` and tried again with the next `send`; it never raises.
    Hidden and damaged files stay here, and nothing is ever deleted at the URL.

    Args:
        is_whole: whether a checkpoint is as it was written.

    Attributes:
        failed: file name -> why it is not there.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        endpoint: Optional[str] = None,
        is_whole: Callable[[Path], bool] = lambda _: True,
    ) -> None:
        self._is_whole = is_whole
        self.failed: Dict[str, str] = {}
        self._folder = folder
        self._url = url.rstrip("/")
        self._moxing = real_moxing() if url.startswith("obs://") else None
        self._storage = None if self._moxing else Storage(url, endpoint=endpoint)
        self._last_there: Optional[float] = None
        self._is_watching = False
        self._sent = read_sent(folder / _RECORD)

    def watch(self) -> None:
        """From now on nothing is sent any more once another run has written to the URL."""
        with contextlib.suppress(Exception):  # the first upload says what is wrong
            self._last_there = self._time_of_last()
            self._is_watching = True

    def _time_of_last(self) -> Optional[float]:
        return self._storage.time_of(_LAST) if self._storage else None

    def _has_other_run(self) -> bool:
        try:
            return self._is_watching and self._time_of_last() != self._last_there
        except Exception:
            return False

    def send(self) -> None:
        """Uploads what has changed since it was sent."""
        if self._has_other_run():
            self._note(_LAST, FileExistsError("another run has written there meanwhile"))
            return
        for path in sorted(p for p in self._folder.rglob("*") if p.is_file()):
            name = path.relative_to(self._folder).as_posix()
            if any(part.startswith(".") for part in Path(name).parts):
                continue
            try:
                version = _version(path)
                if name in self._sent and self._sent[name]["local"] == version:
                    continue
                if self._is_damaged(path):
                    raise OSError(errno.EIO, "damaged", str(path))
                there = self._upload(path, name)
            except FileNotFoundError as error:
                if path.exists():  # else an old checkpoint that has been removed meanwhile
                    self._note(name, error)
            except Exception as error:
                self._note(name, error)
            else:
                self._sent[name] = {"local": version, "there": there.modified}
                if name == _LAST:
                    self._last_there = there.modified
                self.failed.pop(name, None)
                self._write_record()

    def _is_damaged(self, path: Path) -> bool:
        return path.suffix == ".ckpt" and not self._is_whole(path)

    def _note(self, name: str, error: Exception) -> None:
        self.failed[name] = reason(error)
        _LOGGER.warning("%s/%s: not uploaded (%s)", self._url, name, self.failed[name])

    def _upload(self, path: Path, name: str) -> RemoteFile:
        if self._moxing is not None:
            return upload_by_moxing(self._moxing, path, f"{self._url}/{name}")
        assert self._storage is not None
        return self._storage.upload(path, name)

    def _write_record(self) -> None:
        write_whole(self._folder / _RECORD, json.dumps(self._sent).encode())

    def bring_back(self) -> None:
        """Makes the folder hold the run as it is at the URL, when that is further than this one.

        It is when nothing is here, when what is here is damaged, or when what was sent from here
        has been replaced there since. What is here and was not sent stays. Checkpoints of single
        epochs are left there.

        Raises:
            UserError: no rights, no connection, no such bucket, no room.
        """
        listing = self._list()
        if _LAST not in listing or not self._is_behind(listing[_LAST]):
            return
        if self._moxing is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in listing:
                self._moxing.file.copy(f"{self._url}/{name}", str(self._folder / name))
        else:
            assert self._storage is not None
            fetch(self._storage, listing, self._folder)
        for name, file in listing.items():
            version = _version(self._folder / name)
            self._sent[name] = {"local": version, "there": file.modified}
        self._write_record()

    def _is_behind(self, last: RemoteFile) -> bool:
        path = self._folder / _LAST
        sent = self._sent.get(_LAST)
        if not path.exists():
            return True
        if self._is_damaged(path):
            _LOGGER.warning("%s: damaged; that of %s takes its place", path, self._url)
            return True
        return (
            sent is not None and sent["local"] == _version(path) and sent["there"] != last.modified
        )

    def has_run(self) -> bool:
        """Whether a run's last checkpoint is at the URL. Raises UserError as of `bring_back`."""
        return _LAST in self._list()

    def _list(self) -> Listing:
        if self._moxing is not None:
            file = self._moxing.file
            names = file.list_directory(self._url) if file.exists(self._url) else []
            return {n: RemoteFile(0, None) for n in names if _is_brought(n)}
        assert self._storage is not None
        try:
            found = self._storage.list()
        except UserError as error:
            if not self._storage.is_missing_folder(error.__cause__):
                raise
            return {}
        return {name: file for name, file in found.items() if _is_brought(name)}


def read_sent(path: Path) -> Dict[str, Sent]:
    """By the names of files. Raises UserError."""
    if not os.path.lexists(path):
        return {}
    try:
        return read_typed(path, RECORD_BYTES, Dict[str, Sent])
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{path}: does not say what was uploaded ({reason}); delete it, and all is sent again"
        ) from error


def _is_brought(name: str) -> bool:
    return "/" not in name and not name.startswith(("epoch_", "."))


def _version(path: Path) -> List[int]:
    """Modification time in ns, and size; a list, as it comes back from JSON."""
    state = path.stat()
    return [state.st_mtime_ns, state.st_size]
