"""Files that others have written: regular ones only, and no larger than such files are.

A named pipe or a device would let its reader wait for ever, and an endless one fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Union

from ..errors import on_one_line

AnyPath = Union[str, Path]

# Most bytes of a file, by what it is read as. What has more is something else, and says so.
RECIPE_BYTES = 64 * 2**10
RANK_TABLE_BYTES = 4 * 2**20  # 4,096 devices take 400 KiB
NAMES_BYTES = 4 * 2**20  # ImageNet-21k's class names take 400 KiB
RECORD_BYTES = 16 * 2**20  # settings, exports, uploads: the project's own small JSON files
TABLE_BYTES = 512 * 2**20  # a line for each image or step
IMAGE_BYTES = 2**30 // 3  # 4 bytes for each pixel that max_image_pixels allows by default
WEIGHTS_BYTES = 64 * 2**30
EXPORT_BYTES = 2**31  # protobuf has no larger messages
FONT_BYTES = 256 * 2**20  # collections for Chinese, Japanese and Korean are the largest
CODE_BYTES = 256 * 2**20  # a program, and libraries that are compiled here
UNLIMITED = 2**63 - 1  # what is read in parts: shards, logs, copies of the run's own files

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NoRegularFile(OSError):
    """A pipe, a socket or a device where a file is due; `strerror` says which."""


class FileTooLarge(OSError):
    """More than a file of this kind has; `strerror` says how much."""


def open_regular(path: AnyPath, most_bytes: int) -> BinaryIO:
    """Opens a file to read its bytes, at once whatever is there.

    Args:
        most_bytes: a larger file is refused.

    Raises:
        NoRegularFile, FileTooLarge, OSError: `strerror` is a reason on one line.
    """
    descriptor = open_descriptor(path, most_bytes)
    try:
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_descriptor(path: AnyPath, most_bytes: int) -> int:
    """The same for `os.pread`; the caller closes it."""
    # A pipe without a writer would not open before there is one, nor a line without its carrier.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        _explain(error, path, most_bytes)
        raise
    try:
        check_regular(os.fstat(descriptor), path, most_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _explain(error: OSError, path: AnyPath, most_bytes: int) -> None:
    """Raises what says more than the system: that a link is dead, that a file is a socket."""
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        reason = f"dead link to {on_one_line(os.readlink(path))}"
        raise FileNotFoundError(error.errno, reason, str(path)) from error
    if error.errno == errno.ENXIO:
        check_regular(os.stat(path), path, most_bytes)


def require_regular(path: AnyPath, most_bytes: int) -> None:
    """For a library that opens the file itself. Raises as `open_regular` does."""
    try:
        state = os.stat(path)
    except OSError as error:
        _explain(error, path, most_bytes)
        raise
    check_regular(state, path, most_bytes)


def check_regular(state: os.stat_result, path: AnyPath, most_bytes: int) -> None:
    """What `open_regular` checks, of the state of a file. Raises as that does."""
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, no file", str(path))
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise NoRegularFile(errno.EINVAL, f"{kind}, no regular file", str(path))
    if state.st_size > most_bytes:
        raise _too_large(f"{state.st_size:,} bytes", path, most_bytes)


def read_regular(path: AnyPath, most_bytes: int) -> bytes:
    """All of a file. Raises as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        # Of a file that grows meanwhile not more than allowed either.
        content = file.read(min(most_bytes, os.fstat(file.fileno()).st_size) + 1)
        while len(content) <= most_bytes and (more := file.read(2**20)):  # as much is allocated
            content += more
    if len(content) > most_bytes:
        raise _too_large("it grows", path, most_bytes)
    return content


def read_text(path: AnyPath, most_bytes: int) -> str:
    """All of a UTF-8 file, without the mark some editors put at its start.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        NoRegularFile, FileTooLarge, OSError: as of `open_regular`.
    """
    return read_regular(path, most_bytes).decode("utf-8-sig")


def _too_large(found: str, path: AnyPath, most_bytes: int) -> FileTooLarge:
    return FileTooLarge(errno.EFBIG, f"{found}, more than the {most_bytes:,} allowed", str(path))
