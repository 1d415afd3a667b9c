"""What unpacking an image takes beyond what its width and height say.

A file of a few kilobytes can ask for minutes or gigabytes although its size looks ordinary.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Iterator, Tuple

from PIL import Image

# Pictures of the usual encoders have 1 to 15.
MOST_JPEG_SCANS = 100
# Of one file while it is opened; four to a pixel may follow, for readers that take single bytes.
_MOST_READS = 200_000
# Times as much memory or time, measured, as 12 bytes and 0.1 microseconds a pixel.
_EFFORT = {"JPEG2000": 4, "WEBP": 2, "AVIF": 2}
_EFFORT_OF_LAB = 4
_EFFORT_IN_PYTHON = 20
_WINDOWS_ICON = b"\0\0\1\0"
_ICONS = (_WINDOWS_ICON, b"icns")
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
# Frames without and with scans of their own for parts of a picture.
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC3, 0xC9, 0xCB), (0xC2, 0xC6, 0xCA, 0xCE)
_START_OF_SCAN = 0xDA
# Where PNG and JPEG 2000 have width and height: behind these.
_PNG_SIZE = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{8})", re.DOTALL)
_JPEG2000_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{8})", re.DOTALL)


class TooMuchReading(ValueError):
    """A file whose reader goes over it again and again."""


class MeteredBytes(io.BytesIO):
    """Bytes that are read so often, and so many of them, as an honest file needs.

    Raises:
        TooMuchReading: by `read`. Parts that lie over each other, or parts without end.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._bytes_left = 4 * len(data) + (1 << 20)
        self._reads_left = _MOST_READS

    def allow(self, pixels: int) -> None:
        """Lets so many pixels be read, once the header is known."""
        self._reads_left += 4 * pixels

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._bytes_left -= len(data)
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise TooMuchReading("its parts overlap, or are too many")
        return data


def effort_of(image: Image.Image) -> int:
    """How many times as much as others of its size an image takes that is open, not yet loaded."""
    tiles = getattr(image, "tile", [])
    # The plugins register the decoders they have written in Python.
    if any(tile[0] in Image.DECODERS for tile in tiles):
        return _EFFORT_IN_PYTHON
    if image.mode == "LAB":
        return _EFFORT_OF_LAB
    return _EFFORT.get(str(image.format), 1)


def size_of(image: Image.Image) -> Tuple[int, int]:
    """Width and height of an open image, or of its tiles, which in TIFF may be larger."""
    tags = getattr(image, "tag_v2", {})
    tile = (int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_LENGTH, 1)))
    return max(image.size, tile, key=lambda size: size[0] * size[1])


def size_inside(data: bytes) -> Tuple[int, int]:
    """Width and height of the largest picture in an icon, which says less of it; else (0, 0).

    Pillow unpacks it where it opens the icon.
    """
    sizes = [(0, 0)]
    if data.startswith(_ICONS):
        for pattern in (_PNG_SIZE, _JPEG2000_SIZE):
            sizes += [struct.unpack(">II", found[1]) for found in pattern.finditer(data)]
    if data.startswith(_WINDOWS_ICON):
        sizes += _bitmap_sizes(data)
    return max(sizes, key=lambda size: size[0] * size[1])


def _bitmap_sizes(data: bytes) -> Iterator[Tuple[int, int]]:
    entries = data[6 : 6 + 16 * int.from_bytes(data[4:6], "little")]
    for at in range(12, len(entries), 16):
        start = int.from_bytes(entries[at : at + 4], "little")
        header = data[start : start + 12]
        if len(header) == 12 and not header.startswith(b"\x89PNG"):
            width, height = struct.unpack("<ii", header[4:])
            yield abs(width), abs(height)


def count_jpeg_scans(data: bytes) -> int:
    """Passes over a JPEG's pixels: each costs the time of all, with hardly a byte of its own."""
    at, components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SEQUENTIAL:
            components = data[at + 9]
        if marker == _START_OF_SCAN and components == data[at + 4]:
            return 1
        if marker in _PROGRESSIVE or marker in (0xFF, _START_OF_SCAN):
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    # In coded pixels 0 follows each 255.
    return data.count(bytes([0xFF, _START_OF_SCAN]))
