"""Writes the images of an archive into a folder for each class.

A class is written into a hidden folder, which gets its name when all images are in it: whenever
the work ends, a class is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

from tqdm import tqdm

from ..errors import EndedBySignal, UserError, on_one_line
from ..runtime.files import what_helps
from ..runtime.owner import OwnerFile
from .imagenet_archives import ImageArchive
from .tar_members import Member

_UNFINISHED = ".unfinished"
_LOCK = ".prepare.lock"
# Of 110 KB, as images of ImageNet have, half a block of 4 KiB is lost on average.
_LOST_SHARE = 0.02


def extract_split(archive: ImageArchive, class_names: Sequence[str], target: Path) -> int:
    """Writes what is not there yet of `target`/<class>/<image>; returns the number of all images.

    Raises:
        UserError: the archive is damaged, `target` holds something else, or the disk is full; the
            classes that are whole stay.
    """
    target.mkdir(parents=True, exist_ok=True)
    _refuse_others(target, class_names)
    shutil.rmtree(target / _UNFINISHED, ignore_errors=True)
    sizes = {name: archive.num_bytes(name) for name in class_names}
    num_whole = num_images = 0
    try:
        with tqdm(
            total=sum(sizes.values()), unit="B", unit_scale=True, desc=str(target)
        ) as progress:
            for name in class_names:
                images = archive.images_of(name)
                if not _is_whole(target / name, images):
                    _write_class(archive, images, target / name)
                num_whole += 1
                num_images += len(images)
                progress.update(sizes[name])
    except EndedBySignal as ended:
        ended.kept = _what_is_kept(num_whole, len(class_names), target)
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or target}: {on_one_line(error.strerror or error)}; "
            f"{what_helps(error)}; {_what_is_kept(num_whole, len(class_names), target)}"
        ) from error
    return num_images


def _what_is_kept(num_whole: int, num_classes: int, target: Path) -> str:
    return (
        f"{num_whole} of {num_classes} classes are whole in {target}; the same command goes on "
        "with the next"
    )


def _refuse_others(target: Path, class_names: Sequence[str]) -> None:
    """Raises UserError: there is what would become a class of the data set, or is not ours."""
    known = set(class_names)
    others = [name for name in sorted(os.listdir(target)) if name not in known and name[0] != "."]
    if others:
        raise UserError(
            f"{target}: holds {others[0]!r}, which is no class of the archive; give another "
            "--output, or move it away"
        )


def _is_whole(folder: Path, images: Sequence[Member]) -> bool:
    """Whether a class is there; only its name and the sizes of its files are looked at.

    Raises:
        UserError: a folder of its name has other files.
    """
    try:
        with os.scandir(folder) as entries:
            sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
    except FileNotFoundError:
        return False
    due: Dict[str, int] = {image.name: image.size for image in images}
    differing = sorted(name for name in {*sizes, *due} if sizes.get(name) != due.get(name))
    if differing:
        name = differing[0]
        raise UserError(
            f"{folder / name}: {_bytes(sizes, name)} there, {_bytes(due, name)} in the archive; "
            f"delete or move away {folder}, and the same command writes it"
        )
    return True


def _bytes(sizes: Dict[str, int], name: str) -> str:
    return f"{sizes[name]:,} bytes" if name in sizes else "no such file"


def _write_class(archive: ImageArchive, images: List[Member], folder: Path) -> None:
    draft = folder.with_name(_UNFINISHED)
    draft.mkdir()
    try:
        for image in images:
            _write(f"{draft}/{image.name}", archive.read(image))
        os.rename(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # the room may be what is missing
        raise


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "xb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
    except OSError as error:  # of `write` it does not name the file
        raise OSError(error.errno, error.strerror, path) from error


def check_room(output: Path, num_bytes: int) -> None:
    """Raises UserError: on the disk of `output` is less room than images of these bytes take."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    needed, free = round(num_bytes * (1 + _LOST_SHARE)), shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{existing}: {free / 1e9:,.1f} GB are free, and about {needed / 1e9:,.1f} GB are "
            "needed; make room, or give an --output on another disk"
        )


def missing_bytes(archive: ImageArchive, class_names: Sequence[str], target: Path) -> int:
    """Bytes of the classes that are not in `target` yet."""
    return sum(archive.num_bytes(name) for name in class_names if not (target / name).exists())


@contextlib.contextmanager
def sole_preparer(output: Path) -> Iterator[None]:
    """While entered, no other process prepares into `output`, which is made.

    Raises:
        UserError: another one does.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = OwnerFile(output / _LOCK)
    if not lock.take():
        raise UserError(
            f"{output}: another process prepares there: {lock.owner() or 'unknown'} "
            f"({_LOCK}); end it, or give another --output"
        )
    try:
        yield
    finally:
        lock.release()
