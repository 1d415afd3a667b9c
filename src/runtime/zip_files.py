"""Zip archives and `.npz` files that others have written: sizes are checked before room is made.

A directory may claim what it likes: members of terabytes, several on one place, more entries than
memory has room for.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import on_one_line
from .regular_files import open_regular

# Of one read: an archive's whole directory is one. 8 MiB are more than 100,000 entries.
_READ_BYTES = 8 * 2**20
# NumPy's own limit for the text in front of an array.
_HEADER_BYTES = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END_BYTES = 22
_LOCAL = struct.Struct("<4s22xHH")


class ArraysTooLarge(ValueError):
    """Arrays of more bytes than the caller has room for; says on one line how many."""


class _ShortReads:
    """A file of which no single read is large."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _READ_BYTES:
            raise ValueError(f"a directory of {size:,} bytes")
        return self._file.read(size if size >= 0 else _READ_BYTES)


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in an open file; members are read in parts of up to 8 MiB.

    Raises:
        ValueError: no archive and nothing else, or two members of one name; a reason on one line.
    """
    try:
        archive = zipfile.ZipFile(_ShortReads(file))
    except (zipfile.BadZipFile, NotImplementedError, OSError, struct.error, OverflowError) as error:
        raise ValueError(on_one_line(error)) from error
    members = archive.infolist()
    if len(set(archive.namelist())) < len(members):
        raise ValueError("two members of one name")
    # `zipfile` looks for an archive within a file; one begins and ends with it, without a comment.
    file.seek(-_END_BYTES, 2)
    end = file.read(_END_BYTES)
    if not end.startswith(b"PK\x05\x06") or not end.endswith(b"\0\0"):
        raise ValueError("something stands behind it")
    if min((member.header_offset for member in members), default=0):
        raise ValueError("something stands before it")
    return archive


def place_of(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is stored as it is begin; all of them are in the file.

    Raises:
        ValueError: it is compressed, or leads out of the file.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{on_one_line(member.filename)} is compressed")
    file.seek(member.header_offset)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise ValueError(f"{on_one_line(member.filename)} is not where the directory says")
    _, name_bytes, extra_bytes = _LOCAL.unpack(head)
    start = member.header_offset + _LOCAL.size + name_bytes + extra_bytes
    if start + member.file_size > file.seek(0, 2):
        raise ValueError(f"{on_one_line(member.filename)} leads out of the file")
    return start


def read_npz(
    path: Union[str, Path],
    *,
    most_file_bytes: int,
    most_array_bytes: int,
    names: Optional[Sequence[str]] = None,
) -> Dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name; what `numpy.load` gives, without its trust.

    Args:
        most_array_bytes: of all arrays together, looked at before any of them is read.
        names: those to read; None: all.

    Raises:
        KeyError: one of `names` is not there.
        ArraysTooLarge: more than `most_array_bytes`.
        ValueError: damaged, Python objects, no file of arrays; a reason on one line.
        OSError: as of `open_regular`.
    """
    with open_regular(path, most_file_bytes) as file, open_zip(file) as archive:
        members = {_array_name(member.filename): member for member in archive.infolist()}
        wanted = {name: members[name] for name in (members if names is None else names)}
        total = sum(member.file_size for member in wanted.values())
        if total > most_array_bytes:
            raise ArraysTooLarge(f"arrays of {total:,} bytes")
        return {name: _read_array(archive, member) for name, member in wanted.items()}


def _array_name(file_name: str) -> str:
    if not file_name.endswith(".npy"):
        raise ValueError(f"{on_one_line(file_name)} is no array")
    return file_name[: -len(".npy")]


class _Form(NamedTuple):
    """What stands in front of an array. `head_bytes`: how long that is."""

    shape: Tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    head_bytes: int


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = on_one_line(member.filename)
    if member.compress_type not in _METHODS:
        raise ValueError(f"{name} is compressed in a way of its own")
    try:
        with archive.open(member) as stream:
            form = _read_form(stream)
            count = math.prod(form.shape)
            if form.dtype.hasobject:
                raise ValueError(f"{name} holds Python objects (allow_pickle)")
            due = form.head_bytes + count * form.dtype.itemsize
            if due != member.file_size:
                raise ValueError(f"{name} has {member.file_size:,} bytes where {due:,} are due")
            content = np.empty(count * form.dtype.itemsize, np.uint8)
            _fill(content.data, stream)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as error:
        raise ValueError(on_one_line(error)) from error
    except RuntimeError as error:  # encrypted
        raise ValueError(on_one_line(error)) from error
    return np.ndarray(form.shape, form.dtype, content, order="F" if form.is_fortran else "C")


def _read_form(stream: IO[bytes]) -> _Form:
    """The header is Python's literal of a dict; NumPy evaluates it, when it is short."""
    version = np.lib.format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    length = stream.read(width)
    size = int.from_bytes(length, "little")
    if size > _HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes")
    head = io.BytesIO(length + stream.read(size))
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, is_fortran, dtype = read(head)
    except Exception as error:  # of Python's parser, of its tokens, of NumPy
        raise ValueError(f"no header of an array: {on_one_line(error)}") from error
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"the shape {on_one_line(shape)}")
    return _Form(shape, is_fortran, dtype, 8 + width + size)


def _fill(target: memoryview, stream: IO[bytes]) -> None:
    """Reads to the end, where the checksum is compared."""
    have = 0
    while part := stream.read(min(_READ_BYTES, max(len(target) - have, 1))):
        if have + len(part) > len(target):
            raise ValueError("more bytes than the directory says")
        target[have : have + len(part)] = part
        have += len(part)
    if have < len(target):
        raise EOFError(f"{have:,} bytes where {len(target):,} are due")
