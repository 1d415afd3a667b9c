"""The development kit of ILSVRC 2012: which synset a class is, and the labels of validation.

`ILSVRC2012_devkit_t12.tar.gz` holds `data/meta.mat`, a table of MATLAB 5 with a row for each
synset, of which those without children are the classes, and
`data/ILSVRC2012_validation_ground_truth.txt`, the number of a class for each validation image.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from ..errors import UserError, on_one_line
from ..runtime.regular_files import open_regular
from ..runtime.text import printable
from .matlab_table import read_table

NUM_CLASSES, NUM_VAL_IMAGES = 1000, 50_000
SYNSET = re.compile(r"n[0-9]{8}")
_FOLDER = "ILSVRC2012_devkit_t12/data"
_META, _LABELS = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
# The archive has 2.5 MB.
_ARCHIVE_BYTES, _UNPACKED_BYTES = 64 * 2**20, 64 * 2**20
_FILE_BYTES = 16 * 2**20
_MOST_FILES = 10_000
_LONGEST_WORDS = 1024


@dataclass(frozen=True)
class Devkit:
    """What it says.

    Attributes:
        words: synset -> its words, `tench, Tinca tinca`, of every class, sorted by synset.
        val_synsets: of every validation image; the first is of ILSVRC2012_val_00000001.JPEG.
    """

    words: Dict[str, str]
    val_synsets: List[str]

    def check_whole(self) -> None:
        """Raises UserError: it has other numbers of classes or of labels than the challenge's."""
        for what, number, due in (
            ("classes", len(self.words), NUM_CLASSES),
            ("labels of validation", len(self.val_synsets), NUM_VAL_IMAGES),
        ):
            if number != due:
                raise UserError(
                    f"devkit: {number:,} {what}, not {due:,}; give "
                    "ILSVRC2012_devkit_t12.tar.gz, or --allow_partial for a part of the set"
                )


def read_devkit(path: Path) -> Devkit:
    """What the archive `path` says.

    Raises:
        UserError: it lacks a file, or one of them is damaged or does not fit the other.
    """
    files = _unpack(path)
    try:
        numbered = _classes(files[_META])
    except ValueError as error:
        raise _damaged(path, _META, error) from error
    try:
        labels = _labels(files[_LABELS], len(numbered))
    except ValueError as error:
        raise _damaged(path, _LABELS, error) from error
    return Devkit(dict(sorted(numbered.values())), [numbered[label][0] for label in labels])


def _damaged(path: Path, name: str, error: object) -> UserError:
    return UserError(f"{path}: {name}: {on_one_line(error)}; download the devkit again")


def _unpack(path: Path) -> Dict[str, bytes]:
    """The two files; nothing else of it is looked at."""
    wanted = {f"{_FOLDER}/{name}": name for name in (_META, _LABELS)}
    found: Dict[str, bytes] = {}
    try:
        with open_regular(path, _ARCHIVE_BYTES) as file, gzip.GzipFile(fileobj=file) as unpacked:
            data = unpacked.read(_UNPACKED_BYTES + 1)
        if len(data) > _UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {_UNPACKED_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            # Sizes below 0 would lead round for ever.
            for info in itertools.islice(archive, _MOST_FILES):
                if info.name not in wanted:
                    continue
                content = archive.extractfile(info) if info.isreg() else None
                if content is None or wanted[info.name] in found:
                    raise ValueError(f"{info.name} is no regular file, or is in it twice")
                if info.size > _FILE_BYTES:
                    raise ValueError(f"{info.name} has {info.size:,} bytes")
                found[wanted[info.name]] = content.read()
    # gzip and zlib have their own errors beside those of tarfile.
    except Exception as error:
        reason = on_one_line(getattr(error, "strerror", None) or error)
        raise UserError(
            f"devkit {str(path)!r}: {reason}; expected ILSVRC2012_devkit_t12.tar.gz"
        ) from error
    for name, short in wanted.items():
        if short not in found:
            raise UserError(f"devkit {str(path)!r}: it holds no {name}; download the devkit again")
    return found


def _classes(meta: bytes) -> Dict[int, Tuple[str, str]]:
    """Number of a class, from 1 on -> its synset and words; raises ValueError."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    found: Dict[int, Tuple[str, str]] = {}
    for row in read_table(meta, "synsets", fields, _FILE_BYTES):
        if row["num_children"] != 0:
            continue
        number, synset, words = row["ILSVRC2012_ID"], str(row["WNID"]), str(row["words"])
        if not SYNSET.fullmatch(synset):
            raise ValueError(f"{synset[:40]!r} is no synset, such as n01440764")
        if not 0 < len(words) <= _LONGEST_WORDS or printable(words) != words:
            raise ValueError(f"{synset} is called {words[:40]!r}, which is no name")
        if not isinstance(number, float) or not number.is_integer():
            raise ValueError(f"{synset} has {str(number)[:40]!r} in place of a whole number")
        if number in found:
            raise ValueError(f"two classes have the number {number:.0f}")
        found[int(number)] = synset, words
    if sorted(found) != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbers of its {len(found)} classes are not 1 to {len(found)}")
    if len({synset for synset, _ in found.values()}) < len(found):
        raise ValueError("two classes are the same synset")
    return found


def _labels(text: bytes, num_classes: int) -> List[int]:
    lines = text.decode("ascii", "replace").split()
    for number, line in enumerate(lines, 1):
        if not re.fullmatch("[0-9]{1,4}", line) or not 1 <= int(line) <= num_classes:
            raise ValueError(f"line {number}: {line[:40]!r}; allowed: 1 to {num_classes}")
    return [int(line) for line in lines]
