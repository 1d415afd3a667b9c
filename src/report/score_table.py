"""The scores of several checkpoints, the best first: a CSV file, and a table on the screen."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..args import EvalRun
from ..errors import UserError
from ..runtime.files import write_whole
from ..runtime.text import printable, to_cell, to_utf8
from ..trainer.evaluate import Scores
from ..trainer.metrics import EvalResult

COLUMNS = (
    *("checkpoint", "arch", "weights", "set", "data_url"),
    *("image_size", "crop_pct", "interpolation"),
    *("images", "top1", "top1_low", "top1_high", "top5", "macro_recall", "loss"),
    *("val_list", "class_subset", "classes"),
    "all_classes_top1",  # with class_subset: over all classes of the network
    *("map", "macro_f1", "micro_f1"),  # of images with several labels
    "error",  # why there are no scores
)
_SHOWN = {
    "checkpoint": "checkpoint",
    "arch": "arch",
    "top1": "top-1 %",
    "interval": "95 %",
    "top5": "top-5 %",
    "map": "mAP %",
    "macro_f1": "macro F1 %",
    "macro_recall": "macro %",
    "loss": "loss",
    "images": "images",
}
_TEXTS = ("checkpoint", "arch")


class ScoreTable:
    """Rows as they come, in the order of their top-1 or mAP; what failed comes last.

    Args:
        path: the CSV file, written anew after each row, so that what is done is never lost; None:
            there is no file.
    """

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path
        self._rows: List[Dict[str, Any]] = []

    def add(self, config: EvalRun, result: Scores) -> None:
        """Scores, under the recipe they were measured by."""
        model, data = config.model, config.data
        row = {
            "checkpoint": model.pretrained,
            "arch": model.arch,
            "weights": "ema" if config.train.ema else "raw",
            "image_size": model.image_size,
            "val_list": data.val_list or "",
            "class_subset": config.evaluation.class_subset or "",
            **{key: getattr(data, key) for key in ("set", "data_url", "crop_pct", "interpolation")},
            **{key: getattr(result, key) for key in ("images", "loss", *result.COLUMNS)},
        }
        if isinstance(result, EvalResult):
            row["top1_low"], row["top1_high"] = result.top1_interval
            row["classes"] = result.classes
        if result.all_classes:
            row["all_classes_top1"] = result.all_classes.top1
        self._add(row)

    def add_failure(self, source: str, error: str) -> None:
        """A checkpoint without scores."""
        self._add({"checkpoint": source, "top1": math.nan, "error": error})

    def failures(self) -> List[str]:
        """The checkpoints without scores."""
        return [row["checkpoint"] for row in self._rows if "error" in row]

    def _add(self, row: Dict[str, Any]) -> None:
        self._rows.append(row)
        self._rows.sort(key=_place)
        if self._path is None:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows({key: _cell(row[key]) for key in row} for row in self._rows)
        try:
            write_whole(self._path, to_utf8(text.getvalue()))
        except OSError as error:
            raise UserError(
                f"results_file {str(self._path)!r}: {error.strerror}; choose another"
            ) from error

    def text(self) -> str:
        """For the screen, a line for each row that has scores."""
        scored = [dict(row) for row in self._rows if "error" not in row]
        for row in scored:
            if "top1_low" in row:
                row["interval"] = f"{row['top1_low']:.2f} to {row['top1_high']:.2f}"
        keys = [key for key in _SHOWN if any(key in row for row in scored) or not scored]
        rows = [[_SHOWN[key] for key in keys]]
        rows += [[_on_screen(key, row.get(key, "-")) for key in keys] for row in scored]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if key in _TEXTS else cell.rjust(width)
                for key, cell, width in zip(keys, row, widths)
            ).rstrip()
            for row in rows
        )


def _place(row: Dict[str, Any]) -> float:
    """NaN has no order, and comes last."""
    score = row["top1"] if "top1" in row else row["map"]
    return -score if math.isfinite(score) else math.inf


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return to_cell(str(value))


def _on_screen(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{4 if key == 'loss' else 3}f}"
    return printable(str(value))
