"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any, Iterator

from ..errors import UserError


@contextlib.contextmanager
def replacing(path: Path, *, to_disk: bool = False) -> Iterator[Path]:
    """An empty file beside `path` to write, which takes its place when all went well.

    It has a hidden name of its own with the same ending, so writers of one file do not meet.

    Args:
        to_disk: wait until file and name are on the disk, so a crash of the host loses neither.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    draft = _draft_of(path)
    try:
        draft.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield draft
        if to_disk:
            _flush(draft)
        os.replace(draft, path)
        if to_disk:
            _flush(path.parent)
    except BaseException:
        # MindSpore leaves a file of its own beside it.
        _remove_all(path.parent, glob.escape(draft.stem))
        raise


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")


def remove_unfinished(folder: Path, stem: str) -> None:
    """Removes what killed processes have left of `replacing`.

    Args:
        stem: of the file's name, or a pattern for it.
    """
    _remove_all(folder, f".{stem}.")


def _remove_all(folder: Path, start: str) -> None:
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
    """Waits until a file or the entries of a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def check_output(key: str, path: Path, *suffixes: str) -> None:
    """Refuses, before any work, the name of a file that cannot be written.

    Args:
        suffixes: endings it may have; none: any.

    Raises:
        UserError: another ending, or no such folder.
    """
    if suffixes and path.suffix not in suffixes:
        raise UserError(f"{key} {str(path)!r}: expected a {suffixes[0]} file")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{key} {str(path)!r}: no such folder; make it first")
