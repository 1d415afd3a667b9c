"""The names of the images in class folders, and a cache of them that notices changes.

Listing a million files takes minutes on a network disk. The cache keeps, for every class folder,
its names beside its inode and times; when an entry comes, goes or is renamed, the folder's times
change, and it is listed anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import time
import zipfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..runtime.caches import cache_folders
from ..runtime.files import replacing
from .run_folders import holds_runs

_LOGGER = logging.getLogger(__name__)

_FORMAT = 2
# A folder that changed so shortly before it was listed may have changed again within the same tick
# of the file system's clock; it is not trusted.
_TICK_NS = 2_000_000_000


class Listing(NamedTuple):
    """The images of all classes: file names without the folder, sorted in each class, as UTF-8.

    Arrays instead of a million Python objects, so that a cached listing is read as it is.

    Attributes:
        class_names: in the order of the images.
        counts: (number of classes,) int64, images of each class.
        lengths: (N,) uint16, bytes of each name.
        names: uint8, the names one after the other.
    """

    class_names: List[str]
    counts: np.ndarray
    lengths: np.ndarray
    names: np.ndarray


# (number of classes, 3) int64: inode, modification time, change time, ns
_Stamps = np.ndarray
_UNTRUSTED = (0, 0, 0)


def list_class_folders(folder: Path) -> List[str]:
    """Names of the folders in `folder`, sorted; hidden ones and those of runs are left out."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    runs = [name for name in names if holds_runs(f"{folder}/{name}")]
    for name in runs:
        _say_once(f"{folder / name}: holds a run; not a class, and left out")
    return [name for name in names if name not in runs]


@functools.cache
def _say_once(text: str) -> None:
    _LOGGER.info("%s", text)


def list_images(folder: str, extensions: Tuple[str, ...]) -> List[bytes]:
    """Names of the images in `folder`, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(extensions) and not e.name.startswith(".") and not e.is_dir()
        )
    return [os.fsencode(name) for name in names]


def to_listing(class_names: Sequence[str], images: Sequence[Sequence[bytes]]) -> Listing:
    """The listing of the images of each class."""
    joined = [name for names in images for name in names]
    return Listing(
        list(class_names),
        np.array([len(names) for names in images], np.int64),
        np.fromiter(map(len, joined), np.uint16, len(joined)),
        np.frombuffer(b"".join(joined), np.uint8),
    )


def images_by_class(listing: Listing) -> List[List[bytes]]:
    """The way back: the names of each class."""
    text = listing.names.tobytes()
    ends = np.cumsum(listing.lengths, dtype=np.int64)
    starts = ends - listing.lengths
    names = [text[start:end] for start, end in zip(starts.tolist(), ends.tolist())]
    firsts = np.cumsum(listing.counts) - listing.counts
    return [
        names[first : first + count]
        for first, count in zip(firsts.tolist(), listing.counts.tolist())
    ]


def scan_classes(folder: Path, class_names: Sequence[str], extensions: Tuple[str, ...]) -> Listing:
    """The images of every class folder, from the cache where it still holds.

    The cache is `.image_index.npz` in `folder`, or in ~/.cache where `folder` cannot be written to;
    where neither can, there is none.
    """
    stamps = _stamps_of(folder, class_names)
    places = _cache_files(folder)
    cached = next((cache for cache in map(_read_cache, places) if cache), None)
    if cached is None:
        known: Dict[str, Tuple[List[int], List[bytes]]] = {}
    else:
        listing, known_stamps = cached
        if listing.class_names == list(class_names) and np.array_equal(known_stamps, stamps):
            return listing
        known = dict(zip(listing.class_names, zip(known_stamps.tolist(), images_by_class(listing))))
    images = []
    for class_name, stamp in zip(class_names, stamps):
        known_stamp, names = known.get(class_name, (None, []))
        if known_stamp != stamp.tolist():
            names = list_images(f"{folder}/{class_name}", extensions)
            if stamp[1:].max() + _TICK_NS >= time.time_ns():
                # Changed within the last tick: listed again next time.
                stamp[:] = _UNTRUSTED
        images.append(names)
    listing = to_listing(class_names, images)
    _write_cache(places, listing, stamps)
    return listing


def _stamps_of(folder: Path, class_names: Sequence[str]) -> _Stamps:
    # Strings: a thousand Path objects take as long as the system's answers.
    found = [os.stat(f"{folder}/{class_name}") for class_name in class_names]
    rows = [(status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for status in found]
    return np.array(rows, np.uint64).astype(np.int64)


def _cache_files(folder: Path) -> List[Path]:
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    elsewhere = [cache / f"{digest}.npz" for cache in cache_folders("index")]
    return [folder / ".image_index.npz", *elsewhere]


def _read_cache(path: Path) -> Optional[Tuple[Listing, _Stamps]]:
    """None: there is no cache, or not one that can be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) != _FORMAT:
                return None
            text = os.fsdecode(arrays["class_names"].tobytes())
            columns = (arrays[name] for name in ("counts", "lengths", "names"))
            listing, stamps = Listing(text.split("\0"), *columns), arrays["stamps"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    is_whole = (
        listing.counts.sum() == len(listing.lengths)
        and listing.lengths.sum(dtype=np.int64) == len(listing.names)
        and len(listing.class_names) == len(listing.counts) == len(stamps)
    )
    return (listing, stamps) if is_whole else None


def _write_cache(places: Sequence[Path], listing: Listing, stamps: _Stamps) -> None:
    text = os.fsencode("\0".join(listing.class_names))
    columns = {name: getattr(listing, name) for name in ("counts", "lengths", "names")}
    columns["class_names"] = np.frombuffer(text, np.uint8)
    # Neither place is worth an error: the images can be listed without a cache.
    for path in places:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                np.savez(draft, format=_FORMAT, stamps=stamps, **columns)
            return
