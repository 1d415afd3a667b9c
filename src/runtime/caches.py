"""Where caches go: into the user's cache folder, else a private temporary one, else nowhere.

A cache saves time. That there is no place for one, as in containers without a home folder, under a
user that no list of users knows, or on read-only disks, is no reason to end.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Iterator, Mapping, Optional

from ..errors import UserError

_LOGGER = logging.getLogger(__name__)

# Bytes; about 2.5 MB are kept, and compilers need more while they work.
_ROOM = 8 << 20
_IN_MEMORY = Path("/dev/shm")
_NAME = "mindspore-vision-classifiers"


def cache_folders(kind: str, environment: Optional[Mapping[str, str]] = None) -> Iterator[Path]:
    """Folders for a cache of this kind that can be written, best first; made when asked for."""
    given = os.environ if environment is None else environment
    for find in (lambda: _users_folder(given), _temporary_folder):
        root = find()  # one after the other: it makes the temporary folder
        if root is not None and _is_writable(root / _NAME / kind):
            yield root / _NAME / kind


@functools.cache  # said once
def use_cache_folders() -> None:
    """Tells numba, matplotlib and child processes where caches go, when it is not the usual place.

    Says so in one line. What the user has set stays.

    Raises:
        UserError: there is no folder for temporary files, without which Python does little.
    """
    _provide_temporary_folder()
    users = _users_folder(os.environ)
    folder = users if users is not None and _is_writable(users) else _temporary_folder()
    if folder is None:
        _LOGGER.info("caches: %s, nor a temporary folder; compiled again each time", _why(users))
        return
    if folder != users:
        os.environ["XDG_CACHE_HOME"] = str(folder)
        _LOGGER.info("caches: %s; kept in %s, set XDG_CACHE_HOME for another", _why(users), folder)
    # Without a folder matplotlib makes one for this process, and says so in two lines.
    if "MPLCONFIGDIR" not in os.environ and not _has_matplotlib_folder(os.environ):
        os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")


def _why(users: Optional[Path]) -> str:
    return "no home folder" if users is None else f"{users} cannot be written or is full"


def _users_folder(environment: Mapping[str, str]) -> Optional[Path]:
    """`XDG_CACHE_HOME`, else `~/.cache`; None: this user has no home folder."""
    given = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # any other is to be ignored, the specification says
        return Path(given)
    home = _home(environment)
    return home / ".cache" if home else None


def _home(environment: Mapping[str, str]) -> Optional[Path]:
    home = environment.get("HOME", "")
    if not home:
        with contextlib.suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) if os.path.isabs(home) else None


def _has_matplotlib_folder(environment: Mapping[str, str]) -> bool:
    home = _home(environment)
    settings = environment.get("XDG_CONFIG_HOME") or (home / ".config" if home else None)
    return settings is not None and _is_writable(Path(settings, "matplotlib"))


def _provide_temporary_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        # Read-only containers have this one still.
        if not _is_writable(_IN_MEMORY):
            raise UserError(
                "no folder for temporary files can be written (/tmp, /var/tmp); mount one, or set "
                "TMPDIR to one"
            ) from error
        tempfile.tempdir = os.environ["TMPDIR"] = str(_IN_MEMORY)


def _temporary_folder() -> Optional[Path]:
    """A folder that only this user may read or write; None: there is none."""
    try:
        folder = Path(tempfile.gettempdir(), f"{_NAME}-{os.getuid()}").absolute()
        # The last that Python tries is where the program was started: not a place for caches.
        if folder.parent == Path.cwd():
            return None
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return folder if is_private and status.st_uid == os.getuid() else None


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in it, after making it, and there is room for them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return shutil.disk_usage(folder).free >= _ROOM
    except OSError:
        return False
