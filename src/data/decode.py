"""Bytes of an image file -> (H, W, 3) uint8, RGB, with Pillow's pixels; see also `channels`.

Plain JPEGs go through simplejpeg (libjpeg-turbo, as Pillow uses, without Pillow's copies and with
the interpreter's lock released). Whatever it refuses, and every other format, goes through Pillow,
so that nothing is readable or damaged by one of them only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Callable, Optional, Tuple

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from ..errors import UserError, on_one_line
from ..runtime.regular_files import IMAGE_BYTES, open_regular
from .augment.parts import CropBox, Part, whole
from .channels import with_channels
from .image_bombs import (
    MOST_JPEG_SCANS,
    MeteredBytes,
    count_jpeg_scans,
    effort_of,
    size_inside,
    size_of,
)
from .image_formats import readable_formats
from .jpeg_parts import Libraries, find_libraries, read_part
from .pixel_budget import BUDGET_PIXELS, JPEG_PIXELS, PixelsInFlight, Share, budget_file

# The limit at which Pillow itself refuses an image.
LARGEST_MAX_PIXELS = 178_956_970
# Larger files are read alone, because what is in them is known too late to wait for room.
_FREE_FILE_BYTES = 1 << 24
# Larger images become RGB a band of them at a time.
_BAND_PIXELS = 1 << 20
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
_TIFF_BITS, _TIFF_PHOTOMETRIC, _ORIENTATION = 258, 262, 274

Colour = Tuple[int, int, int]
# Height and width of an image -> the box of it that is needed.
BoxSeen = Callable[[int, int], CropBox]
WHITE: Colour = (255, 255, 255)


class BadImageError(UserError):
    """An image that cannot be read, in one line: which, and why."""


def read_image_file(path: str, budget: str = "") -> bytes:
    """The content of a file.

    Args:
        path: of the file.
        budget: file of the budget that a large one takes all of, see `pixel_budget`.

    Raises:
        BadImageError: it cannot be opened, is no regular file, or is larger than any image may be.
    """
    try:
        with PixelsInFlight() as share, open_regular(path, IMAGE_BYTES) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _FREE_FILE_BYTES:
                share.take(budget, BUDGET_PIXELS)
            return file.read(size)
    except OSError as error:
        raise BadImageError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Decoder:
    """How image files are read.

    Attributes:
        max_pixels: larger images are refused before they are unpacked.
        turns: as the EXIF block says, which timm does not do.
        background: what shows through transparent pixels; None: their own colour, as in timm.
        budget: file of the budget that larger images take their share of, see `pixel_budget`.
        parts: what decodes part of a JPEG; None: nothing here does.
        channels: of the network's images; see `with_channels`. 4: nothing shows through.
    """

    max_pixels: int = BUDGET_PIXELS
    turns: bool = False
    background: Optional[Colour] = WHITE
    budget: str = field(default_factory=budget_file, compare=False, repr=False)
    parts: Optional[Libraries] = field(default_factory=find_libraries, compare=False, repr=False)
    channels: int = 3

    def read_part(self, path: str, box_seen: BoxSeen) -> Part:
        """As much of a file as is seen, or more; as of `read`."""
        with PixelsInFlight():
            return self.decode_part(read_image_file(path, self.budget), path, box_seen)

    def read(self, path: str) -> np.ndarray:
        """The pixels of a file, as of `decode`.

        Raises:
            BadImageError: as of `read_image_file` and `decode`.
        """
        with PixelsInFlight():
            return self.decode(read_image_file(path, self.budget), path)

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The pixels of the file `name`: (H, W, 3) uint8, RGB; for 4 channels (H, W, 4).

        Of several pictures in it the first; of 16 bits the upper 8. A pixel's value hangs on no
        other pixel.

        Raises:
            BadImageError: empty, truncated, too large, no image, or numbers without a known range.
        """
        if not data:
            raise BadImageError(f"{name}: empty file")
        with PixelsInFlight() as share:
            share.note(data)
            if data.startswith(_JPEG_START):
                scans = _check_scans(data, name)
                turns = self._may_turn(data)
                pixels = None if turns else self._decode_jpeg(data, name, share, scans)
                if pixels is not None:
                    return with_channels(pixels, self.channels)
            return self._decode_with_pillow(data, name, share)

    def decode_part(self, data: bytes, name: str, box_seen: BoxSeen) -> Part:
        """As much of the file `name` as is seen, or more; as of `decode`."""
        part = self._part_of_jpeg(data, name, box_seen) if data.startswith(_JPEG_START) else None
        return part or whole(self.decode(data, name))

    def _part_of_jpeg(self, data: bytes, name: str, box_seen: BoxSeen) -> Optional[Part]:
        """None: it has to be decoded whole."""
        if self.parts is None or self._may_turn(data):
            return None
        _check_scans(data, name)
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            return None
        self._checked((width, height), name)
        box = box_seen(height, width)
        if colours not in _TURBO_COLOURS or box[2:] == (height, width):
            return None
        with PixelsInFlight() as share:
            share.note(data)
            share.take(self.budget, _counted(box[2] * box[3], 1), image=height * width)
            part = read_part(self.parts, data, (height, width), box)
        return part and part._replace(pixels=with_channels(part.pixels, self.channels))

    def _may_turn(self, data: bytes) -> bool:
        return self.turns and any(block in data for block in _ORIENTED)

    def _decode_jpeg(self, data: bytes, name: str, share: Share, scans: int) -> np.ndarray | None:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in _TURBO_COLOURS:
                return None
            pixels = self._checked((width, height), name)
            share.take(self.budget, _counted(pixels, scans), image=pixels)
            return simplejpeg.decode_jpeg(data, "RGB")
        except BadImageError:
            raise
        except ValueError:
            # Warnings count as errors there; Pillow decides which of them matter.
            return None

    def _checked(self, size: Tuple[int, int], name: str, effort: int = 1) -> int:
        """Pixels, times the effort that one of them takes."""
        pixels = size[0] * size[1] * effort
        if pixels > self.max_pixels:
            times = f", which count {effort} times" if effort > 1 else ""
            remedy = f"; --max_image_pixels {pixels} allows it"
            raise BadImageError(
                f"{name}: {size[0]}x{size[1]} pixels{times}, more than max_image_pixels "
                f"{self.max_pixels}{remedy if pixels <= LARGEST_MAX_PIXELS else '; shrink it'}"
            )
        return pixels

    def _decode_with_pillow(self, data: bytes, name: str, share: Share) -> np.ndarray:
        try:
            share.take(self.budget, self._checked(size_inside(data), name))
            stream = MeteredBytes(data)
            with Image.open(stream, formats=readable_formats()) as image:
                size, effort = size_of(image), effort_of(image)
                share.take(self.budget, self._checked(size, name, effort))
                stream.allow(size[0] * size[1])
                grey = _GreyDepth.of(image)
                image.load()
                orientation = image.getexif().get(_ORIENTATION) if self.turns else None
                pixels = _in_bands(image, grey, self.background, self.channels)
            return _turned(pixels, orientation)
        except (BadImageError, MemoryError):
            raise
        # Pillow's readers raise nearly anything on damaged bytes: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error.
        except Exception as error:
            reason = on_one_line(str(error).replace(str(error.__class__), ""))
            # Its own message holds the address of a buffer.
            reason = _kind_of(data) if "cannot identify" in reason else reason
            raise BadImageError(f"{name}: not a readable image ({reason})") from error


