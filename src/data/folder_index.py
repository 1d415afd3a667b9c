"""The names of the images in class folders, and a cache of them that notices changes.

Listing a million files takes minutes on a network disk. The cache keeps, for every class folder,
its names beside its inode and times; when an entry comes, goes or is renamed, the folder's times
change, and it is listed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

_FORMAT = 1
# A folder that changed so shortly before it was listed may have changed again within the same tick
# of the file system's clock; it is not trusted.
_TICK_NS = 2_000_000_000


class ClassListing(NamedTuple):
    """The images of one class: file names without the folder, sorted, as UTF-8."""

    class_name: str
    names: List[bytes]


# (inode, modification time, change time), ns
_Stamp = Tuple[int, int, int]


def list_class_folders(folder: Path) -> List[str]:
    """Names of the folders in `folder`, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def list_images(folder: Path, extensions: Tuple[str, ...]) -> List[bytes]:
    """Names of the images in `folder`, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(extensions) and not e.name.startswith(".") and not e.is_dir()
        )
    return [name.encode("utf-8", "surrogateescape") for name in names]


def scan_classes(
    folder: Path, class_names: Sequence[str], extensions: Tuple[str, ...]
) -> List[ClassListing]:
    """The images of every class folder, from the cache where it still holds.

    The cache is `.image_index.npz` in `folder`, or in ~/.cache where `folder` cannot be written to;
    where neither can, there is none.
    """
    places = _cache_files(folder)
    known = next((cache for cache in map(_read_cache, places) if cache), {})
    listings, stamps, is_changed = [], [], len(known) != len(class_names)
    for class_name in class_names:
        stamp = _stamp_of(folder / class_name)
        cached = known.get(class_name)
        if cached is None or cached[0] != stamp:
            is_changed = True
            names = list_images(folder / class_name, extensions)
            # Changed within the last tick: listed again next time.
            stamp = stamp if max(stamp[1:]) + _TICK_NS < time.time_ns() else (0, 0, 0)
        else:
            names = cached[1]
        listings.append(ClassListing(class_name, names))
        stamps.append(stamp)
    if is_changed:
        _write_cache(places, listings, stamps)
    return listings


def _stamp_of(folder: Path) -> _Stamp:
    status = os.stat(folder)
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _cache_files(folder: Path) -> List[Path]:
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    at_home = Path.home() / ".cache" / "mindspore-vision-classifiers" / f"{digest}.npz"
    return [folder / ".image_index.npz", at_home]


def _read_cache(path: Path) -> Optional[Dict[str, Tuple[_Stamp, List[bytes]]]]:
    """Class name -> (stamp, names); None: there is no cache, or not one that can be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) != _FORMAT:
                return None
            text, stamps = arrays["text"].tobytes(), arrays["stamps"].tolist()
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    blocks = text.split(b"\0\0")
    if len(blocks) != len(stamps):
        return None
    cache = {}
    for block, (inode, modified, changed) in zip(blocks, stamps):
        class_name, *names = block.split(b"\0")
        decoded = class_name.decode("utf-8", "surrogateescape")
        cache[decoded] = ((inode, modified, changed), names)
    return cache


def _write_cache(
    places: Sequence[Path], listings: Sequence[ClassListing], stamps: Sequence[_Stamp]
) -> None:
    blocks = [
        b"\0".join([listing.class_name.encode("utf-8", "surrogateescape"), *listing.names])
        for listing in listings
    ]
    text = np.frombuffer(b"\0\0".join(blocks), np.uint8)
    # Neither place is worth an error: the images can be listed without a cache.
    for path in places:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as file:
                np.savez(file, format=_FORMAT, text=text, stamps=np.array(stamps, np.int64))
            return


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A file that takes the place of `path` when it is whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            yield file
            file.close()
            # A temporary file is closed to other users, who train from the same folder.
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
