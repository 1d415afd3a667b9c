"""Packed data sets: shards of MindRecord with an index beside them, read image by image.

A split is a folder with

    manifest.json          classes, number of images, shards with sizes and SHA-256
    00000.mindrecord(.db)  MindRecord: index int64, label int32, image bytes (an image file); where
                           images have several labels, label is (K,), 1 for each of them, else 0
    00000.index.npz        for each image of the shard: offset and length in bytes in the shard's
                           file, CRC-32, label

`mindspore.dataset.MindDataset` reads the shards too; here they are read at their offsets, in any
order and from any number of workers. `scripts/pack_dataset.py` writes them.
"""

from __future__ import annotations

import functools
import logging
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Dict, List, Optional, TypedDict

import numpy as np

from ..errors import UserError, on_one_line
from ..runtime.json_files import read_typed
from ..runtime.regular_files import RECORD_BYTES, TABLE_BYTES, open_regular
from ..runtime.zip_files import read_npz
from .augment.parts import Part
from .decode import BadImageError, BoxSeen, Decoder

_LOGGER = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1
# Of a shard; more than disks have.
_SHARD_BYTES = 2**60
_COLUMNS = {"offsets": "<i8", "lengths": "<i8", "checksums": "<u4", "labels": "<i4"}


class Shard(TypedDict):
    """What the manifest says of one."""

    file: str
    images: int
    bytes: int
    sha256: str


class Settings(TypedDict, total=False):
    """See `packing.PackSettings`; those of before have fewer."""

    short_side: int
    exif_orientation: bool
    background: Optional[List[int]]
    label_separator: Optional[str]


class _LeftOut(TypedDict, total=False):
    """What was not packed."""

    source_images: int
    skipped: List[str]


class Manifest(_LeftOut):
    """What is read of `manifest.json`."""

    format: int
    images: int
    class_names: List[str]
    settings: Settings
    shards: List[Shard]


@dataclass(frozen=True)
class PackedImages:
    """One split.

    Attributes:
        shards: files.
        class_names: the position is the label.
        labels: (N,) int32, or (N, K) uint8.
        shard_of: (N,) int32, position in `shards`.
        offsets: (N,) int64, bytes from the shard's start.
        lengths: (N,) int64, bytes.
        checksums: (N,) uint32, CRC-32.
        decoder: reads the image files.
    """

    shards: List[Path]
    class_names: List[str]
    labels: np.ndarray = field(repr=False)
    shard_of: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    checksums: np.ndarray = field(repr=False)
    decoder: Decoder = field(default_factory=Decoder)

    def __len__(self) -> int:
        return len(self.labels)

    def file_name(self, index: int) -> str:
        """How messages name an image."""
        return f"{self.shards[self.shard_of[index]]}, image {index}"

    def read_bytes(self, index: int) -> bytes:
        """The image file as it was packed.

        Raises:
            BadImageError: the shard is gone or damaged.
        """
        path = str(self.shards[self.shard_of[index]])
        try:
            file = _open(path)  # held, since another thread may throw it out of the cache
            data = os.pread(file.fileno(), int(self.lengths[index]), int(self.offsets[index]))
        except OSError as error:
            raise BadImageError(f"{path}: {error.strerror or error}") from error
        if zlib.crc32(data) != self.checksums[index]:
            raise BadImageError(f"{self.file_name(index)}: its checksum differs: the file changed")
        return data

    def read(self, index: int) -> np.ndarray:
        """The pixels of one image: (H, W, 3) uint8, RGB; raises BadImageError."""
        return self.decoder.decode(self.read_bytes(index), self.file_name(index))

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""
        return self.decoder.decode_part(self.read_bytes(index), self.file_name(index), box_seen)


@functools.lru_cache(maxsize=512)
def _open(path: str) -> BinaryIO:
    return open_regular(path, _SHARD_BYTES)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a split.

    Raises:
        UserError: there is none, or it is unfinished, damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = read_typed(path, RECORD_BYTES, Manifest)
        if manifest["format"] == FORMAT:
            _check_shards(manifest)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: no packed data set ({on_one_line(error)}); write it, or finish it, "
            "with scripts/pack_dataset.py; folders of images are read with --set ImageNet"
        ) from error
    if manifest["format"] != FORMAT:
        raise UserError(f"{path}: format {manifest['format']!r}, not {FORMAT}; pack it again")
    return manifest


def _check_shards(manifest: Manifest) -> None:
    """Raises ValueError: names that lead elsewhere, numbers that do not fit each other."""
    names = [shard["file"] for shard in manifest["shards"]]
    if not names:
        raise ValueError("no shards")
    for shard in manifest["shards"]:
        name = shard["file"]
        if Path(name).name != name or not name.endswith(".mindrecord") or "\0" in name:
            raise ValueError(f"{on_one_line(repr(name))} is no name of a shard beside it")
        if not 0 < shard["images"] <= shard["bytes"]:
            raise ValueError(f"{name}: {shard['images']:,} images in {shard['bytes']:,} bytes")
    if len(set(names)) < len(names):
        raise ValueError("a shard is there twice")
    total = sum(shard["images"] for shard in manifest["shards"])
    if total != manifest["images"]:
        raise ValueError(f"{total:,} images in the shards, not {manifest['images']:,}")


