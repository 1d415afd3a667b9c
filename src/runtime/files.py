"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes under another name, then renames: a file at `path` is whole.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
