"""Bytes of an image file -> (H, W, 3) uint8, RGB, with Pillow's pixels.

Plain JPEGs go through simplejpeg (libjpeg-turbo, as Pillow uses, without Pillow's copies and with
the interpreter's lock released). Whatever it refuses, and every other format, goes through Pillow,
so that nothing is readable or damaged by one of them only.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import simplejpeg
from PIL import Image, ImageCms, ImageOps

from ..errors import UserError, on_one_line
from ..runtime.regular_files import IMAGE_BYTES, read_regular
from .image_formats import readable_formats

# The limit at which Pillow itself refuses an image.
LARGEST_MAX_PIXELS = 178_956_970
_JPEG_START = b"\xff\xd8\xff"
_TURBO_COLOURS = ("YCbCr", "Gray", "RGB")
# Beginnings of the blocks in which Pillow looks for a JPEG's orientation.
_ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
# What files start with that are no image, or not one that Pillow reads.
_FOREIGN = {
    b"ftypheic": "HEIC; convert it to JPEG",
    b"ftypheix": "HEIC; convert it to JPEG",
    b"ftypmif1": "HEIC; convert it to JPEG",
    b"ftypmsf1": "HEIC; convert it to JPEG",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "XML, maybe SVG",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
}
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262

Colour = Tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


class BadImageError(UserError):
    """An image that cannot be read, in one line: which, and why."""


def read_image_file(path: str) -> bytes:
    """The content of a file.

    Raises:
        BadImageError: no regular file, one that cannot be opened, or larger than any image.
    """
    try:
        return read_regular(path, IMAGE_BYTES)
    except OSError as error:
        raise BadImageError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Decoder:
    """How image files are read.

    Attributes:
        max_pixels: larger images are refused before they are unpacked.
        turns: as the EXIF block says, which timm does not do.
        background: what shows through transparent pixels; None: their own colour, as in timm.
    """

    max_pixels: int = LARGEST_MAX_PIXELS
    turns: bool = False
    background: Optional[Colour] = WHITE

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The pixels of the file `name`: (H, W, 3) uint8, RGB.

        Of several pictures in it the first; of 16 bits the upper 8. A pixel's value hangs on no
        other pixel.

        Raises:
            BadImageError: empty, truncated, too large, no image, or numbers without a known range.
        """
        if not data:
            raise BadImageError(f"{name}: empty file")
        may_turn = self.turns and any(block in data for block in _ORIENTED)
        if data.startswith(_JPEG_START) and not may_turn:
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
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                self._check_size(image.width, image.height, name)
                grey = _GreyDepth.of(image)
                image.load()
                turned = ImageOps.exif_transpose(image) if self.turns else image
                return _to_rgb(turned, grey, self.background)
        except (BadImageError, MemoryError):
            raise
        # Pillow's readers raise nearly anything on damaged bytes: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error.
        except Exception as error:
            reason = on_one_line(str(error).replace(str(error.__class__), ""))
            # Its own message holds the address of a buffer.
            reason = _kind_of(data) if "cannot identify" in reason else reason
            raise BadImageError(f"{name}: not a readable image ({reason})") from error


def _kind_of(data: bytes) -> str:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = (kind for sign, kind in _FOREIGN.items() if start.startswith(sign.lower()))
    # The name of a container of this family stands behind its length.
    boxes = (kind for sign, kind in _FOREIGN.items() if data[4:12] == sign)
    return next(kinds, None) or next(boxes, "unknown format")


@dataclass(frozen=True)
class _GreyDepth:
    """What a file says of its grey values, and Pillow's modes do not.

    Attributes:
        bits: of a value; None: no range is known.
        scale: of PNG's transparent value, which is stored before it becomes 8 bits.
        is_inverted: white is 0, and Pillow has not turned it round.
    """

    bits: Optional[int]
    scale: int
    is_inverted: bool

    @classmethod
    def of(cls, image: Image.Image) -> _GreyDepth:
        """Of an image that is not loaded yet."""
        tags, tiles = getattr(image, "tag_v2", {}), getattr(image, "tile", [])
        # Pillow has 16 bits of these two formats as 32, depending on its version.
        is_wide = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
        raw = tiles[0][3] if image.format == "PNG" and tiles else ""
        return cls(
            bits=(12 if tags.get(_TIFF_BITS) == (12,) else 16) if is_wide else None,
            scale={"L;2": 85, "L;4": 17}.get(str(raw), 1),
            is_inverted=tags.get(_TIFF_PHOTOMETRIC) == 0,
        )


def _to_rgb(image: Image.Image, grey: _GreyDepth, background: Optional[Colour]) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating point pixels, of no known range; convert them to 8 or 16 bits")
    if image.mode.startswith("I"):
        colours, alpha = _split_wide(image, grey)
    elif image.mode == "LAB":
        colours, alpha = _lab_to_rgb(image), None
    elif _may_be_transparent(image):
        colours, alpha = _split_alpha(image, grey.scale)
    else:
        # convert() copies even what is RGB already.
        colours, alpha = image if image.mode == "RGB" else image.convert("RGB"), None
    if background is not None and alpha is not None:
        canvas = Image.new("RGB", colours.size, background)
        canvas.paste(colours, mask=alpha)
        colours = canvas
    return np.array(colours)


_Split = Tuple[Image.Image, Optional[Image.Image]]


def _split_wide(image: Image.Image, grey: _GreyDepth) -> _Split:
    """Of more than 8 bits, see `_split_alpha`."""
    if grey.bits is None:
        raise ValueError("32-bit or signed pixels, of no known range; convert them to 8 or 16 bits")
    wide = np.asarray(image).astype(np.int64)
    value = (1 << grey.bits) - 1 - wide if grey.is_inverted else wide
    # convert() would cut everything above 255 off.
    colours = Image.fromarray((value >> grey.bits - 8).astype(np.uint8)).convert("RGB")
    key = image.info.get("transparency")
    return colours, None if key is None else _mask_of(wide != key)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only where it works in place
    return converted


def _may_be_transparent(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return True
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _split_alpha(image: Image.Image, scale: int) -> _Split:
    """Colours, RGB, and opacity, L."""
    key = image.info.get("transparency")
    if image.mode in ("1", "L") and isinstance(key, int):
        value = image.convert("L")
        # Black and white: Pillow has 1 or 255 for white.
        clear = 255 * (key > 0) if image.mode == "1" else key * scale
        return value.convert("RGB"), _mask_of(np.asarray(value) != clear)
    if image.mode == "RGB":
        return image, _mask_of((np.asarray(image) != key).any(axis=2))
    # There is no way from premultiplied grey but this.
    straight = image.convert("LA") if image.mode == "La" else image
    bands = straight.convert("RGBA").split()
    return Image.merge("RGB", bands[:3]), bands[3]


def _mask_of(is_opaque: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(is_opaque, 255, 0).astype(np.uint8))
