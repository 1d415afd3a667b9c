"""The 1,000 classes of ImageNet-1k."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

_FILE = Path(__file__).with_name("imagenet_classes.txt")


def imagenet_names() -> Dict[str, str]:
    """WordNet id -> name, in label order."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if not line.startswith("#")]
    return {pair[0]: pair[1] for pair in pairs}
