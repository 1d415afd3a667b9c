"""A checkpoint as evidence: whether it is whole, what its weights are, where they differ."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional

import numpy as np

from ..errors import UserError
from ..runtime.regular_files import WEIGHTS_BYTES, open_regular
from .record import read_record
from .saved_record import SavedRecord
from .tensor_file import META, DamagedCheckpoint, TensorReader
from .weights_digest import WeightsDigest


class Examined(NamedTuple):
    """What a file says, and what is wrong with it.

    Attributes:
        names: of the file in its folder; a run gives one file several.
        record: None: it cannot be read, and nothing else is known.
        damage: what does not fit; empty: it is whole.
        weights: their digest, see `WeightsDigest`; empty where it is damaged.
    """

    path: Path
    names: List[str]
    record: Optional[SavedRecord]
    damage: str
    weights: str

    @property
    def step(self) -> Optional[int]:
        """Steps done; None: it does not say."""
        return self.record.step if self.record else None

    def __str__(self) -> str:
        return ", ".join(self.names)


def examine(path: Path, names: List[str]) -> Examined:
    """Reads a file to its end, one tensor at a time.

    Raises:
        OSError: it cannot be read.
    """
    record, damage, weights = None, "", WeightsDigest()
    with contextlib.suppress(DamagedCheckpoint, UserError, ValueError):
        record = read_record(path)
    try:
        with open_regular(path, WEIGHTS_BYTES) as file:
            for name, array in TensorReader(file, path).tensors():
                if name != META:
                    weights.add(name, array)
    except DamagedCheckpoint as error:
        damage = error.reason
    if not damage and record is None:
        damage = "its record cannot be read"
    return Examined(path, names, record, damage, "" if damage else weights.hex())


def salvage(path: Path) -> Dict[str, np.ndarray]:
    """The tensors of a file by name, of a damaged one those up to the damage that shows."""
    arrays: Dict[str, np.ndarray] = {}
    with contextlib.suppress(DamagedCheckpoint), open_regular(path, WEIGHTS_BYTES) as file:
        for name, array in TensorReader(file, path).tensors():
            arrays[name] = array
    arrays.pop(META, None)
    return arrays


class Difference(NamedTuple):
    """Between a tensor of a file and what it should be.

    Attributes:
        differing: how many of its numbers do.
        first: the place and both values of the first of them.
        relative: the largest difference, as a part of the tensor's largest number.
    """

    name: str
    differing: int
    size: int
    first: str
    relative: float


def differences(held: Mapping[str, np.ndarray], due: Mapping[str, np.ndarray]) -> List[Difference]:
    """The tensors that differ in a bit; one that is missing or of another shape differs wholly."""
    found = []
    for name, wanted in due.items():
        array = held.get(name)
        if array is None or array.shape != wanted.shape or array.dtype != wanted.dtype:
            said = f"{name} is missing" if array is None else f"{name} {array.dtype}{array.shape}"
            found.append(Difference(name, wanted.size, wanted.size, said, float("inf")))
        elif array.tobytes() != wanted.tobytes():
            found.append(_difference(name, array, wanted))
    return found


def _difference(name: str, array: np.ndarray, wanted: np.ndarray) -> Difference:
    pair = [np.ascontiguousarray(a).reshape(-1) for a in (array, wanted)]
    size = pair[0].itemsize
    is_other = (pair[0].view(np.uint8) != pair[1].view(np.uint8)).reshape(-1, size).any(axis=1)
    first = int(is_other.argmax())
    place = ", ".join(map(str, np.unravel_index(first, array.shape))) if array.shape else ""
    shown = f"{name}[{place}] is {pair[0][first]!s} and should be {pair[1][first]!s}"
    here, there = (a.astype(np.float64) for a in pair)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = max(float(np.abs(there).max()), float(np.finfo(np.float32).tiny))
        relative = float(np.abs(here - there).max()) / largest
    return Difference(name, int(is_other.sum()), array.size, shown, relative)