def index_file(shard: Path) -> Path:
    """Where the index of a shard is."""
    return shard.with_suffix(".index.npz")


def open_packed(folder: Path, decoder: Decoder) -> PackedImages:
    """Open a split that scripts/pack_dataset.py has written; sizes and counts are checked.

    Raises:
        UserError: it is not finished, or a file of it is missing or has another size.
    """
    manifest = read_manifest(folder)
    _compare_settings(folder, manifest["settings"], decoder)
    shards = [folder / shard["file"] for shard in manifest["shards"]]
    columns: Dict[str, List[np.ndarray]] = {}
    for entry, shard in zip(manifest["shards"], shards):
        size = shard.stat().st_size if shard.is_file() else -1
        if size != entry["bytes"]:
            raise UserError(
                f"{shard}: {size if size >= 0 else 'no'} bytes instead of {entry['bytes']}; copy "
                "the folder again, or pack it again"
            )
        index = read_index(shard, entry["images"])
        _check_index(shard, index, entry["bytes"], manifest)
        for name, column in index.items():
            columns.setdefault(name, []).append(column)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    if manifest["settings"].get("label_separator"):
        joined["labels"] = joined["labels"].astype(np.uint8)
    counts = [entry["images"] for entry in manifest["shards"]]
    return PackedImages(
        shards=shards,
        class_names=manifest["class_names"],
        shard_of=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        decoder=decoder,
        **joined,
    )


def _compare_settings(folder: Path, settings: Settings, decoder: Decoder) -> None:
    """Warns where shrunk images were turned or filled otherwise than the recipe says."""
    colour = list(decoder.background) if decoder.background else None
    asked = {"exif_orientation": decoder.turns, "background": colour}
    # Before these were settings nothing was turned, and transparency dropped.
    packed = {"exif_orientation": False, "background": None, **settings}
    differing = [
        f"{key} {packed[key]}, not {value}" for key, value in asked.items() if packed[key] != value
    ]
    if settings.get("short_side") and decoder.channels == 4:
        _warn_once(
            f"{folder}: shrunk images were packed without their opacity; if some are transparent, "
            "pack them without --short_side"
        )
        return
    if settings.get("short_side") and differing:
        _warn_once(
            f"{folder}: shrunk images were packed with {', '.join(differing)}; if some are "
            "transparent, or turned by EXIF, pack them again as the recipe has it"
        )


@functools.cache
def _warn_once(text: str) -> None:
    _LOGGER.warning("%s", text)


def read_index(shard: Path, num_images: int) -> Dict[str, np.ndarray]:
    """The columns of a shard's index, see `PackedImages`.

    Raises:
        UserError: it is missing, damaged or of another length.
    """
    path = index_file(shard)
    try:
        # It is written as it is: what unpacks to more is another's.
        size = path.stat().st_size
        index = read_npz(
            path, most_file_bytes=TABLE_BYTES, most_array_bytes=size, names=list(_COLUMNS)
        )
        for name, kind in _COLUMNS.items():
            if index[name].dtype != kind or index[name].ndim not in (1, 1 + (name == "labels")):
                raise ValueError(f"{name} of type {index[name].dtype}")
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: {on_one_line(error)}; copy the folder again, or pack it again"
        ) from error
    if any(len(column) != num_images for column in index.values()):
        raise UserError(f"{path}: not {num_images} images; pack it again")
    return index


def _check_index(
    shard: Path, index: Dict[str, np.ndarray], num_bytes: int, manifest: Manifest
) -> None:
    """Raises UserError: images that lead out of the shard or lie on each other, or no class."""
    order = np.argsort(index["offsets"])
    offsets, lengths = index["offsets"][order], index["lengths"][order]
    # The first two keep the sums from running over.
    is_inside = offsets[0] >= 0 and offsets[-1] <= num_bytes and lengths.min() > 0
    is_inside = is_inside and lengths.max() <= num_bytes
    ends = offsets + lengths if is_inside else offsets
    if not is_inside or ends[-1] > num_bytes or (ends[:-1] > offsets[1:]).any():
        raise UserError(
            f"{index_file(shard)}: images out of the shard, or on each other; copy the folder "
            "again, or pack it again"
        )
    labels, num_classes = index["labels"], len(manifest["class_names"])
    is_multi_label = manifest["settings"].get("label_separator") is not None
    most = 1 if is_multi_label else num_classes - 1
    if labels.shape[1:] != ((num_classes,) if is_multi_label else ()):
        raise UserError(
            f"{index_file(shard)}: labels of shape {labels.shape}, not the manifest's; copy "
            "the folder again, or pack it again"
        )
    if not 0 <= labels.min(initial=0) <= labels.max(initial=0) <= most:
        raise UserError(
            f"{index_file(shard)}: labels {labels.min()} to {labels.max()} of {num_classes} "
            "classes; copy the folder again, or pack it again"
        )
