"""Scores of the files that the C++ program wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import List

import numpy as np

from ..errors import UserError, some_of
from ..trainer.metrics import EvalResult, EvalTotals

_ENDING = "_0.bin"
_NAMED = 5


@dataclass(frozen=True)
class Labels:
    """What preprocess.py says of its images.

    Attributes:
        dataset_name: the recipe's `set`.
        batch_size: images of each file.
        labels: (N,) int32, in the order of the files; -1: not to be scored.
    """

    dataset_name: str
    num_classes: int
    batch_size: int
    labels: np.ndarray

    @property
    def results(self) -> List[str]:
        """Names of the files that belong to the inputs."""
        count = -(-len(self.labels) // self.batch_size)
        return [f"{number:06d}{_ENDING}" for number in range(count)]


def read_labels(path: Path) -> Labels:
    """Reads label.json.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        labels = np.array(list(read["labels"].values()), np.int32)
        sizes = int(read["num_classes"]), int(read["batch_size"])
        name = str(read["dataset_name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"label_file {str(path)!r}: missing or damaged ({error}); preprocess.py writes it"
        ) from error
    if not labels.size or min(sizes) < 1 or labels.min() < -1 or labels.max() >= sizes[0]:
        raise UserError(f"label_file {str(path)!r}: no labels of {sizes[0]} classes")
    return Labels(name, *sizes, labels)


def score_results(folder: Path, labels: Labels) -> EvalResult:
    """Top-1 and top-5 of all results.

    Raises:
        UserError: naming the results that are missing, surplus or of a wrong size.
    """
    _check(folder, labels)
    totals = EvalTotals()
    for start, name in zip(range(0, len(labels.labels), labels.batch_size), labels.results):
        label = labels.labels[start : start + labels.batch_size]
        logits = np.fromfile(folder / name, np.float32).reshape(labels.batch_size, -1)
        totals.update(logits[: len(label)], label)
    return totals.result()


def _check(folder: Path, labels: Labels) -> None:
    if not folder.is_dir():
        raise UserError(f"result_dir {str(folder)!r}: no such folder; the C++ program writes it")
    found = {path.name: path.stat().st_size for path in folder.glob(f"*{_ENDING}")}
    size = 4 * labels.batch_size * labels.num_classes
    wrong = {
        "missing": [name for name in labels.results if name not in found],
        "surplus": sorted(set(found) - set(labels.results)),
        f"not of {size} bytes": [n for n in labels.results if found.get(n, size) != size],
    }
    faults = [f"{fault}: {some_of(names, _NAMED)}" for fault, names in wrong.items() if names]
    if faults:
        raise UserError(
            f"result_dir {str(folder)!r}: not the {len(labels.results)} results of these labels "
            f"({'; '.join(faults)}); run the C++ program again into an empty folder"
        )
