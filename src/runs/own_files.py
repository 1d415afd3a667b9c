"""Which files of a run's folder the run wrote itself; all others are the user's and stay."""

from __future__ import annotations

import functools
import logging
import os
import re
from pathlib import Path
from typing import List, Optional

from ..checkpoints.record import read_record
from ..errors import UserError, some_of
from ..runtime.files import finish_renames, remove_unfinished, unused
from ..runtime.regular_files import TABLE_BYTES, read_text
from .records import COLUMNS, read_records

_LOGGER = logging.getLogger(__name__)

_EPOCH = re.compile(r"epoch_([0-9]{3,})\.ckpt")
_STEMS = r"last|best|epoch_[0-9]{3,}|metrics|config|report|README|overflow|\.uploaded"
# What a new run writes over, beside checkpoints.
_RECORDS = ("config.yaml", "metrics.csv", "report.html")


def epoch_of(name: str) -> Optional[int]:
    """7 for epoch_007.ckpt; None for any other name."""
    found = _EPOCH.fullmatch(name)
    epoch = int(found.group(1)) if found else 0
    return epoch if name == f"epoch_{epoch:03d}.ckpt" else None


def epoch_files(folder: Path) -> List[Path]:
    """The epoch_NNN.ckpt that a run wrote under these names, oldest first."""
    found = {epoch_of(path.name): path for path in folder.iterdir()}
    return [found[e] for e in sorted(e for e in found if e is not None) if is_own(found[e])]


def is_own(path: Path) -> bool:
    """Whether a run may write over this checkpoint: it gave it this name, or never finished it."""
    # Where capitals do not count the folder may hold the name otherwise.
    if path.is_symlink() or not path.is_file() or path.name not in os.listdir(path.parent):
        return False
    state = path.stat()
    return _has_earned(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _has_earned(path: Path, _modified: int, _size: int) -> bool:
    try:
        record = read_record(path)
    except (OSError, ValueError, KeyError):
        return False
    if record is None:
        return True
    # Versions before kept no list of names.
    before = [] if record.step is None else [path.name]
    return path.name in (before if record.names is None else record.names)


def clear_unfinished(folder: Path) -> None:
    """Ends what a killed run was doing when it was killed."""
    finish_renames(folder, rf"(?:{_STEMS})\.\w+")
    remove_unfinished(folder, _STEMS)


def check_free(folder: Path) -> None:
    """Refuses a folder in which a new run would write over what no run wrote.

    Raises:
        UserError: naming the files.
    """
    names = [name for name in ("last.ckpt", "train.log") if (folder / name).is_dir()]
    if os.path.lexists(folder / "best.ckpt") and not is_own(folder / "best.ckpt"):
        names.append("best.ckpt")
    if not _is_metrics(folder / "metrics.csv"):
        names += [name for name in _RECORDS if os.path.lexists(folder / name)]
    if names:
        raise UserError(
            f"train_url {str(folder)!r}: a run would write over {some_of(names)}, which is none of "
            "a run's; move it, or give another --train_url"
        )


def put_aside_metrics(folder: Path) -> None:
    """Renames a metrics.csv that cannot be continued, such as one a spreadsheet has saved."""
    path = folder / "metrics.csv"
    if not os.path.lexists(path) or _is_metrics(path):
        return
    aside = unused(path)
    os.rename(path, aside)
    _LOGGER.warning("%s: not as a run wrote it; now %s, and a new one begins", path, aside.name)


def _is_metrics(path: Path) -> bool:
    try:
        header = read_text(path, TABLE_BYTES).partition("\n")[0].rstrip("\r").split(",")
        rows = read_records(path)
    except (OSError, ValueError):
        return False
    has_steps = header[0] == COLUMNS[0] and all(row[COLUMNS[0]] for row in rows)
    return has_steps and len(set(header)) == len(header) and set(header) <= set(COLUMNS)
