"""Images in tar archives of webdataset's layout: a file with the image, and a .cls with its label.

webdataset reads archives from their beginning and shuffles within a buffer. Here an index says
where each image lies, so that any order and any step to go on from are those of folders.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError, some_of
from ..runtime.regular_files import UNLIMITED, open_regular
from .augment.parts import Part
from .classes import classes_of, number_labels
from .decode import BadImageError, BoxSeen, Decoder
from .find_images import stamp_of
from .image_folder import drawn_for_val
from .splits import find_splits, names_of, of_another_set
from .tar_index import Shard, Stamp, read_index

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class TarImages:
    """One split.

    Attributes:
        folder: where the archives are, or folders with them.
        shards: archives, and what tells that they are as they were.
        class_names: the position is the label.
        labels: (N,) int32.
        shard_of: (N,) int32, position in `shards`.
        offsets: (N,) int64, bytes from the archive's start.
        lengths: (N,) int64, bytes.
        names: uint8, every member's name, one after the other, UTF-8.
        ends: (N,) int64, end of each name in `names`.
        decoder: reads the image files.
    """

    folder: Path
    shards: List[Tuple[str, Stamp]]
    class_names: List[str]
    labels: np.ndarray = field(repr=False)
    shard_of: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    names: np.ndarray = field(repr=False)
    ends: np.ndarray = field(repr=False)
    decoder: Decoder = field(default_factory=Decoder)

    def __len__(self) -> int:
        return len(self.labels)

    def file_name(self, index: int) -> str:
        """`<archive>/<member>`."""
        start = int(self.ends[index - 1]) if index else 0
        name = os.fsdecode(self.names[start : int(self.ends[index])].tobytes())
        return f"{self.shards[self.shard_of[index]][0]}/{name}"

    def read_bytes(self, index: int) -> bytes:
        """The image file.

        Raises:
            BadImageError: the archive is gone, or has changed.
        """
        path, stamp = self.shards[self.shard_of[index]]
        try:
            file = _open(path, stamp)  # held, since another thread may throw it out of the cache
            data = os.pread(file.fileno(), int(self.lengths[index]), int(self.offsets[index]))
        except OSError as error:
            raise BadImageError(f"{path}: {error.strerror or error}") from error
        if len(data) != self.lengths[index]:
            raise BadImageError(f"{self.file_name(index)}: the archive has become shorter")
        return data

    def read(self, index: int) -> np.ndarray:
        """The pixels of one image: (H, W, 3) uint8, RGB; raises BadImageError."""
        return self.decoder.decode(self.read_bytes(index), self.file_name(index))

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""
        return self.decoder.decode_part(self.read_bytes(index), self.file_name(index), box_seen)


@functools.lru_cache(maxsize=512)
def _open(path: str, stamp: Stamp) -> BinaryIO:
    file = open_regular(path, UNLIMITED)
    if stamp_of(os.fstat(file.fileno())) != stamp:
        file.close()
        raise OSError("the archive has changed since its index was read; start again")
    return file


class _Found(NamedTuple):
    """Archives of a split.

    Attributes:
        paths: sorted.
        is_split: they are of this split alone.
    """

    paths: List[Path]
    is_split: bool


def open_tar(
    root: Path,
    split: str,
    val_share: float,
    class_order: str,
    decoder: Decoder,
    classes: Optional[Sequence[str]] = None,
) -> TarImages:
    """Open one split, `train` or `val`, of the archives at `root`, in their order.

    The archives are those in the split's folder, or those in `root` with its name in theirs; where
    no archive has one, each class is shared by `val_share`.

    Args:
        classes: that labels are of; None: those that the training split has.

    Raises:
        UserError: no archives, or as of `read_index`.
    """
    found = _find_shards(root, split)
    if not found.is_split and val_share == 0:
        raise UserError(
            f"data_url {str(root)!r}: no archive is called by its split, such as "
            "train-000000.tar and val-000000.tar; rename them, put them into train/ and val/, or "
            "give --val_share 0.1"
        )
    shards = _index_of(found.paths)
    class_names = list(classes or tar_classes(root, class_order))
    labels = _label(shards, class_names)
    names = [os.fsencode(name) for shard in shards for name in shard.names]
    columns = {
        "labels": labels,
        "shard_of": np.repeat(np.arange(len(shards), dtype=np.int32), _counts(shards)),
        "offsets": np.concatenate([shard.offsets for shard in shards]),
        "lengths": np.concatenate([shard.lengths for shard in shards]),
    }
    if not found.is_split:
        chosen = _share(shards, labels, class_names, val_share, split)
        columns = {name: column[chosen] for name, column in columns.items()}
        names = [names[at] for at in chosen]
    return TarImages(
        folder=root,
        shards=[(str(shard.path), shard.stamp) for shard in shards],
        class_names=class_names,
        names=np.frombuffer(b"".join(names), np.uint8),
        ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        decoder=decoder,
        **columns,
    )


def tar_classes(root: Path, class_order: str) -> List[str]:
    """The classes by label: those of the training split, or where there is none those of the other.

    Raises:
        UserError: no archives, or as of `read_index`.
    """
    try:
        paths = _find_shards(root, "train").paths
    except _NoShards:
        paths = _find_shards(root, "val").paths
    return classes_of({text for shard in _index_of(paths) for text in shard.labels}, class_order)


def holds_shards(root: Path) -> bool:
    """Whether there are archives in a folder, or in one of its splits."""
    return any(_tars_in(folder) for folder in (root, *root.glob("*")))


class _NoShards(UserError):
    """There are no archives of a split."""


def _find_shards(root: Path, split: str) -> _Found:
    if not root.is_dir():
        raise UserError(f"data_url {str(root)!r}: no such folder; give one with tar archives")
    folders = find_splits(root)
    if split in folders and (paths := _tars_in(root / folders[split])):
        return _Found(paths, True)
    paths = _tars_in(root)
    words = {path: set(re.split(r"[^a-z]+", path.name.lower())) for path in paths}
    kinds = [{name for names in names_of(of) for name in names} for of in ("train", "val")]
    both = [path.name for path in paths if all(words[path] & kind for kind in kinds)]
    if both:
        raise UserError(
            f"data_url {str(root)!r}: {some_of(both)} may be of train or of val by the name; "
            "rename it, or put the archives into train/ and val/"
        )
    for names in names_of(split):
        if found := [path for path in paths if words[path].intersection(names)]:
            return _Found(found, True)
    others = names_of("train" if split == "val" else "val")
    if not paths or any(words[path].intersection(names) for path in paths for names in others):
        raise _NoShards(_what_is_there(root, split))
    return _Found(paths, False)


def _tars_in(folder: Path) -> List[Path]:
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _what_is_there(root: Path, split: str) -> str:
    packed = [path.name for path in root.glob("**/*") if path.name.lower().endswith(_PACKED)]
    remedy = f"unpack {some_of(sorted(packed), 2)} to .tar, which can be read at any place"
    named = f"call them {split}-000000.tar and so on, or put them into {split}/"
    advice = remedy if packed else of_another_set(root, "WebDataset") or named
    return f"data_url {str(root)!r}: no tar archives of the split {split}; {advice}"


@functools.lru_cache(maxsize=4)
def _index_once(paths: Tuple[Path, ...], stamps: Tuple[Stamp, ...]) -> List[Shard]:
    return read_index(paths[0].parent, paths)


def _index_of(paths: Sequence[Path]) -> List[Shard]:
    """Their index, which classes and images are both of."""
    stamps = tuple(stamp_of(os.stat(path)) for path in paths if path.exists())
    return _index_once(tuple(paths), stamps)


def _counts(shards: Sequence[Shard]) -> List[int]:
    return [len(shard.names) for shard in shards]


def _label(shards: Sequence[Shard], class_names: Sequence[str]) -> np.ndarray:
    """(N,) int32."""
    numbers = number_labels({text for shard in shards for text in shard.labels}, class_names)
    for shard in shards:
        for name, text in zip(shard.names, shard.labels):
            if text not in numbers:
                raise UserError(
                    f"{shard.path}: {name!r}: label {text!r} is none of the {len(class_names)} "
                    f"classes ({some_of(class_names)}); mend its .cls"
                )
    return np.array([numbers[text] for shard in shards for text in shard.labels], np.int32)


def _share(
    shards: Sequence[Shard],
    labels: np.ndarray,
    class_names: Sequence[str],
    val_share: float,
    split: str,
) -> np.ndarray:
    """Positions of the images of a split, by their names with those of their archives."""
    whole = [os.fsencode(f"{shard.path.name}/{name}") for shard in shards for name in shard.names]
    is_val = np.zeros(len(whole), bool)
    ends = np.cumsum(np.bincount(labels, minlength=len(class_names)))
    by_class = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    for class_name, at in zip(class_names, by_class):
        drawn = drawn_for_val(class_name, [whole[position] for position in at], val_share)
        is_val[at] = [whole[position] in drawn for position in at]
    return np.flatnonzero(is_val == (split == "val"))
