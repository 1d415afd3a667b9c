"""Part of a JPEG, decoded without the rest: the pixels that a crop sees.

libjpeg-turbo offers it and no Python package does, so `native/jpeg_part.cc` is compiled where a
compiler and libjpeg-turbo's header are at hand (Debian: libjpeg-dev), and calls the decoder that
Pillow has loaded. Elsewhere images are decoded whole, with the same pixels.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import re
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from ..errors import UserError
from ..runtime.native_library import NativeLibrary
from ..runtime.regular_files import read_text
from .augment.parts import CropBox, Part

_LOGGER = logging.getLogger(__name__)

# Version of libjpeg's interface, by the ending of the library.
_INTERFACES = {"62": 62, "8": 80}
_LIBJPEG = re.compile(r"/\S.*/libjpeg[^/]*\.so\.[\d.]+$")
_MAPS_BYTES = 1 << 24
_NAMES = (
    *("jpeg_std_error", "jpeg_CreateDecompress", "jpeg_mem_src", "jpeg_read_header"),
    *("jpeg_start_decompress", "jpeg_crop_scanline", "jpeg_skip_scanlines"),
    *("jpeg_read_scanlines", "jpeg_destroy_decompress"),
)
# More columns than were asked for may be decoded: whole blocks of 32 pixels, and a margin.
_MORE_COLUMNS = 64


class Libraries(NamedTuple):
    """What decodes parts; plain data, for worker processes."""

    ours: str
    pillows: str


@functools.cache
def find_libraries() -> Optional[Libraries]:
    """None: images are decoded whole here; the log says why, for who looks for it."""
    try:
        pillows, interface = _pillows_decoder()
        flags = f"-std=c++17 -O2 -fPIC -shared -DJPEG_INTERFACE={interface}".split()
        source = NativeLibrary("jpeg", Path(__file__).parent / "native", tuple(flags))
        libraries = Libraries(str(source.path()), pillows)
        _check(libraries)
        return libraries
    except (UserError, OSError, AttributeError, LookupError, ValueError) as error:
        _LOGGER.debug("JPEGs are decoded whole: %s", error)
        return None


def _pillows_decoder() -> Tuple[str, int]:
    """Path of the libjpeg that this process has loaded with Pillow, and its interface.

    Raises:
        ValueError: it has none, or one of another interface.
    """
    lines = read_text(Path("/proc/self/maps"), _MAPS_BYTES).splitlines()
    paths = sorted({path for line in lines for path in _LIBJPEG.findall(line)})
    # Other packages may have loaded others; without a copy of its own Pillow has the system's.
    own = [path for path in paths if "/pillow.libs/" in path.lower()] or paths
    if len(own) != 1:
        raise ValueError(f"{len(own)} libjpeg are loaded")
    return own[0], _INTERFACES[own[0].rpartition(".so.")[2].partition(".")[0]]


@functools.cache
def _load(libraries: Libraries) -> Tuple[Callable[..., int], ctypes.Array]:
    """The function, and the table of Pillow's that it calls."""
    decoder = ctypes.CDLL(libraries.pillows)
    places = [ctypes.cast(getattr(decoder, name), ctypes.c_void_p).value for name in _NAMES]
    read = ctypes.CDLL(libraries.ours).jpeg_part_read
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    read.argtypes = [pointer, ctypes.c_char_p, size, pointer, pointer, size]
    return read, (ctypes.c_void_p * len(places))(*places)


def read_part(
    libraries: Libraries, data: bytes, size: Tuple[int, int], box: CropBox
) -> Optional[Part]:
    """The box of a JPEG, and maybe columns beside it.

    Args:
        size: (height, width) of the image, pixels.

    Returns:
        None: the whole image is to be decoded instead. It has several scans, or something is wrong
        with it, and what that means depends on all of it.
    """
    read, table = _load(libraries)
    top, left, high, wide = box
    got = (ctypes.c_int64 * 4)(left, top, wide, high)
    pixels = np.empty(high * min(size[1], wide + _MORE_COLUMNS) * 3, np.uint8)
    if read(table, data, len(data), got, pixels.ctypes.data, pixels.size) != 0:
        return None
    return Part(pixels[: high * got[2] * 3].reshape(high, got[2], 3), top, got[0], size)


def _check(libraries: Libraries) -> None:
    """Compares parts of a picture with Pillow's whole one.

    Raises:
        ValueError: they differ.
    """
    colours = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    picture = Image.fromarray(colours).resize((150, 120), Image.Resampling.BICUBIC)
    for subsampling in range(3):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90, subsampling=subsampling)
        with Image.open(file) as image:
            whole = np.array(image)
        part = read_part(libraries, file.getvalue(), (120, 150), (33, 47, 50, 61))
        if part is None or not np.array_equal(
            part.pixels[:, 47 - part.left :][:, :61], whole[33:83, 47:108]
        ):
            raise ValueError("part of a picture has other pixels than in the whole")
