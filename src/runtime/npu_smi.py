"""The Ascend cards of this host, as `npu-smi info` lists them, and their generation."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import List

FIRST_910 = "first 910"
ATLAS_A2 = "Atlas A2"
ATLAS_A3 = "Atlas A3"
INFERENCE = "inference"

# A chip takes two lines: `| 0 910B2 | OK | ...` and `| 0 | 0000:C1:00.0 | ...`.
_NAME = re.compile(r"\|\s*[0-9]+\s+((?:Ascend)?(?:310|910)[\w-]*)\s*\|")
_BUS = re.compile(r"\|\s*([0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9])\s*\|")


@dataclass(frozen=True)
class Card:
    """One chip; devices are counted in the order of the listing, from 0.

    Attributes:
        name: such as 910A, 910B2 or 310P3.
        bus: its PCI address in small letters, such as 0000:c1:00.0; empty where none is listed.
    """

    name: str
    bus: str = ""


def parse_cards(text: str) -> List[Card]:
    """What `npu-smi info` has printed; nothing else is a card."""
    cards: List[Card] = []
    for line in text.splitlines():
        name, bus = _NAME.match(line.strip()), _BUS.search(line)
        if name:
            cards.append(Card(name.group(1)))
        elif bus and cards:
            cards[-1] = Card(cards[-1].name, bus.group(1).lower())
    return cards


def list_cards() -> List[Card]:
    """Those of this host; none where npu-smi is missing or fails."""
    if shutil.which("npu-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["npu-smi", "info"], capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_cards(done.stdout) if done.returncode == 0 else []


def generation(name: str) -> str:
    """FIRST_910, ATLAS_A2, ATLAS_A3 or INFERENCE, by the chip's name.

    910A, 910B, 910ProA and 910ProB are of the first generation, 910B1 to 910B4 are Atlas A2; an
    Atlas A3 is listed as Ascend910 or 910_93NN.
    """
    if "310" in name:
        return INFERENCE
    if re.fullmatch("910B[1-9].*", name):
        return ATLAS_A2
    if name == "Ascend910" or name.startswith("910_9"):
        return ATLAS_A3
    return FIRST_910
