"""The 1,000 classes of ImageNet-1k, and those of them that published test sets have."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

_FILE = Path(__file__).with_name("imagenet_classes.txt")
_SUBSETS = Path(__file__).with_name("imagenet_subsets.txt")


def imagenet_names() -> Dict[str, str]:
    """WordNet id -> name, in label order."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ", 1) for line in lines if not line.startswith("#")]
    return {pair[0]: pair[1] for pair in pairs}


def imagenet_subsets() -> Dict[str, List[str]]:
    """`imagenet_a` and `imagenet_r` -> WordNet ids, in label order."""
    found: Dict[str, List[str]] = {}
    for line in _SUBSETS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, wordnet_id = line.split(" ")
            found.setdefault(name, []).append(wordnet_id)
    return found
