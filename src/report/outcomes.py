"""What an evaluation found image by image, and the numbers that follow from it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import msgspec
import numpy as np

from ..errors import UserError, on_one_line
from ..runtime.files import write_whole
from ..runtime.json_files import read_typed
from ..runtime.plain_numbers import decimal_number
from ..runtime.regular_files import RECORD_BYTES, TABLE_BYTES, read_text
from ..runtime.text import from_cell, to_cell, to_utf8
from ..trainer.metrics import EvalResult, wilson_interval
from .predictions import top_k

_COLUMNS = ("image", "label", "predicted", "confidence", "correct")
# Of images with any number of labels.
LABEL_COLUMNS = ("image", "labels", "predicted", "correct")
_BINS = 15
# A list of labels for each image of ImageNet's val/.
_Accepted = List[List[Annotated[int, msgspec.Meta(ge=0, lt=1000)]]]
_VAL_NUMBER = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])")


@dataclass(frozen=True)
class Outcomes:
    """One pass of one set of weights over N images.

    Attributes:
        weights: `raw` or `ema`.
        result: the scores eval.py prints.
        images: their paths below val/.
        label, predicted: (N,) int64.
        confidence: (N,) float64, probability of the predicted class.
        class_names: of all classes.
    """

    weights: str
    result: EvalResult
    images: List[str]
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    class_names: List[str]

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.label == self.predicted

    def per_class(self) -> Tuple[np.ndarray, np.ndarray]:
        """Images (K,) and top-1 in percent (K,) of every class; NaN where there are none."""
        count = np.bincount(self.label, minlength=len(self.class_names))
        hits = np.bincount(self.label[self.correct], minlength=len(self.class_names))
        with np.errstate(invalid="ignore"):
            return count, 100.0 * hits / count

    def of_classes(self) -> ClassScores:
        """Recall, precision and F1 of every class, with the images they are of."""
        classes = len(self.class_names)
        images, recall = self.per_class()
        predicted = np.bincount(self.predicted, minlength=classes)
        hits = np.bincount(self.label[self.correct], minlength=classes)
        with np.errstate(invalid="ignore"):
            precision, f1 = 100.0 * hits / predicted, 200.0 * hits / (images + predicted)
        return ClassScores(images, predicted, recall, precision, f1)

    def macro_accuracy(self) -> float:
        """Mean top-1 in percent of the classes that have images, whatever their number."""
        count, accuracy = self.per_class()
        return float(accuracy[count > 0].mean())

    def confusion(self) -> np.ndarray:
        """(K, K) counts, rows the true class."""
        classes = len(self.class_names)
        flat = np.bincount(self.label * classes + self.predicted, minlength=classes**2)
        return flat.reshape(classes, classes)

    def worst_pairs(self, most: int) -> List[Tuple[str, str, int]]:
        """(true, predicted, images) of the commonest mistakes, commonest first."""
        wrong = ~self.correct
        pairs, counts = np.unique(
            np.stack([self.label[wrong], self.predicted[wrong]], axis=1), axis=0, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")[:most]
        names = self.class_names
        return [(names[pairs[i, 0]], names[pairs[i, 1]], int(counts[i])) for i in order]

    def calibration(self) -> Calibration:
        """Guo et al. 2017, equation 3, with 15 bins of equal width, open below."""
        edges = np.linspace(0.0, 1.0, _BINS + 1)[1:-1]
        bins = np.digitize(self.confidence, edges, right=True)
        count = np.bincount(bins, minlength=_BINS)
        filled = np.maximum(count, 1)
        confidence = np.bincount(bins, self.confidence, _BINS) / filled
        accuracy = np.bincount(bins, self.correct.astype(np.float64), _BINS) / filled
        ece = float((count * np.abs(accuracy - confidence)).sum() / max(1, count.sum()))
        return Calibration(count, confidence, accuracy, ece)


class ClassScores(NamedTuple):
    """Of every class, (K,) each; scores in percent, NaN where they are of no image.

    Attributes:
        images: that are of the class.
        predicted: that were taken for it.
    """

    images: np.ndarray
    predicted: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


class Calibration(NamedTuple):
    """How far the confidences can be trusted, in bins of equal width.

    Attributes:
        images: in each bin.
        confidence, accuracy: means of each bin, [0, 1].
        ece: expected calibration error, [0, 1].
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


class Collector:
    """Gathers outcomes batch by batch, with the pictures of the most confident mistakes.

    Attributes:
        mistakes: (confidence, position among what was gathered, image), most confident first.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._indices: List[np.ndarray] = []
        self._parts: List[Tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.mistakes: List[Tuple[float, int, np.ndarray]] = []
        self._rows = self._gathered = 0

    def add(self, logits: np.ndarray, label: np.ndarray, image: np.ndarray) -> None:
        """A batch; label -1 marks padding and images that could not be read."""
        real = label >= 0
        self._indices.append(self._rows + np.flatnonzero(real))
        self._rows += len(real)
        labels, shares = top_k(logits[real], 1)
        label, predicted, confidence = label[real].astype(np.int64), labels[:, 0], shares[:, 0]
        self._parts.append((label, predicted, confidence))
        wrong = np.flatnonzero(label != predicted)
        found = [(float(confidence[i]), self._gathered + int(i), image[real][i]) for i in wrong]
        self.mistakes = sorted(self.mistakes + found, key=lambda m: (-m[0], m[1]))[: self._keep]
        self._gathered += len(label)

    def outcomes(
        self, weights: str, result: EvalResult, file_name: Callable[[int], str], names: List[str]
    ) -> Outcomes:
        """Everything added so far.

        Args:
            file_name: of the image in a row, all rows of all batches counted.
        """
        images = [file_name(int(index)) for index in np.concatenate(self._indices)]
        label, predicted, confidence = (np.concatenate(part) for part in zip(*self._parts))
        return Outcomes(weights, result, images, label, predicted, confidence, names)


def write_outcomes(outcomes: Outcomes, path: Path) -> None:
    """A row per image; `read_outcomes` reads it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    rows = (outcomes.label, outcomes.predicted, outcomes.confidence, outcomes.correct)
    for image, label, predicted, confidence, correct in zip(outcomes.images, *rows):
        names = image, outcomes.class_names[label], outcomes.class_names[predicted]
        writer.writerow([*map(to_cell, names), f"{confidence:.6g}", int(correct)])
    write_whole(path, to_utf8(text.getvalue()))


