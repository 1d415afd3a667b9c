"""From ImageNet's archives to a data set, split by split."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import List, Sequence

from ..errors import some_of
from ..runtime.files import write_whole
from .archive_extraction import check_room, extract_split, missing_bytes
from .devkit import Devkit
from .imagenet_archives import ImageArchive, common_classes, list_images
from .packing_options import packing_settings, report_packed

_LOGGER = logging.getLogger(__name__)

# In the order of the labels; predict.py takes it as --labels.
WORDS = "synset_words.txt"


def extract(archives: Sequence[ImageArchive], output: Path, *, allow_partial: bool) -> List[str]:
    """Writes `output`/<split>/<class>/<image>; returns the classes, by label.

    Raises:
        UserError: an archive is damaged or not whole, or the disk has no room.
    """
    class_names = _classes_of(archives)
    missing = sum(missing_bytes(a, class_names, output / a.split) for a in archives)
    check_room(output, missing)
    for archive in archives:
        target = output / archive.split
        num_images = extract_split(archive, class_names, target)
        archive.check_count(num_images, allow_partial=allow_partial)
        print(f"{target}: {num_images:,} images, {len(class_names):,} classes")
    return class_names


def pack(archives: Sequence[ImageArchive], arguments: argparse.Namespace) -> List[str]:
    """Writes shards into `output`/<split>; returns the classes, by label.

    Raises:
        UserError: as of `extract`, or an image cannot be read.
    """
    from .packing import pack_split, packed_bytes

    class_names = _classes_of(archives)
    settings = packing_settings(arguments, "ImageNet")
    decoder = settings.decoder(arguments.max_image_pixels)
    sources = [list_images(archive, class_names, decoder) for archive in archives]
    for archive, source in zip(archives, sources):
        archive.check_count(len(source), allow_partial=arguments.allow_partial)
    targets = [arguments.output / archive.split for archive in archives]
    there = sum(path.stat().st_size for target in targets for path in target.glob("*.mindrecord"))
    check_room(arguments.output, sum(packed_bytes(s, settings) for s in sources) - there)
    for source, target in zip(sources, targets):
        manifest = pack_split(source, target, settings, num_workers=arguments.num_workers)
        report_packed(manifest, target, len(source))
    return class_names


def _classes_of(archives: Sequence[ImageArchive]) -> List[str]:
    class_names = common_classes(archives)
    for archive in archives:
        others = sorted({*archive.class_names} - {*class_names})
        if others:
            _LOGGER.info(
                "%s: left out, because the other archive has none: %s",
                archive.path,
                some_of(others),
            )
    return class_names


def write_words(output: Path, class_names: Sequence[str], devkit: Devkit) -> None:
    """A line `n01440764 tench, Tinca tinca` for each class, in the order of the labels.

    Raises:
        OSError: it cannot be written.
    """
    lines = [f"{name} {devkit.words[name]}\n" for name in class_names]
    write_whole(output / WORDS, "".join(lines).encode())
    print(f"{output / WORDS}: the words of {len(class_names):,} classes")
