"""The image formats that are read, and the endings of their files: the only table of them."""

from __future__ import annotations

import functools
import warnings
from typing import FrozenSet, Tuple

from PIL import Image

# Pillow's names, the most frequent first. Left out of what Pillow opens: what it hands to another
# program (EPS to Ghostscript, WMF), and what is no picture (GRIB, HDF5, MPEG, FITS).
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "MPO", "DIB"),
    *("TGA", "ICO", "CUR", "ICNS", "PCX", "PSD", "QOI", "SGI", "SUN", "DDS", "XBM", "XPM"),
)


@functools.cache
def readable_formats() -> Tuple[str, ...]:
    """Those formats that the installed Pillow opens, by its names."""
    Image.init()
    # Of damage that it passes over, once for every tag of every file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def readable_extensions() -> FrozenSet[str]:
    """Endings of files of these formats, lower case, with the dot."""
    formats = readable_formats()
    return frozenset(
        extension for extension, name in Image.registered_extensions().items() if name in formats
    )
