"""What computes: two processors of one name and program give the same bits."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from .regular_files import TABLE_BYTES, read_text

_MODEL = re.compile(r"^(?:model name|CPU part)\s*:\s*(.+)$", re.MULTILINE)
_MOST_CHARS = 200


def describe_processor() -> str:
    """`x86_64 Intel(R) Xeon(R) Processor, 2 cores`: those this process may use."""
    try:
        found = _MODEL.search(read_text(Path("/proc/cpuinfo"), TABLE_BYTES))
    except (OSError, UnicodeDecodeError):
        found = None
    model = f" {found[1].strip()[:_MOST_CHARS]}" if found else ""
    return f"{platform.machine()}{model}, {len(os.sched_getaffinity(0))} cores"
