"""Which checkpoint to take in place of a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, NamedTuple, Optional

from .record import read_record
from .saved_record import SavedRecord
from .tensor_file import is_whole


class WholeCheckpoint(NamedTuple):
    """A checkpoint of a run, read to its end."""

    path: Path
    step: int
    record: SavedRecord


def newest_whole(
    folder: Path, *, besides: Path, is_wanted: Callable[[Path], bool] = lambda _: True
) -> Optional[WholeCheckpoint]:
    """The checkpoint of a folder with the most steps that is whole; None: there is none.

    Args:
        besides: not this one, which is damaged.
        is_wanted: whether a file may be taken.
    """
    found: List[WholeCheckpoint] = []
    for path in folder.glob("*.ckpt"):
        if path.name == besides.name or path.name.startswith(".") or not is_wanted(path):
            continue
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        if record is not None and record.step is not None:
            found.append(WholeCheckpoint(path, record.step, record))
    # Of two with as many steps the one whose name says when it was.
    found.sort(key=lambda checkpoint: (checkpoint.step, checkpoint.path.name), reverse=True)
    return next((checkpoint for checkpoint in found if is_whole(checkpoint.path)), None)


def in_place_of(path: Path) -> str:
    """What to do about a damaged checkpoint, for messages."""
    found = newest_whole(path.parent, besides=path)
    if found is None:
        return "copy it again; no other checkpoint of a run that is whole is beside it"
    return (
        f"copy it again, or give {found.path}, the newest whole one beside it (step {found.step:,})"
    )
