"""Predictions of images, and the four forms they are written in."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..runtime.files import write_whole
from ..runtime.text import on_screen, printable, to_cell, to_utf8, without_surrogates

FORMATS = ("table", "csv", "json", "parquet")
_COLUMNS = ("image", "rank", "label", "name", "probability")
_NAME_CHARS = 60


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, best first.

    Attributes:
        image: its path.
        labels, names, probabilities: of the classes, (k,) each; probabilities as of `top_k`.
    """

    image: str
    labels: List[int]
    names: List[str]
    probabilities: List[float]


def top_k(
    logits: np.ndarray, k: int, *, is_multi_label: bool = False
) -> Tuple[np.ndarray, np.ndarray]:
    """(B, num_classes) -> the k best labels (B, k) and their probabilities (B, k) float64.

    Of equal logits the lower label comes first.

    Args:
        is_multi_label: each class has a probability of its own, the sigmoid; else all share one,
            the softmax.
    """
    logits = logits.astype(np.float64)
    if is_multi_label:
        probabilities = np.exp(-np.logaddexp(0, -logits))
    else:
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(probabilities, order, axis=1)


def write_predictions(
    predictions: Sequence[Prediction], form: str, path: Optional[Path]
) -> Optional[Path]:
    """Writes one of FORMATS to a file, or but for parquet to the screen (`path` None).

    csv and parquet have a row per image and rank, from 1; json an object per image.

    Returns:
        The file, if any. It is whole or not there.

    Raises:
        UserError: the package for parquet is missing, or the file cannot be written.
    """
    if form == "parquet" and path is not None:
        return replace_file(path, _parquet(predictions))
    text = {"table": _table, "csv": _csv, "json": _json}[form](predictions)
    if path is not None:
        return replace_file(path, to_utf8(text))
    print(text, end="")
    return None


def check_format(form: str, path: Optional[Path]) -> None:
    """Refuses, before any work, a form that cannot be written here.

    Raises:
        UserError: parquet without pyarrow, or to the screen.
    """
    if form == "parquet":
        import_pyarrow()
        if path is None:
            raise UserError("output 'parquet': needs a file; give --output_file FILE.parquet")


def import_pyarrow(instead: str = "give --output csv") -> Any:
    """The package.

    Args:
        instead: the other remedy.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"output 'parquet': needs pyarrow; pip install 'pyarrow<21', or {instead}"
        ) from error
    return pyarrow


def replace_file(path: Path, content: bytes) -> Path:
    """Writes the `output_file`.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"output_file {str(path)!r}: {error.strerror}; choose another") from error
    return path


def _rows(predictions: Sequence[Prediction]) -> List[Dict[str, Any]]:
    return [
        dict(zip(_COLUMNS, (prediction.image, rank, label, name, probability)))
        for prediction in predictions
        for rank, (label, name, probability) in enumerate(
            zip(prediction.labels, prediction.names, prediction.probabilities), start=1
        )
    ]


def _csv(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(predictions):
        writer.writerow({**row, "image": to_cell(row["image"]), "name": to_cell(row["name"])})
    return text.getvalue()


def _json(predictions: Sequence[Prediction]) -> str:
    content = [
        {
            "image": p.image,
            "top": [
                {"label": label, "name": name, "probability": probability}
                for label, name, probability in zip(p.labels, p.names, p.probabilities)
            ],
        }
        for p in predictions
    ]
    # Its escapes are those of JSON.
    return on_screen(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _parquet(predictions: Sequence[Prediction]) -> bytes:
    pyarrow = import_pyarrow()
    rows = _rows(predictions)
    columns = {column: [row[column] for row in rows] for column in _COLUMNS}
    for column in ("image", "name"):
        columns[column] = list(map(without_surrogates, columns[column]))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def _table(predictions: Sequence[Prediction]) -> str:
    images = [printable(p.image) for p in predictions]
    width = min(_NAME_CHARS, max(map(len, images), default=0))
    lines = []
    for p, image in zip(predictions, images):
        shown = image if len(image) <= width else "..." + image[3 - width :]
        best = "  ".join(
            f"{printable(name)} {100 * share:.1f} %"
            for name, share in zip(p.names, p.probabilities)
        )
        lines.append(f"{shown.ljust(width)}  {best}\n")
    return "".join(lines)
