"""Memory for pixels, shared by all threads and processes that decode images for a program.

It is counted in pixels, of 12 bytes: the most that decoding one takes. Small images take nothing
of it. Larger ones wait until what they need is free, so that they are decoded beside each other as
far as there is room, and alone otherwise.

The shares are locks on bytes of a file in memory, which the kernel releases when their owner ends,
however it does. Every share opens the file anew, because such a lock belongs to an open file.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import math
import os
import struct
import threading
from types import TracebackType
from typing import Callable, List, Optional, Type, Union

import xxhash

# 1 GiB of 12 bytes. Pillow warns of larger images.
BUDGET_PIXELS = 89_478_485
# Images up to this size take no share: 64 workers hold 3/4 of a budget with them.
FREE_PIXELS = 1 << 20
# Pixels of a JPEG in one scan that count as one: 3 bytes each, and 1 of the file. Of several scans
# the coefficients are kept.
JPEG_PIXELS = 3
_SLOTS = 64
# The byte whose owner takes slots; all others wait for it, so nobody waits for two at a time.
_GATE = _SLOTS

_THREAD = threading.local()
# Where there is no such file: one larger image at a time in each process.
_ALONE = threading.Lock()


@functools.cache
def budget_file() -> str:
    """The file of this process's budget, which its worker processes open too."""
    if not hasattr(os, "memfd_create"):
        return ""
    return f"/proc/{os.getpid()}/fd/{os.memfd_create('pixels')}"


class Share:
    """What one thread has taken of a budget.

    Attributes:
        pixels: of the largest image it was taken for, small ones too.
        content: 64 bits by which the image that was read last is known again; 0: none was.
    """

    def __init__(self) -> None:
        self.pixels = 0
        self.content = 0
        self._slots = 0
        self._give_back: Optional[Callable[[], None]] = None

    def take(self, path: str, pixels: int, *, image: int = 0) -> None:
        """Waits until there is room for so many; more than the budget take all of it.

        Args:
            path: of the budget's file.
            pixels: to be held at a time, of 12 bytes.
            image: pixels of the image, where those are fewer.
        """
        self.pixels = max(self.pixels, pixels, image)
        if pixels <= FREE_PIXELS:
            return
        slots = _slots_of(pixels)
        if slots > self._slots:
            self.release()
            self._give_back = _locked(path, slots)
            self._slots = slots

    def note(self, content: Union[bytes, memoryview]) -> None:
        """Remembers which image was read, by its file or its pixels."""
        self.content = xxhash.xxh3_64_intdigest(content)

    def release(self) -> None:
        if self._give_back is not None:
            self._give_back()
        self._slots, self._give_back = 0, None


class PixelsInFlight:
    """Pixels that a thread holds within a block.

    What is taken in it stays taken until the outermost such block of the thread ends; a share that
    is too small is given back before a larger one is waited for.
    """

    def __enter__(self) -> Share:
        share: Optional[Share] = getattr(_THREAD, "share", None)
        self._is_outermost = share is None
        if share is None:
            share = _THREAD.share = Share()
        return share

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._is_outermost:
            _THREAD.share.release()
            _THREAD.share = None


def most_at_once(pixels: int) -> float:
    """How many images that count so many pixels are decoded beside each other."""
    return math.inf if pixels <= FREE_PIXELS else _SLOTS // _slots_of(pixels)


def _slots_of(pixels: int) -> int:
    return min(-(-pixels * _SLOTS // BUDGET_PIXELS), _SLOTS)


def _locked(path: str, slots: int) -> Callable[[], None]:
    """Takes slots; returns what gives them back."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no /proc, or the process that made the file has ended
        _ALONE.acquire()
        return _ALONE.release
    give_back = functools.partial(_close, file)
    try:
        _lock(file, _GATE, waits=True)
        taken: List[int] = []
        for waits in (False, True):
            for slot in range(_SLOTS):
                if len(taken) < slots and slot not in taken and _lock(file, slot, waits=waits):
                    taken.append(slot)
        _set_lock(file, fcntl.F_UNLCK, _GATE, 1, fcntl.F_OFD_SETLK)
    except BaseException:
        give_back()
        raise
    return give_back


def _close(file: int) -> None:
    # A process that was forked meanwhile has the same file open.
    with contextlib.suppress(OSError):
        _set_lock(file, fcntl.F_UNLCK, 0, _SLOTS + 1, fcntl.F_OFD_SETLK)
    os.close(file)


def _lock(file: int, start: int, *, waits: bool) -> bool:
    command = fcntl.F_OFD_SETLKW if waits else fcntl.F_OFD_SETLK
    try:
        _set_lock(file, fcntl.F_WRLCK, start, 1, command)
    except BlockingIOError:
        return False
    return True


def _set_lock(file: int, kind: int, start: int, length: int, command: int) -> None:
    # struct flock of 64-bit systems.
    fcntl.fcntl(file, command, struct.pack("hhqqq", kind, os.SEEK_SET, start, length, 0))
