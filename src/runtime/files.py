"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import os
import re
import stat
import tempfile
import uuid
from pathlib import Path
from typing import Any, Iterator

from ..errors import UserError
from .regular_files import UNLIMITED, open_regular

# How a file system says that it has no such operation, or not for a folder.
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_REFUSED = {errno.EACCES, errno.EPERM}
# Of a draft's name; with what is added it fits wherever names have 143 bytes (eCryptfs) or more.
_STEM_BYTES = 100
_DRAFT = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp[^/]*")
_ASIDE = re.compile(r"\.(.+)\.before")


@contextlib.contextmanager
def replacing(path: Path, *, to_disk: bool = False) -> Iterator[Path]:
    """An empty file beside `path` to write, which takes its place when all went well.

    It has a hidden name of its own with the same ending, so writers of one file do not meet. Its
    mode is that of a new file, whatever a library that writes it thinks.

    Args:
        to_disk: wait until file and name are on the disk, so a crash of the host loses neither.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    draft = _draft_of(path)
    try:
        draft.touch()
        mode = stat.S_IMODE(draft.stat().st_mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield draft
        _give_mode(draft, mode)
        if to_disk:
            _flush(draft)
        _replace(draft, path)
        if to_disk:
            _flush(path.parent)
    except BaseException:
        # MindSpore leaves a file of its own beside it.
        _remove_all(path.parent, glob.escape(draft.stem))
        raise


def _draft_of(path: Path) -> Path:
    stem = os.fsencode(path.stem)[:_STEM_BYTES].decode(errors="ignore")
    return path.with_name(f".{stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")


def give_mode_of_new_file(path: Path) -> None:
    """To a file that a library has made: what the umask leaves of 0666."""
    probe = _draft_of(path)
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    _give_mode(path, mode)


def _give_mode(path: Path, mode: int) -> None:
    with contextlib.suppress(PermissionError, NotImplementedError):  # there may be no modes
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _replace(draft: Path, path: Path) -> None:
    """`os.replace`, also where a file in the way ends a rename.

    There the old file is put aside first; `finish_renames` puts it back after a kill in between.
    """
    try:
        os.replace(draft, path)
    except OSError as error:
        if error.errno not in {errno.EEXIST, *_UNKNOWN, *_REFUSED} or not path.is_file():
            raise
        aside = path.with_name(f".{path.name}.before")
        aside.unlink(missing_ok=True)
        os.rename(path, aside)
        try:
            os.rename(draft, path)
        except BaseException:
            os.rename(aside, path)
            raise
        aside.unlink()


def finish_renames(folder: Path, name: str) -> None:
    """No file is missing because a process was killed while it replaced it.

    Args:
        name: pattern of the files' whole names.
    """
    for aside in folder.glob(".*.before"):
        found = _ASIDE.fullmatch(aside.name)
        if found and re.fullmatch(name, found.group(1)) and aside.is_file():
            path = folder / found.group(1)
            if path.exists():
                aside.unlink()
            else:
                os.rename(aside, path)


def remove_unfinished(folder: Path, stem: str) -> None:
    """Removes what killed processes have left of `replacing`, and nothing else.

    Args:
        stem: pattern of the files' whole names without their endings.
    """
    for path in folder.glob(".*.tmp*"):
        draft = _DRAFT.fullmatch(path.name)
        if draft and re.fullmatch(stem, draft.group(1)) and path.is_file():
            path.unlink(missing_ok=True)


def _remove_all(folder: Path, start: str) -> None:
    with contextlib.suppress(OSError):  # the error that is on its way says more
        for path in folder.glob(f"{start}*"):
            path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """A file at `path` is this one whole, or what it was.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, content: Any) -> None:
    """The same of JSON, indented."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def _flush(path: Path) -> None:
    """Waits until a file or the entries of a folder are on the disk, where one can wait for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN | _REFUSED:
            raise


def can_flush(folder: Path) -> bool:
    """Whether files in `folder` can be brought to the disk, which some mounts do not do.

    Raises:
        OSError: no file can be made there, or the disk has failed.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _UNKNOWN | _REFUSED:
                raise
            return False
    return True


def what_helps(error: BaseException) -> str:
    """The remedy for a file that could not be written."""
    number = getattr(error, "errno", None)
    if number == errno.EDQUOT:
        return "your quota is used up: make room, or ask for more"
    if number in (errno.EROFS, errno.EIO, errno.ESTALE):
        return "the file system has failed (dmesg says more): mount it again"
    if number in _REFUSED:
        return "give yourself the right to write there"
    if number == errno.EFBIG:
        return "raise `ulimit -f`, or move the folder to a file system that has larger files"
    return "make room"


def file_sha256(path: Path, most_bytes: int = UNLIMITED) -> str:
    """Hexadecimal SHA-256 of a file. Raises OSError as of `open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path, most_bytes) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def check_output(key: str, path: Path, *suffixes: str) -> None:
    """Refuses, before any work, the name of a file that cannot be written.

    Args:
        suffixes: endings it may have; none: any.

    Raises:
        UserError: another ending, a folder of that name, or none that the file could be put into.
    """
    if suffixes and path.suffix not in suffixes:
        raise UserError(f"{key} {str(path)!r}: expected a {suffixes[0]} file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{key} {str(path)!r}: no such folder; make it first")
    if path.is_dir():
        raise UserError(f"{key} {str(path)!r}: is a folder; give the name of a file")
    _try_to_write(key, path, folder)


def check_output_folder(key: str, folder: Path) -> None:
    """Refuses, before any work, a folder that could not be made or written, without making it.

    Raises:
        UserError: as said.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    _try_to_write(key, folder, existing)


def _try_to_write(key: str, given: Path, folder: Path) -> None:
    # Rights alone do not tell: root has them all, and file systems may be read-only.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{key} {str(given)!r}: {folder} cannot be written ({error.strerror}); give another "
            f"--{key}"
        ) from error


def numbered(path: Path) -> Iterator[Path]:
    """`path`, then NAME_2, NAME_3, ... beside it."""
    names = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(2))
    return itertools.chain([path], names)


def unused(path: Path) -> Path:
    """The first of `numbered` that nothing has."""
    return next(name for name in numbered(path) if not os.path.lexists(name))
