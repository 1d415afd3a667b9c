"""Bytes of an image file -> (H, W, 3) uint8, RGB, with Pillow's pixels.

Plain JPEGs go through simplejpeg (libjpeg-turbo, as Pillow uses, without Pillow's copies and with
the interpreter's lock released). Whatever it refuses, and every other format, goes through Pillow,
so that nothing is readable or damaged by one of them only.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from ..errors import UserError, on_one_line

# The limit at which Pillow itself refuses an image.
LARGEST_MAX_PIXELS = 178_956_970
_JPEG_START = b"\xff\xd8\xff"
_TURBO_COLOURS = ("YCbCr", "Gray", "RGB")
# Where a JPEG's EXIF block must start.
_EXIF_SEARCH = 65536


class BadImageError(UserError):
    """An image that cannot be read, in one line: which, and why."""


@dataclass(frozen=True)
class Decoder:
    """How image files are read.

    Attributes:
        max_pixels: larger images are refused before they are unpacked.
        turns: as the EXIF block says, which timm does not do.
    """

    max_pixels: int = LARGEST_MAX_PIXELS
    turns: bool = False

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The pixels of the file `name`: (H, W, 3) uint8, RGB.

        Transparency is dropped, 16-bit grey keeps its upper 8 bits.

        Raises:
            BadImageError: empty, truncated, too large, or no image at all.
        """
        if not data:
            raise BadImageError(f"{name}: empty file")
        needs_exif = self.turns and b"Exif\0\0" in data[:_EXIF_SEARCH]
        if data.startswith(_JPEG_START) and not needs_exif:
            pixels = self._decode_jpeg(data, name)
            if pixels is not None:
                return pixels
        return self._decode_with_pillow(data, name)

    def _decode_jpeg(self, data: bytes, name: str) -> np.ndarray | None:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in _TURBO_COLOURS:
                return None
            self._check_size(width, height, name)
            return simplejpeg.decode_jpeg(data, "RGB")
        except BadImageError:
            raise
        except ValueError:
            # Warnings count as errors there; Pillow decides which of them matter.
            return None

    def _check_size(self, width: int, height: int, name: str) -> None:
        if width * height > self.max_pixels:
            raise BadImageError(
                f"{name}: {width}x{height} pixels, more than max_image_pixels {self.max_pixels}"
            )

    def _decode_with_pillow(self, data: bytes, name: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(data)) as image:
                self._check_size(image.width, image.height, name)
                image.load()
                turned = ImageOps.exif_transpose(image) if self.turns else image
                return _to_rgb(turned)
        except (BadImageError, MemoryError):
            raise
        # Pillow's readers raise nearly anything on damaged bytes: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error.
        except Exception as error:
            reason = on_one_line(str(error).replace(str(error.__class__), ""))
            # Its own message holds the address of a buffer.
            reason = "unknown format" if "cannot identify" in reason else reason
            raise BadImageError(f"{name}: not a readable image ({reason})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise struct.error("floating point pixels")
    if image.mode.startswith("I"):
        # convert() would cut everything above 255 off.
        wide = np.clip(np.asarray(image, np.int64), 0, 65535)
        grey = (wide >> 8 if wide.max(initial=0) > 255 else wide).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    # convert() copies even what is RGB already.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
