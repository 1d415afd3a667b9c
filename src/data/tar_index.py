"""Where the samples of tar shards lie, and a cache of it that notices changes.

A sample is what webdataset takes for one: the files of an archive whose names are equal up to the
first dot behind the last slash, `00042.jpg` and `00042.cls`. To find them takes a walk over the
headers of all members; the cache saves that from the second time on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError, on_one_line
from ..runtime.files import replacing
from ..runtime.regular_files import IMAGE_BYTES, TABLE_BYTES, UNLIMITED, open_regular
from ..runtime.zip_files import read_npz
from .find_images import list_kinds, stamp_of
from .folder_index import cache_files
from .image_formats import readable_extensions
from .tar_members import Expected, Member, list_members, whole_file

_LOGGER = logging.getLogger(__name__)

_FORMAT = 1
_COLUMNS = {
    "format": "<i8",
    "shards": "u1",
    "extensions": "u1",
    "stamps": "<i8",
    "counts": "<i8",
    "offsets": "<i8",
    "lengths": "<i8",
    "names": "u1",
    "labels": "u1",
}
_LABEL = "cls"
_LABEL_BYTES = 256
_ANY_FILE = Expected(
    re.compile(r"[^\0]+"), "00042.jpg and 00042.cls", UNLIMITED, least_bytes=0, has_folders=True
)
_TICK_NS = 2_000_000_000

Stamp = Tuple[int, int, int]


class Shard(NamedTuple):
    """The samples of one archive, in its order.

    Attributes:
        path: of the archive.
        stamp: see `stamp_of`, from before it was read.
        names: of the images' members.
        labels: as written.
        offsets: (N,) int64, bytes from the archive's start.
        lengths: (N,) int64, bytes.
    """

    path: Path
    stamp: Stamp
    names: List[str]
    labels: List[str]
    offsets: np.ndarray
    lengths: np.ndarray


def read_index(folder: Path, paths: Sequence[Path]) -> List[Shard]:
    """The samples of the archives of a folder, from the cache where it still holds.

    The cache is `.tar_index.npz` in `folder`, or in ~/.cache where that cannot be written to.

    Raises:
        UserError: an archive is damaged, holds links, or a sample without image or label.
    """
    stamps = [_stamp_of(path) for path in paths]
    places = cache_files(folder, ".tar_index.npz")
    known: Dict[str, Shard] = {}
    for place in places:
        known = known or {shard.path.name: shard for shard in _read_cache(place, folder)}
    shards, others = [], Counter[str]()
    for path, stamp in zip(paths, stamps):
        found = known.get(path.name)
        is_same = found is not None and found.stamp == stamp
        shards.append(found if found and is_same else _read_shard(path, stamp, others))
    if any(shard is not known.get(shard.path.name) for shard in shards):
        _LOGGER.info("%s: %d samples indexed", folder, sum(len(shard.names) for shard in shards))
        if others:
            _LOGGER.info("%s: files beside images and labels: %s", folder, list_kinds(others))
        # The archives of the other split may lie in the same folder.
        here = {path.name for path in paths}
        others_known = [s for name, s in known.items() if name not in here and s.path.exists()]
        _write_cache(places, [*others_known, *shards])
    return shards


def _stamp_of(path: Path) -> Stamp:
    try:
        return stamp_of(os.stat(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give archives that can be read") from error


def _read_shard(path: Path, stamp: Stamp, others: Counter[str]) -> Shard:
    """Adds to `others` the files that are neither image nor label, by ending."""
    try:
        with open_regular(path, UNLIMITED) as file:
            members = list_members(file, whole_file(file), _ANY_FILE, str(path))
            images, labels = _sort_members(path, members, others)
            if not images:
                raise UserError(
                    f"{path}: no samples, such as 00042.jpg and 00042.cls, in it; move it away"
                )
            texts = [_label_of(file, path, labels[key]) for key in images]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; copy the archive again") from error
    return Shard(
        path,
        stamp,
        [member.name for member in images.values()],
        texts,
        np.array([member.offset for member in images.values()], np.int64),
        np.array([member.size for member in images.values()], np.int64),
    )


def _sort_members(
    path: Path, members: Dict[str, Member], others: Counter[str]
) -> Tuple[Dict[str, Member], Dict[str, Member]]:
    """Images and labels by the sample they are of."""
    images: Dict[str, Member] = {}
    labels: Dict[str, Member] = {}
    extensions = readable_extensions()
    for name, member in members.items():
        folder, slash, base = name.rpartition("/")
        stem, dot, ending = base.partition(".")
        key, ending = f"{folder}{slash}{stem}", ending.lower()
        # As in webdataset, which takes what has no stem for hidden or its own.
        if not stem or not dot:
            continue
        if ending == _LABEL:
            labels[key] = member
        elif f".{ending}" not in extensions:
            others[f".{ending}"] += 1
        elif key in images:
            raise _odd(path, key, f"two images, {images[key].name!r} and {name!r}")
        elif not 0 < member.size <= IMAGE_BYTES:
            raise _odd(path, key, f"an image of {member.size:,} bytes (1 to {IMAGE_BYTES:,})")
        else:
            images[key] = member
    for key in [*images, *labels]:
        if key not in labels or key not in images:
            raise _odd(path, key, f"no {'image' if key in labels else '.cls with its label'}")
    return images, labels


def _odd(path: Path, key: str, what: str) -> UserError:
    return UserError(
        f"{path}: sample {on_one_line(ascii(key), 80)}: {on_one_line(what)}; a sample is one image "
        "and a .cls with its label, such as 00042.jpg and 00042.cls"
    )


def _label_of(file: BinaryIO, path: Path, member: Member) -> str:
    if not 0 < member.size <= _LABEL_BYTES:
        raise _odd(path, member.name, f"{member.size:,} bytes (1 to {_LABEL_BYTES})")
    data = os.pread(file.fileno(), member.size, member.offset)
    try:
        label = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        label = ""
    if not label or not label.isprintable():
        raise _odd(path, member.name, f"{data[:20]!r} is neither a number nor a name")
    return label


def _texts(column: np.ndarray) -> List[str]:
    return os.fsdecode(column.tobytes()).split("\0")


def _column(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer(os.fsencode("\0".join(texts)), np.uint8)


def _extensions() -> List[str]:
    """Which files are images: another Pillow may read others."""
    return sorted(readable_extensions())


def _read_cache(path: Path, folder: Path) -> List[Shard]:
    """[]: there is no cache, or none that is whole."""
    try:
        size = path.stat().st_size  # it is written as it is
        index = read_npz(
            path, most_file_bytes=TABLE_BYTES, most_array_bytes=size, names=list(_COLUMNS)
        )
        if any(index[name].dtype != kind for name, kind in _COLUMNS.items()):
            return []
        return _split(index, folder) or []
    except (OSError, KeyError, ValueError):
        return []


def _split(index: Dict[str, np.ndarray], folder: Path) -> Optional[List[Shard]]:
    """Its shards; None: its parts do not belong together, or lead out of the archives."""
    shards, names, labels = (_texts(index[name]) for name in ("shards", "names", "labels"))
    counts, offsets, lengths = (index[name] for name in ("counts", "offsets", "lengths"))
    is_whole = (
        index["format"].shape == ()
        and int(index["format"]) == _FORMAT
        and _texts(index["extensions"]) == _extensions()
        and index["stamps"].shape == (len(shards), 3)
        and counts.shape == (len(shards),)
        and offsets.shape == lengths.shape == (len(names),) == (len(labels),)
        and not ((counts < 1) | (counts > len(names))).any()
        and int(counts.sum()) == len(names)
        and not ((offsets < 0) | (lengths < 1) | (lengths > IMAGE_BYTES)).any()
    )
    if not is_whole:
        return None
    ends = np.cumsum(counts)
    once: Dict[str, str] = {}  # of equal labels one string
    labels = [once.setdefault(text, text) for text in labels]
    found = []
    for name, stamp, start, end in zip(shards, index["stamps"].tolist(), ends - counts, ends):
        part = slice(int(start), int(end))
        samples = names[part], labels[part], offsets[part], lengths[part]
        found.append(Shard(folder / name, (stamp[0], stamp[1], stamp[2]), *samples))
    return found


def _write_cache(places: Sequence[Path], shards: Sequence[Shard]) -> None:
    """Not of what has just changed: it may change again within the tick of the disk's clock."""
    newest = time.time_ns() - _TICK_NS
    kept = [shard for shard in shards if max(shard.stamp[1:]) < newest and shard.names]
    if not kept:
        return
    columns = {
        "format": np.int64(_FORMAT),
        "shards": _column([shard.path.name for shard in kept]),
        "extensions": _column(_extensions()),
        "stamps": np.array([shard.stamp for shard in kept], np.int64),
        "counts": np.array([len(shard.names) for shard in kept], np.int64),
        "offsets": np.concatenate([shard.offsets for shard in kept]),
        "lengths": np.concatenate([shard.lengths for shard in kept]),
        "names": _column([name for shard in kept for name in shard.names]),
        "labels": _column([label for shard in kept for label in shard.labels]),
    }
    # Neither place is worth an error: the archives can be read without a cache.
    for path in places:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                np.savez(draft, **columns)
            return
