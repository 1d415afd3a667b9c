"""The names of the images in class folders, and a cache of them that notices changes.

Listing a million files takes minutes on a network disk. The cache keeps the inode and times of
every folder that was searched beside the names found; when an entry comes, goes or is renamed, the
folder's times change, and its class is searched anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..runtime.caches import cache_folders
from ..runtime.files import replacing
from ..runtime.json_files import parse_typed
from ..runtime.regular_files import TABLE_BYTES
from ..runtime.zip_files import read_npz
from .find_images import Found, find_images, stamp_of
from .image_formats import readable_extensions

_FORMAT = 3
_COLUMNS = {
    "counts": "<i8",
    "lengths": "<u2",
    "names": "u1",
    "stamps": "<i8",
    "class_names": "u1",
    "search": "u1",
}
# A folder that changed so shortly before it was listed may have changed again within the same tick
# of the file system's clock; it is not trusted.
_TICK_NS = 2_000_000_000
_UNTRUSTED, _GONE = (0, 0, 0), (-1, -1, -1)


class Listing(NamedTuple):
    """The images of all classes: file names below the class folder, sorted in each class, as UTF-8.

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


class Tally(NamedTuple):
    """Files of a class by kind, see `Found`: those that are images, and those left out."""

    kinds: Dict[str, int]
    skipped: Dict[str, int]


class _Index(NamedTuple):
    """A listing with what tells whether it still holds.

    Attributes:
        listing: the images.
        inner: for each class, the folders in its folder, to any depth, as paths below it.
        stamps: (number of folders, 3) int64, see `stamp_of`: of each class folder, then of those
            in it.
        tallies: of each class.
    """

    listing: Listing
    inner: List[List[str]]
    stamps: np.ndarray
    tallies: List[Tally]

    @property
    def folder_counts(self) -> np.ndarray:
        """(number of classes,) int64, folders of each class."""
        return np.fromiter((1 + len(names) for names in self.inner), np.int64, len(self.inner))


class _Class(NamedTuple):
    """A class as its search found it, or as the cache knows it; see `_Index`."""

    images: List[bytes]
    inner: List[str]
    stamps: np.ndarray
    tally: Tally


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
    return _split(names, listing.counts)


def _split(items: Any, counts: np.ndarray) -> List[Any]:
    """Parts of these lengths, one after the other."""
    ends = np.cumsum(counts).tolist()
    return [items[end - count : end] for end, count in zip(ends, counts.tolist())]


def scan_classes(folder: Path, class_names: Sequence[str]) -> Tuple[Listing, List[Tally]]:
    """The images of every class folder, from the cache where it still holds.

    The cache is `.image_index.npz` in `folder`, or in ~/.cache where `folder` cannot be written to;
    where neither can, there is none.

    Returns:
        The listing, and for each class how many files there are of which kind.

    Raises:
        UserError: a class folder cannot be listed.
    """
    places = cache_files(folder, ".image_index.npz")
    cached = next((cache for cache in map(_read_cache, places) if cache), None)
    holds = _holds(folder, cached) if cached else np.zeros(0, bool)
    if cached and cached.listing.class_names == list(class_names) and holds.all():
        return cached.listing, cached.tallies
    known = _known_classes(cached, holds) if cached else {}
    classes = [known.get(name) or _search(folder, name) for name in class_names]
    index = _Index(
        to_listing(class_names, [found.images for found in classes]),
        [found.inner for found in classes],
        np.concatenate([found.stamps for found in classes]),
        [found.tally for found in classes],
    )
    _write_cache(places, index)
    return index.listing, index.tallies


def _holds(folder: Path, index: _Index) -> np.ndarray:
    """Whether each class of the index is as it was: (number of classes,) bool."""
    same = (_stamps_of(folder, index) == index.stamps).all(axis=1)
    counts = index.folder_counts
    return np.logical_and.reduceat(same, np.cumsum(counts) - counts)


def _stamps_of(folder: Path, index: _Index) -> np.ndarray:
    rows = []
    for class_name, inner in zip(index.listing.class_names, index.inner):
        # Strings: a thousand Path objects take as long as the system's answers.
        at = f"{folder}/{class_name}"
        for path in (at, *(f"{at}/{name}" for name in inner)) if inner else (at,):
            try:
                rows.append(stamp_of(os.stat(path)))
            except OSError:
                rows.append(_GONE)
    return np.array(rows, np.int64)


def _known_classes(index: _Index, holds: np.ndarray) -> Dict[str, _Class]:
    columns = (
        images_by_class(index.listing),
        index.inner,
        _split(index.stamps, index.folder_counts),
        index.tallies,
    )
    names = index.listing.class_names
    return {name: _Class(*row) for name, held, *row in zip(names, holds, *columns) if held}


