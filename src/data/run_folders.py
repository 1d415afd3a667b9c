"""Runs among the images, such as `outputs` where data_url is the folder one works in."""

from __future__ import annotations

import os

# What train.py leaves in its folder: from the start, and from the first record on. Not imported
# from there: images are found without it.
_LOCK, _RECORDS = ".run.lock", ("config.yaml", "metrics.csv")


def is_run(folder: str) -> bool:
    """Whether a run writes, or has written, into this folder."""
    return os.path.isfile(f"{folder}/{_LOCK}") or all(
        os.path.isfile(f"{folder}/{name}") for name in _RECORDS
    )


def holds_runs(folder: str) -> bool:
    """Whether this is the folder of a run or, as `outputs` is, of runs and nothing else.

    One or two questions to the file system for a folder of images.
    """
    if is_run(folder):
        return True
    try:
        # A folder is a second name of each it is in; file systems that do not count them say 1.
        if os.stat(folder).st_nlink == 2:
            return False
        with os.scandir(folder) as entries:
            inside = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    return False
                inside.append(entry.path)
    except OSError:
        return False
    return any(map(is_run, inside))
