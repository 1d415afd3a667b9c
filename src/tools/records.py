"""The history of a run: metrics.csv and its picture."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Dict, List, TextIO

COLUMNS = (
    "step",  # steps done, from 1
    "epoch",  # epochs done, fractional
    "loss",  # mean training loss since the last row
    "lr",
    "grad_norm",  # global norm before clipping
    "loss_scale",
    "images_per_s",
    "data_wait",  # share of the time spent waiting for data
    "val_loss",
    "top1",  # percent
    "top5",  # percent
    "ema_val_loss",  # the same of the averaged weights
    "ema_top1",
    "ema_top5",
)


class Records:
    """Appends rows to `metrics.csv`; each is on its way to the disk when `write` returns.

    Rows of steps after `first_step` are dropped on opening: a resumed run does them again.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        rows = [row for row in read_records(path) if int(row["step"]) <= first_step]
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
        self._file: TextIO = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS)

    def write(self, **values: Any) -> None:
        """One row; columns not given stay empty."""
        self._writer.writerow(values)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_records(path: Path) -> List[Dict[str, str]]:
    """Rows of a metrics.csv, oldest first; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(rows: List[Dict[str, str]], picture: Path, *, title: str) -> None:
    """Loss, learning rate and top-1 against epochs, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (loss, rate, accuracy) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axes, key, label in (
        (loss, "loss", "training"),
        (loss, "val_loss", "validation"),
        (rate, "lr", "learning rate"),
        (accuracy, "top1", "validation top-1"),
        (accuracy, "ema_top1", "the same, averaged weights"),
    ):
        points = [(float(row["epoch"]), float(row[key])) for row in rows if row[key]]
        if not points:
            continue
        style = "o-" if key.endswith(("top1", "val_loss")) else "-"
        axes.plot([x for x, _ in points], [y for _, y in points], style, ms=3, label=label)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    loss.set_ylabel("cross entropy")
    accuracy.set_ylabel("percent")
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