def _search(folder: Path, class_name: str) -> _Class:
    try:
        found = find_images(f"{folder}/{class_name}")
    except OSError as error:
        raise UserError(
            f"{folder / class_name}: the class folder cannot be listed ({error.strerror}); let "
            "this user read it"
        ) from error
    names = [os.fsencode(name) for name in found.names]
    # The first is the class folder itself.
    inner = [at.name for at in found.folders[1:]]
    return _Class(names, inner, _trusted_stamps(found), Tally(found.kinds, found.skipped))


def _trusted_stamps(found: Found) -> np.ndarray:
    """Those by which the class is known again; what may have changed unseen is searched anew."""
    newest = time.time_ns() - _TICK_NS
    rows = [
        _UNTRUSTED if found.may_change or max(folder.stamp[1:]) >= newest else folder.stamp
        for folder in found.folders
    ]
    return np.array(rows, np.int64)


def cache_files(folder: Path, name: str) -> List[Path]:
    """Where an index of what lies in a folder may be: there, by this name, or among caches."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    kind = "" if name == ".image_index.npz" else name
    elsewhere = [cache / f"{digest}{kind or '.npz'}" for cache in cache_folders("index")]
    return [folder / name, *elsewhere]


def _searched_for() -> str:
    """Which files the listing is of: another Pillow may read others."""
    return " ".join(sorted(readable_extensions()))


@dataclass
class _Search:
    """What was looked for and found beside the names; see `_Index`."""

    extensions: str
    inner: List[List[str]]
    tallies: List[Tuple[Dict[str, int], Dict[str, int]]]


def _read_cache(path: Path) -> Optional[_Index]:
    """None: there is no cache, none that is whole, or one of a search for other files."""
    try:
        # It is written as it is: what unpacks to more is another's.
        size = path.stat().st_size
        names = [*_COLUMNS, "format"]
        arrays = read_npz(path, most_file_bytes=TABLE_BYTES, most_array_bytes=size, names=names)
        if arrays["format"].shape != () or int(arrays["format"]) != _FORMAT:
            return None
        if any(arrays[name].dtype != kind for name, kind in _COLUMNS.items()):
            return None
        search = parse_typed(arrays["search"].tobytes(), _Search)
    except (OSError, KeyError, ValueError, TypeError):
        return None
    if search.extensions != _searched_for():
        return None
    text = os.fsdecode(arrays["class_names"].tobytes())
    columns = (arrays[name] for name in ("counts", "lengths", "names"))
    listing = Listing(text.split("\0"), *columns)
    tallies = [Tally(*pair) for pair in search.tallies]
    index = _Index(listing, search.inner, arrays["stamps"], tallies)
    return index if _is_whole(index) else None


def _is_whole(index: _Index) -> bool:
    """Whether its parts belong together, and its names lead nowhere else."""
    listing = index.listing
    shapes = [array.ndim for array in (listing.counts, listing.lengths, listing.names)]
    if shapes != [1, 1, 1] or index.stamps.shape != (int(index.folder_counts.sum()), 3):
        return False
    # Each at most all of them, so that the sum cannot run over.
    if ((listing.counts < 0) | (listing.counts > len(listing.lengths))).any():
        return False
    ends = np.cumsum(listing.lengths, dtype=np.int64)
    text = listing.names.tobytes()
    if not listing.lengths.all() or (ends[-1] if len(ends) else 0) != len(text):
        return False
    starts = (ends - listing.lengths).astype(np.int64)
    leads_out = b"../" in text or b"\0" in text or (listing.names[starts] == ord("/")).any()
    return (
        not leads_out
        and listing.counts.sum() == len(listing.lengths)
        and len(listing.class_names) == len(listing.counts) == len(index.inner)
        and len(listing.class_names) == len(index.tallies)
    )


def _write_cache(places: Sequence[Path], index: _Index) -> None:
    text = os.fsencode("\0".join(index.listing.class_names))
    search = {"extensions": _searched_for(), "inner": index.inner, "tallies": index.tallies}
    columns = {name: getattr(index.listing, name) for name in ("counts", "lengths", "names")}
    columns["class_names"] = np.frombuffer(text, np.uint8)
    # ASCII: what is no UTF-8 in names stands there as escapes.
    columns["search"] = np.frombuffer(json.dumps(search).encode("ascii"), np.uint8)
    # Neither place is worth an error: the images can be listed without a cache.
    for path in places:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                np.savez(draft, format=_FORMAT, stamps=index.stamps, **columns)
            return
