"""Scores of the files that the C++ program wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Dict, List, Optional

import msgspec
import numpy as np

from ..errors import UserError, some_of
from ..runtime.json_files import read_typed
from ..runtime.regular_files import TABLE_BYTES, read_regular
from ..trainer.metrics import EvalResult, EvalTotals

_ENDING = "_0.bin"
_NAMED = 5
_RESULT_BYTES = 2**29  # of one file

Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class LabelFile:
    """label.json; a label is -1 or below `num_classes`."""

    dataset_name: str
    num_classes: Size
    batch_size: Size
    labels: Dict[str, Annotated[int, msgspec.Meta(ge=-1)]]


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
        UserError: it is missing, or a value in it is none that preprocess.py writes.
    """
    try:
        read = read_typed(path, TABLE_BYTES, LabelFile)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"label_file {str(path)!r}: missing or damaged ({reason}); preprocess.py writes it"
        ) from error
    if 4 * read.num_classes * read.batch_size > _RESULT_BYTES:
        raise UserError(
            f"label_file {str(path)!r}: results of batch_size {read.batch_size} and num_classes "
            f"{read.num_classes} would have more than {_RESULT_BYTES:,} bytes each; give "
            "preprocess.py a smaller --batch_size"
        )
    beyond = [name for name, label in read.labels.items() if label >= read.num_classes]
    if beyond or not read.labels:
        found = f"{beyond[0]!r} has {read.labels[beyond[0]]}" if beyond else "there are none"
        raise UserError(
            f"label_file {str(path)!r}: labels must be below num_classes {read.num_classes}, "
            f"{found}; preprocess.py writes it"
        )
    labels = np.array(list(read.labels.values()), np.int32)
    return Labels(read.dataset_name, read.num_classes, read.batch_size, labels)


def score_results(folder: Path, labels: Labels) -> EvalResult:
    """Top-1 and top-5 of all results.

    Raises:
        UserError: naming the results that are missing, surplus or of a wrong size, or hold what
            is no finite number.
    """
    _check(folder, labels)
    totals = EvalTotals(labels.num_classes)
    for start, name in zip(range(0, len(labels.labels), labels.batch_size), labels.results):
        label = labels.labels[start : start + labels.batch_size]
        totals.update(_read_logits(folder / name, labels)[: len(label)], label)
    return totals.result()


def _read_logits(path: Path, labels: Labels) -> np.ndarray:
    """(batch_size, num_classes) float32."""
    shape = labels.batch_size, labels.num_classes
    problem: Optional[str] = None
    try:
        logits = np.frombuffer(read_regular(path, 4 * shape[0] * shape[1]), "<f4").reshape(shape)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "changed meanwhile"
    else:
        broken = np.argwhere(~np.isfinite(logits))
        if len(broken):
            row, column = broken[0]
            problem = f"logit {column} of image {row} is {logits[row, column]}, no finite number"
    if problem:
        raise UserError(
            f"result_dir {str(path.parent)!r}: {path.name} is no result ({problem}); run the C++ "
            "program again into an empty folder"
        )
    return logits


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
