"""The files inside a tar archive by their places in it, so that nothing is unpacked to find them.

An archive may claim what it likes: only regular files with the expected names are taken, each name
once, each of them whole, up to the mark of the archive's end.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import Any, BinaryIO, Dict, NamedTuple, cast

from ..errors import UserError, on_one_line

# Of one read: tarfile takes long names and PAX records in one, whatever length they claim.
_READ_BYTES = 1 << 20
_KINDS = {
    tarfile.DIRTYPE: "a folder",
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class Member(NamedTuple):
    """A file in an archive: its content is `size` bytes of the archive's file from `offset` on."""

    name: str
    offset: int
    size: int


class Expected(NamedTuple):
    """What an archive may hold.

    Attributes:
        name: of each member, whole.
        example: of such names, for messages.
        most_bytes: of a member.
        least_bytes: of a member.
        has_folders: entries of folders are passed by.
    """

    name: re.Pattern[str]
    example: str
    most_bytes: int
    least_bytes: int = 1
    has_folders: bool = False


class DamagedArchive(UserError):
    """An archive that is truncated, damaged or no archive; one line says where."""

    def __init__(self, where: str, reason: object) -> None:
        super().__init__(f"{where}: {on_one_line(reason)}; copy or download the archive again")


class _Window:
    """A part of an open file, as tarfile reads it: headers only, none of them large."""

    def __init__(self, file: BinaryIO, part: Member) -> None:
        self._descriptor, self._part, self._position = file.fileno(), part, 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < 0:
            raise tarfile.ReadError("a header with a negative size")
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _READ_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        left = max(self._part.size - self._position, 0)
        data = os.pread(self._descriptor, min(size, left), self._part.offset + self._position)
        self._position += len(data)
        return data


def list_members(file: BinaryIO, part: Member, expected: Expected, where: str) -> Dict[str, Member]:
    """Name -> member of the archive that is `part` of an open file, in its order.

    Args:
        where: names the archive in messages.

    Raises:
        DamagedArchive: it is truncated, damaged, or no archive.
        UserError: it holds something else than expected, or a name twice.
    """
    window = _Window(file, part)
    found: Dict[str, Member] = {}
    try:
        with tarfile.open(fileobj=cast(Any, window), mode="r:") as archive:
            while (info := archive.next()) is not None:
                cast(Any, archive).members.clear()  # it would keep all of them, 400 bytes each
                if expected.has_folders and info.type == tarfile.DIRTYPE:
                    continue
                _check(info, expected, where)
                if info.name in found:
                    raise _Refused(f"{where}: {_shown(info)} is in it twice")
                if info.offset_data + info.size > part.size:
                    raise tarfile.ReadError(f"truncated: it ends inside {_shown(info)}")
                found[info.name] = Member(info.name, part.offset + info.offset_data, info.size)
            end = archive.offset
        window.seek(end)
        if window.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"truncated or damaged at byte {part.offset + end:,}")
    except _Refused:
        raise
    # Beside those of tarfile there are RecursionError, OverflowError, ValueError and the disk's.
    except Exception as error:
        raise DamagedArchive(where, getattr(error, "strerror", None) or error) from error
    return found


class _Refused(UserError):
    """A sound archive of something else."""


def _check(info: tarfile.TarInfo, expected: Expected, where: str) -> None:
    is_plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.sparse is None
    if not is_plain:
        kind = _KINDS.get(info.type, "no regular file")
        raise _Refused(
            f"{where}: {_shown(info)} is {kind}; only files such as {expected.example} are allowed"
        )
    if not expected.name.fullmatch(info.name):
        raise _Refused(
            f"{where}: {_shown(info)} does not belong there; only files such as "
            f"{expected.example} are allowed"
        )
    if not expected.least_bytes <= info.size <= expected.most_bytes:
        raise _Refused(
            f"{where}: {_shown(info)} has {info.size:,} bytes; allowed: {expected.least_bytes} to "
            f"{expected.most_bytes:,}"
        )


def _shown(info: tarfile.TarInfo) -> str:
    return on_one_line(ascii(info.name), 80)


def whole_file(file: BinaryIO) -> Member:
    """All of an open file, as the part that an archive is."""
    return Member("", 0, os.fstat(file.fileno()).st_size)