def _check_scans(data: bytes, name: str) -> int:
    """How many there are."""
    scans = count_jpeg_scans(data)
    if scans > MOST_JPEG_SCANS:
        raise BadImageError(
            f"{name}: a JPEG of {scans} scans, more than the {MOST_JPEG_SCANS} allowed; save it "
            "anew"
        )
    return scans


def _counted(pixels: int, scans: int) -> int:
    """What pixels of a JPEG take of the budget."""
    return -(-pixels // JPEG_PIXELS) if scans == 1 else pixels


def _turned(pixels: np.ndarray, orientation: Optional[int]) -> np.ndarray:
    """As the tag Orientation of EXIF says, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


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


def _in_bands(
    image: Image.Image, grey: _GreyDepth, background: Optional[Colour], channels: int
) -> np.ndarray:
    """(H, W, 3 or 4); what every step copies is a band of a large image."""
    height = max(1, _BAND_PIXELS // image.width)
    if image.height <= height:
        return _band_of(image, grey, background, channels)
    pixels = np.empty((image.height, image.width, max(3, channels)), np.uint8)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        band = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = _band_of(band, grey, background, channels)
    return pixels


def _band_of(
    image: Image.Image, grey: _GreyDepth, background: Optional[Colour], channels: int
) -> np.ndarray:
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
    if channels == 4 and alpha is not None:
        return np.dstack([np.asarray(colours), np.asarray(alpha)])
    if background is not None and alpha is not None:
        canvas = Image.new("RGB", colours.size, background)
        canvas.paste(colours, mask=alpha)
        colours = canvas
    return with_channels(np.array(colours), channels)


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
