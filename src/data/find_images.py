"""The images below a folder, to any depth: the one search behind training, evaluation, packing,
preview and prediction, and what it leaves out.

Links are followed, as torchvision and timm do, but not into a folder that the link stands in.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

from ..errors import some_of
from .image_formats import readable_extensions
from .run_folders import holds_runs, is_run

_LOGGER = logging.getLogger(__name__)

_NAMED_KINDS = 8
_EXTENSION = re.compile(r"\.[a-z0-9]{1,8}")
_HEIC = (".heic", ".heif")


class Folder(NamedTuple):
    """A folder that was searched.

    Attributes:
        name: below the folder where the search began, "" for itself.
        stamp: see `stamp_of`, from before it was listed.
    """

    name: str
    stamp: Tuple[int, int, int]


@dataclass
class Found:
    """What a search found.

    Attributes:
        names: of the images, below the folder where it began, sorted.
        folders: all that were searched, the first included.
        kinds: ending, lower case -> how many images have it.
        skipped: kind -> how many were left out: `.txt`, `dead link`, `unreadable folder`, ...
        may_change: something was left out that may come back without a trace in the folders' times.
    """

    names: List[str] = field(default_factory=list)
    folders: List[Folder] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    may_change: bool = False


def stamp_of(status: os.stat_result) -> Tuple[int, int, int]:
    """What changes with a folder's entries: inode (63 bits), modification and change time, ns."""
    return status.st_ino & (1 << 63) - 1, status.st_mtime_ns, status.st_ctime_ns


def find_images(root: str) -> Found:
    """Searches `root` and all folders in it; hidden ones are left out.

    Raises:
        OSError: `root` itself cannot be listed.
    """
    found = Found()
    # Folders with those they are in, as (device, inode).
    pending: List[Tuple[str, Tuple[Tuple[int, int], ...]]] = [("", ())]
    while pending:
        name, above = pending.pop()
        path = os.path.join(root, name) if name else root
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                found.skipped["link to a folder it is in"] += 1
                continue
            if name and is_run(path):
                found.skipped["folder of a run"] += 1
                continue
            inside = _list_folder(path, name, found)
        except OSError:
            if not name:
                raise
            found.skipped["unreadable folder"] += 1
            found.may_change = True
            continue
        found.folders.append(Folder(name, stamp_of(status)))
        pending += [(folder, (*above, identity)) for folder in inside]
    found.names.sort()
    return found


def _list_folder(path: str, name: str, found: Found) -> List[str]:
    """Adds the images of one folder and what it leaves out; returns the folders in it."""
    prefix = f"{name}/" if name else ""
    extensions = readable_extensions()
    folders = []
    append = found.names.append
    kinds: Dict[str, int] = {}
    with os.scandir(path) as entries:
        for entry in entries:
            # Written out, for a million files.
            at = entry.name
            extension = at[at.rfind(".") :].lower()
            try:
                if extension in extensions and at[0] != "." and entry.is_file():
                    append(prefix + at)
                    kinds[extension] = kinds.get(extension, 0) + 1
                elif at[0] != "." and entry.is_dir():
                    folders.append(prefix + at)
                else:
                    _leave_out(entry, found)
            except OSError as error:
                is_round = error.errno == errno.ELOOP
                found.skipped["dead link" if is_round else "unreadable link"] += 1
                found.may_change = True
    found.kinds.update(kinds)
    return folders


def _extension_of(name: str) -> str:
    """With the dot, lower case; of a name without a dot its last letter, which is no extension."""
    return name[name.rfind(".") :].lower()


def _leave_out(entry: os.DirEntry[str], found: Found) -> None:
    extension = _extension_of(entry.name)
    if entry.is_dir():
        found.skipped["hidden folder"] += 1
    elif entry.is_file():
        if not entry.name.startswith("."):
            kind = extension if _EXTENSION.fullmatch(extension) else "file without an ending"
            found.skipped[kind] += 1
        elif extension in readable_extensions():
            found.skipped["hidden image"] += 1
    elif entry.is_symlink() and not os.path.exists(entry.path):
        found.skipped["dead link"] += 1
        found.may_change = True
    else:
        found.skipped["pipe, socket or device"] += 1
        # What a link leads to is in another folder.
        found.may_change = found.may_change or entry.is_symlink()


def _is(kind: Callable[[], bool]) -> bool:
    """What an entry says of itself; no, of a link that leads round or where nobody may look."""
    try:
        return kind()
    except OSError:
        return False


def folders_in(folder: str) -> List[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _is(e.is_dir) and e.name[0] != ".")


def list_folders(folder: str) -> List[str]:
    """`folders_in` a folder without those of runs, which takes longer.

    Raises:
        OSError: it cannot be listed.
    """
    names = folders_in(folder)
    runs = [name for name in names if holds_runs(f"{folder}/{name}")]
    for name in runs:
        say_once(f"{folder}/{name}: holds a run; not a class, and left out")
    return [name for name in names if name not in runs] if runs else names


@functools.cache
def say_once(text: str) -> None:
    """A line of the log; the same data are opened more than once."""
    _LOGGER.info("%s", text)


def images_in(folder: str) -> Iterator[str]:
    """Names of the images in a folder itself, in no order; hidden ones are left out.

    Raises:
        OSError: it cannot be listed.
    """
    extensions = readable_extensions()
    with os.scandir(folder) as entries:
        for entry in entries:
            is_image = _extension_of(entry.name) in extensions and entry.name[0] != "."
            if is_image and _is(entry.is_file):
                yield entry.name


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """`12 files are not pictures that can be read: 6 .heic, 4 .txt, 2 dead links`; "": none."""
    total = sum(skipped.values())
    if not total:
        return ""
    files = "1 file is not a picture" if total == 1 else f"{total} files are not pictures"
    # Apple's telephones write it, and Pillow does not read it.
    remedy = "; convert HEIC to JPEG" if any(kind in skipped for kind in _HEIC) else ""
    return f"{files} that can be read: {list_kinds(skipped)}{remedy}"


def list_kinds(counts: Mapping[str, int]) -> str:
    """`6 .heic, 4 .txt, 2 dead links`, the most frequent first."""
    kinds = sorted(((k, n) for k, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
    return some_of([f"{count} {_plural(kind, count)}" for kind, count in kinds], _NAMED_KINDS)


def _plural(kind: str, count: int) -> str:
    if count == 1 or kind.startswith("."):
        return kind
    head, space, rest = kind.partition(" ")
    if head in ("file", "folder", "link", "image"):
        return f"{head}s{space}{rest}"
    return "pipes, sockets or devices" if head == "pipe," else f"{kind}s"
