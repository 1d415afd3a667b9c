"""Which cores each process of this host is bound to."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Set

from ..runtime.npu_smi import Card


def share_cores(cores: Sequence[int], count: int) -> List[List[int]]:
    """Consecutive cores for each of `count` processes, as evenly as they go; all, if too few."""
    if count > len(cores):
        return [list(cores)] * count
    edges = [len(cores) * i // count for i in range(count + 1)]
    return [list(cores[edges[i] : edges[i + 1]]) for i in range(count)]


def cores_near(
    devices: Sequence[int], cards: Sequence[Card], cores: Sequence[int], *, sysfs: Path
) -> List[List[int]]:
    """For each device, its share of the cores of the NUMA node that its card is plugged into.

    Even shares of all cores where the node of one of them is not known, or has none of `cores`.

    Args:
        devices: their numbers, which count `cards` from 0.
        cores: what this process may use.
        sysfs: /sys, which tells the node of a PCI device and the cores of a node.
    """
    nodes = [_node(cards[i], sysfs) if i < len(cards) else None for i in devices]
    near = [_cores_of(node, sysfs) & set(cores) for node in nodes]
    if not all(near):
        return share_cores(cores, len(devices))
    shares: List[List[int]] = []
    for position, node in enumerate(nodes):
        neighbours = share_cores(sorted(near[position]), nodes.count(node))
        shares.append(neighbours[nodes[:position].count(node)])
    return shares


def _node(card: Card, sysfs: Path) -> Optional[int]:
    """-1, which has no cores, where the firmware does not say."""
    try:
        return int((sysfs / "bus/pci/devices" / card.bus / "numa_node").read_text())
    except OSError:
        return None


def _cores_of(node: Optional[int], sysfs: Path) -> Set[int]:
    """From a list such as `0-23,96-119`."""
    try:
        text = (sysfs / f"devices/system/node/node{node}/cpulist").read_text().strip()
    except OSError:
        return set()
    ranges = [part.partition("-") for part in text.split(",") if part]
    return {core for first, _, last in ranges for core in range(int(first), int(last or first) + 1)}
