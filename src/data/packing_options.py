"""The options of the programs that write packed data sets."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from ..errors import UserError
from ..runtime.entry import CommandParser, whole
from ..runtime.plain_numbers import whole_number

if TYPE_CHECKING:  # MindSpore takes seconds to import
    from .packing import PackSettings

_RANGES = {
    "short_side": (0, 65_500),
    "quality": (1, 100),
    "images_per_shard": (1, 10_000_000),
    "num_workers": (1, 1024),
    "max_image_pixels": (1, 178_956_970),
}
_NAMES = (*_RANGES, "exif_orientation", "background", "on_bad_image")


def add_packing_options(parser: CommandParser) -> None:
    """How images are packed, and by how many threads."""
    parser.add_argument(
        "--short_side",
        type=whole,
        default=0,
        help="shrink larger images until their shorter side has so many pixels (default 0: do not)",
    )
    parser.add_argument(
        "--quality",
        type=whole,
        default=95,
        help="JPEG quality of shrunk images, 1 to 100 (default %(default)s)",
    )
    parser.add_argument(
        "--images_per_shard",
        type=whole,
        default=10_000,
        help="images in each packed file (default: %(default)s)",
    )
    parser.add_argument(
        "--exif_orientation",
        action="store_true",
        help="rotate images that are shrunk as their EXIF block or XMP says",
    )
    parser.add_argument(
        "--background",
        type=colour,
        default=(255, 255, 255),
        metavar="R,G,B",
        help="colour behind transparent pixels of shrunk images, or null (default 255,255,255)",
    )
    parser.add_argument(
        "--on_bad_image",
        choices=("raise", "skip"),
        default="raise",
        help="an image that cannot be read is an error, or is left out and named (default: raise)",
    )
    parser.add_argument(
        "--max_image_pixels",
        type=whole,
        default=89_478_485,
        help="refuse images of more pixels (default %(default)s)",
    )
    parser.add_argument(
        "--num_workers",
        type=whole,
        default=os.cpu_count() or 1,
        help="threads that decode (default: the cores)",
    )


def check_packing_options(arguments: argparse.Namespace) -> None:
    """Raises UserError: a value is out of range."""
    for name, (low, high) in _RANGES.items():
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise UserError(f"--{name} {value}: allowed: {low} to {high}")


def given_options(arguments: argparse.Namespace, parser: CommandParser) -> List[str]:
    """Those that have another value than by default."""
    return [name for name in _NAMES if getattr(arguments, name) != parser.get_default(name)]


def packing_settings(arguments: argparse.Namespace, data_set: str) -> PackSettings:
    """What the options say, for the images of a `set`."""
    from .packing import PackSettings

    return PackSettings(
        set=data_set,
        short_side=arguments.short_side,
        quality=arguments.quality,
        images_per_shard=arguments.images_per_shard,
        skips_bad=arguments.on_bad_image == "skip",
        exif_orientation=arguments.exif_orientation,
        background=arguments.background,
        label_separator=getattr(arguments, "label_separator", None),
    )


def report_packed(manifest: Dict[str, Any], folder: Path, num_images: int) -> None:
    """Prints what `packing.pack_split` has written into `folder`, and what it left out."""
    for reason in manifest["skipped"]:
        print(f"left out: {reason}", file=sys.stderr)
    print(
        f"{folder}: {manifest['images']} of {num_images} images in {len(manifest['shards'])} "
        f"shards, {len(manifest['class_names'])} classes"
    )


def colour(text: str) -> Optional[Tuple[int, int, int]]:
    """`R,G,B`, `[R, G, B]` or `null`.

    Raises:
        ArgumentTypeError: something else.
    """
    if text == "null":
        return None
    try:
        red, green, blue = (
            whole_number(word.strip(), most=255) for word in text.strip("[]").split(",")
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r}: allowed: three of 0 to 255, or null"
        ) from error
    return red, green, blue
