"""The report of an evaluation of images with any number of labels: the files of `page.py`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..runs.markup import Figure, Section, lines, page, table
from ..runs.run_page import now
from ..runtime.files import write_json, write_whole
from ..runtime.text import to_cell, to_utf8
from ..trainer.multi_label import MultiLabelResult
from .outcomes import LABEL_COLUMNS
from .page import CLASS_ROWS, KIND, VERSION, Background

# Score of `MultiLabelResult`, or column of `LabelScores` -> how the page calls it.
_SCORES = {
    "map": "mAP",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "macro_recall": "macro recall",
}
_CLASS_SCORES = {
    "average_precision": "AP %",
    "recall": "recall %",
    "precision": "precision %",
    "f1": "F1 %",
}
_NOTE = (
    "A label is predicted where its probability is above 1/2; AP, average precision, goes over all "
    "thresholds. Means are over the classes that have images; micro F1 is over all pairs of image "
    "and class."
)


@dataclass(frozen=True)
class LabelOutcomes:
    """One pass of one set of weights over N images.

    Attributes:
        weights: `raw` or `ema`.
        result: the scores eval.py prints.
        images: their paths.
        labels, predicted: (N, K) bool.
        class_names: of all classes.
    """

    weights: str
    result: MultiLabelResult
    images: List[str]
    labels: np.ndarray
    predicted: np.ndarray
    class_names: List[str]

    def summary(self) -> Dict[str, Any]:
        """For report.json."""
        columns = self.result.of_classes
        classes = [
            {"name": name, **{key: _known(value) for key, value in zip(columns._fields, values)}}
            for name, *values in zip(self.class_names, *columns)
        ]
        return {"weights": self.weights, **self.result.as_json(), "classes": classes}


class LabelCollector:
    """Gathers labels and predictions batch by batch."""

    def __init__(self) -> None:
        self._parts: List[Tuple[np.ndarray, np.ndarray]] = []

    def add(self, logits: np.ndarray, label: np.ndarray, image: np.ndarray) -> None:
        """A batch; labels of -1 mark padding and images that could not be read."""
        self._parts.append((label.copy(), logits > 0))

    def outcomes(
        self,
        weights: str,
        result: MultiLabelResult,
        file_name: Callable[[int], str],
        names: List[str],
    ) -> LabelOutcomes:
        """Everything added so far.

        Args:
            file_name: of the image in a row, all rows of all batches counted.
        """
        label, predicted = (np.concatenate(part) for part in zip(*self._parts))
        rows = np.flatnonzero((label >= 0).all(axis=1))
        images = [file_name(int(row)) for row in rows]
        return LabelOutcomes(weights, result, images, label[rows] > 0, predicted[rows], names)


def write_label_report(
    folder: Path,
    passes: Sequence[Tuple[LabelOutcomes, LabelCollector]],
    *,
    facts: Dict[str, str],
    background: Background,
) -> Path:
    """Writes images.csv, classes.csv, report.json and the page; the arguments of `write_report`.

    Returns:
        The page.
    """
    outcomes = [found for found, _ in passes]
    facts = {**facts, "date": now()}
    write_whole(folder / "images.csv", to_utf8(_images(outcomes[0])))
    write_whole(folder / "classes.csv", to_utf8(_classes(outcomes[0])))
    content = {"kind": KIND, "version": VERSION, **facts}
    content["results"] = [found.summary() for found in outcomes]
    write_json(folder / "report.json", content)
    path = folder / "report.html"
    write_whole(path, to_utf8(_page(outcomes, facts, background)))
    return path


def _known(value: Any) -> Any:
    """As JSON has it: null for NaN."""
    number = value.item()
    return None if number != number else number


def _images(found: LabelOutcomes) -> str:
    """A row per image; several names are divided as in a list with label_separator bar."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(LABEL_COLUMNS)
    names = np.array(found.class_names, object)
    for image, labels, predicted in zip(found.images, found.labels, found.predicted):
        cells = [image, "|".join(names[labels]), "|".join(names[predicted])]
        writer.writerow([*map(to_cell, cells), int((labels == predicted).all())])
    return text.getvalue()


def _classes(found: LabelOutcomes) -> str:
    """A row per class; scores in percent, empty where they are of no image."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = found.result.of_classes
    writer.writerow(("class", *columns._fields))
    for name, images, predicted, *scores in zip(found.class_names, *columns):
        shown = ("" if np.isnan(score) else f"{score:.6g}" for score in scores)
        writer.writerow([to_cell(name), images, predicted, *shown])
    return text.getvalue()


def _page(outcomes: List[LabelOutcomes], facts: Dict[str, str], background: Background) -> str:
    first = outcomes[0].result
    figures = [Figure(name, f"{getattr(first, key):.3f} %") for key, name in _SCORES.items()]
    figures[0] = figures[0]._replace(note=f"{outcomes[0].weights} weights")
    figures += [Figure("loss", f"{first.loss:.4f}"), Figure("images", f"{first.images:,}")]
    head = ("score", *(f"{found.weights} weights" for found in outcomes))
    results = [found.result for found in outcomes]
    rows = [
        (f"{name} %", *(f"{getattr(result, key):.3f}" for result in results))
        for key, name in _SCORES.items()
    ]
    rows += [("loss", *(f"{result.loss:.4f}" for result in results))]
    rows += [("images", *(str(result.images) for result in results))]
    said = lines([_NOTE, *filter(None, [background.choice])])
    sections = [
        Section("Scores", table(head, rows, label="Scores", fits=True) + said),
        *background.before,
        Section("Classes, worst first", _class_table(outcomes[0])),
        *background.after,
    ]
    title = f"{facts['arch']}: mAP {first.map:.3f}\u00a0%"
    return page(title, [f"{key}: {value}" for key, value in facts.items()], figures, sections)


def _class_table(found: LabelOutcomes) -> str:
    columns = found.result.of_classes
    order = np.argsort(columns.average_precision, kind="stable")[:CLASS_ROWS]  # NaN comes last
    rows = []
    for i in order:
        scores = [getattr(columns, key)[i] for key in _CLASS_SCORES]
        shown = ("-" if np.isnan(score) else f"{score:.2f}" for score in scores)
        rows.append((found.class_names[i], str(columns.images[i]), *shown))
    head = ("class", "images", *_CLASS_SCORES.values())
    return table(head, rows, label="Classes", shares=2, fits=True)