def write_classes(outcomes: Outcomes, path: Path) -> None:
    """A row per class; scores in percent, empty where they are of no image."""
    text = io.StringIO()
    writer = csv.writer(text)
    found = outcomes.of_classes()
    writer.writerow(("class", *found._fields))
    for name, *values in zip(outcomes.class_names, *found):
        images, predicted, *scores = values
        shown = ("" if np.isnan(score) else f"{score:.6g}" for score in scores)
        writer.writerow([to_cell(name), images, predicted, *shown])
    write_whole(path, to_utf8(text.getvalue()))


def read_outcomes(folder: Path) -> Dict[str, Dict[str, str]]:
    """Image -> its row in FOLDER/images.csv.

    Raises:
        UserError: no report in the folder, or another content.
    """
    try:
        text = read_text(folder / "images.csv", TABLE_BYTES)
    except FileNotFoundError as error:
        raise UserError(
            f"report {str(folder)!r}: no images.csv; give a folder eval.py --report made"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise UserError(f"report {str(folder)!r}: images.csv cannot be read ({reason})") from error
    if text.startswith(",".join(LABEL_COLUMNS)):
        raise UserError(
            f"report {str(folder)!r}: its images have several labels, so none is right or wrong; "
            "give reports of images with one label each"
        )
    try:
        return parse_outcomes(text)
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"report {str(folder)!r}: images.csv is not as eval.py wrote it "
            f"({on_one_line(error)}); make the report anew"
        ) from error


def parse_outcomes(text: str) -> Dict[str, Dict[str, str]]:
    """`read_outcomes` of a file's text.

    Raises:
        ValueError, csv.Error: it is not as `write_outcomes` wrote it, and in which line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    if next(reader, None) != list(_COLUMNS):
        raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
    rows: Dict[str, Dict[str, str]] = {}
    for cells in reader:
        if len(cells) != len(_COLUMNS) or cells[-1] not in ("0", "1"):
            raise ValueError(f"line {reader.line_num} is not whole")
        image, label, predicted = map(from_cell, cells[:3])
        if image in rows:
            raise ValueError(f"line {reader.line_num}: image {image!r} is there already")
        if not 0 <= decimal_number(cells[3]) <= 1:
            raise ValueError(f"line {reader.line_num}: confidence {cells[3]!r}")
        values = (image, label, predicted, *cells[3:])
        rows[image] = dict(zip(_COLUMNS, values))
    if not rows:
        raise ValueError("it has no images")
    return rows


def read_real_labels(path: Path) -> _Accepted:
    """ReaL's labels, see `real_accuracy`. Raises UserError."""
    try:
        return read_typed(path, RECORD_BYTES, _Accepted)
    except (OSError, ValueError) as error:
        raise _no_real_labels(path, error) from error


def _no_real_labels(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(
        f"real_labels {str(path)!r}: needs the JSON list of ReaL and images named "
        f"ILSVRC2012_val_NNNNNNNN ({reason}); leave it out for other data"
    )


def real_accuracy(outcomes: Outcomes, path: Path) -> Tuple[float, int]:
    """Top-1 in percent by ReaL's labels (Beyer et al. 2020), and the images that have any.

    Args:
        path: JSON, a list with the accepted labels of ILSVRC2012_val_00000001, ..._2, ...

    Raises:
        UserError: unreadable, or the images are not ImageNet's.
    """
    accepted = read_real_labels(path)
    try:
        sets = [accepted[_val_number(image, len(accepted)) - 1] for image in outcomes.images]
    except ValueError as error:
        raise _no_real_labels(path, error) from error
    hits = [label in allowed for label, allowed in zip(outcomes.predicted, sets) if allowed]
    return 100.0 * float(np.mean(hits)) if hits else float("nan"), len(hits)


def _val_number(image: str, most: int) -> int:
    found = _VAL_NUMBER.search(image)
    if found is None or not 1 <= int(found.group(1)) <= most:
        raise ValueError(f"image {image!r}, and the list has {most} entries")
    return int(found.group(1))


def summary(outcomes: Outcomes, real: Optional[Tuple[float, int]]) -> Dict[str, Any]:
    """The numbers of one pass, for report.json."""
    count, accuracy = outcomes.per_class()
    named = zip(outcomes.class_names, count.tolist(), accuracy.tolist())
    found = {
        "weights": outcomes.weights,
        "top1": outcomes.result.top1,
        "top1_interval": list(outcomes.result.top1_interval),
        "top5": outcomes.result.top5,
        "macro_top1": outcomes.macro_accuracy(),
        "loss": outcomes.result.loss,
        "images": outcomes.result.images,
        "ece": outcomes.calibration().ece,
        "classes": [
            {"name": name, "images": images, "top1": None if images == 0 else top1}
            for name, images, top1 in named
        ],
    }
    if outcomes.result.all_classes:
        found["scored_classes"] = outcomes.result.classes
        found["all_classes"] = outcomes.result.all_classes.as_json()
    if real is not None:
        found["real_top1"], found["real_images"] = real
        found["real_top1_interval"] = list(wilson_interval(*real))
    return found
