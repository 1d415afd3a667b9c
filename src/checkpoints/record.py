"""What was saved with a checkpoint, read past its tensors and without MindSpore."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ..runtime.regular_files import WEIGHTS_BYTES, open_regular
from .saved_record import SavedRecord, parse_record
from .tensor_file import TensorReader, UnfinishedCheckpoint


def read_record(path: Path) -> Optional[SavedRecord]:
    """The `meta` of `save_checkpoint`; empty for a checkpoint without; None for an unfinished one.

    Raises:
        OSError: it cannot be read.
        ValueError: no checkpoint at all.
    """
    try:
        with open_regular(path, WEIGHTS_BYTES) as file:
            record = TensorReader(file, path).find_record()
    except UnfinishedCheckpoint:
        return None
    return SavedRecord() if record is None else parse_record(record, path)
