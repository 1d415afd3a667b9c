"""The history of a run: metrics.csv, and several of them in one picture."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import logging
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Mapping, Optional, Tuple

from ..errors import TrainingFailed, on_one_line
from ..runtime.files import replacing, what_helps
from ..runtime.plain_numbers import decimal_number, whole_number
from ..runtime.regular_files import TABLE_BYTES, read_text
from .fonts import Fonts, create_figure
from .tensorboard_events import TensorBoardEvents

_LOGGER = logging.getLogger(__name__)

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
    "macro_recall",  # percent; mean of the recalls of all classes
    "ema_macro_recall",
    "map",  # percent; of images with several labels, instead of top1 and top5
    "macro_f1",
    "micro_f1",
    "ema_map",
    "ema_macro_f1",
    "ema_micro_f1",
    "weights",  # of a row that a checkpoint was saved with: digest of all that is in it
    "images",  # the step of the save before, and sums of all images since, see `ImageSums`
)
# That of images with one label, and with several.
_MAIN_SCORES = {"top1": "top-1", "map": "mAP"}
# Those that are no numbers, and what they hold.
TEXTS = {
    "weights": re.compile("[0-9a-f]{32}"),
    "images": re.compile("[0-9]{1,12}:[0-9A-Za-z+/]{2,8192}={0,2}"),
}

# May pass: somebody has the file open and locked, or a network disk has come back.
_PASSING = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EAGAIN, errno.ETXTBSY, errno.ESTALE)

# What a loss or a norm may have become.
_NOT_FINITE = ("nan", "inf", "-inf")
_SHOWN = 40
# Of the legend below the curves of several runs.
_LEGEND_COLUMNS = 5


class Records:
    """Appends rows to `metrics.csv`; each is on its way to the disk when `write` returns.

    Rows of steps after `first_step` are dropped on opening: a resumed run does them again.

    Args:
        events: a TensorBoard writer that gets every row too; None: off.
    """

    def __init__(
        self, path: Path, *, first_step: int, events: Optional[TensorBoardEvents] = None
    ) -> None:
        rows = [row for row in read_records(path) if int(row["step"]) <= first_step]
        with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self._path = path
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size = path.stat().st_size  # of what is whole
        self._waiting = b""
        self._events = events

    def write(self, **values: Any) -> None:
        """One row; columns not given stay empty.

        Where the file is locked, as a spreadsheet locks what it shows, rows wait for the next call.

        Raises:
            TrainingFailed: the disk is full.
        """
        is_first = not self._waiting
        text = io.StringIO(newline="")
        csv.DictWriter(text, COLUMNS).writerow(values)
        self._waiting += text.getvalue().encode()
        try:
            self._append() if is_first else self._append_anew()
            if self._events is not None:
                self._events.write({key: values[key] for key in values if key not in TEXTS})
        except OSError as error:
            if error.errno not in _PASSING:
                last = self._path.with_name("last.ckpt")
                raise TrainingFailed(
                    f"step {values.get('step')}: {self._file.name} cannot be written "
                    f"({error.strerror}); {how_to_go_on(last, error)}"
                ) from error
            if is_first:
                _LOGGER.warning("%s: %s; its rows wait", self._path, error.strerror)

    def _append(self) -> None:
        rest = self._waiting
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self._size += len(self._waiting)
        self._waiting = b""

    def _append_anew(self) -> None:
        """The same by a new handle, over what a write that failed has left of a row."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._file = self._path.open("r+b", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        if not self._size <= size <= self._size + len(self._waiting):
            return  # somebody else has written
        self._file.truncate(self._size)
        self._file.seek(self._size)
        self._append()

    def close(self) -> None:
        """What could not be written before is lost."""
        with contextlib.suppress(OSError, ValueError):
            if self._waiting:
                self._append_anew()
        with contextlib.suppress(OSError):
            self._file.close()
            if self._events is not None:
                self._events.close()


def how_to_go_on(last: Path, error: BaseException) -> str:
    """After a file could not be written: what there is, and what to do.

    Args:
        last: the run's last checkpoint, which may not have been written yet.
    """
    if last.is_file():
        return f"{last.name} is whole: {what_helps(error)}, then continue with --resume auto"
    return f"no checkpoint has been saved yet: {what_helps(error)}, then start again"


def read_records(path: Path) -> List[Dict[str, str]]:
    """Rows of a metrics.csv, oldest first; none where there is no file.

    A last line without its end, which a full disk leaves behind, is not read.

    Raises:
        ValueError: it is no such file, and in which line.
        OSError: it cannot be read.
    """
    if not path.exists():
        return []
    return parse_records(read_text(path, TABLE_BYTES))


def parse_records(text: str) -> List[Dict[str, str]]:
    """`read_records` of a file's text; columns that are not of `COLUMNS` may hold anything."""
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            _check_row(row)
            rows.append(row)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {reader.line_num}: {on_one_line(error)}") from error
    return rows


def _check_row(row: Mapping[Optional[str], Any]) -> None:
    if None in row or None in row.values():
        raise ValueError("not as many values as columns")
    for column in filter(row.get, COLUMNS):
        value = row[column]
        try:
            if column in TEXTS:
                if not TEXTS[column].fullmatch(value):
                    raise ValueError("not what a run writes there")
            elif column == "step":
                whole_number(value)
            elif value not in _NOT_FINITE:
                decimal_number(value)
        except ValueError as error:
            raise ValueError(f"{column} {value[:_SHOWN]!r}: {error}") from error


def draw_runs(
    runs: Mapping[str, List[Dict[str, str]]], picture: Path, *, against: str = "epoch"
) -> None:
    """The curves of several runs, a colour each, as a PNG.

    Args:
        runs: label -> rows of its metrics.csv.
        against: the column of the horizontal axis, `epoch` or `step`.
    """
    from matplotlib.lines import Line2D

    all_rows = [row for rows in runs.values() for row in rows]
    legend_rows = -(-len(runs) // _LEGEND_COLUMNS)
    figure, panels = create_figure(1, 3, texts=runs, figsize=(13, 4 + 0.2 * legend_rows))
    for index, rows in enumerate(runs.values()):
        colour = f"C{index % 10}"
        lines = ((0, "loss", "-"), (0, "val_loss", "o--"), (1, "lr", "-"))
        scores = ((2, key, "o-") for key in _MAIN_SCORES)
        averages = ((2, f"ema_{key}", "s--") for key in _MAIN_SCORES)
        for panel, key, style in (*lines, *scores, *averages):
            _draw(panels[panel], _points(rows, key, against), style, color=colour)
    panels[0].set_ylabel("cross entropy")
    panels[2].set_ylabel("percent")
    panels[0].set_title("loss (dashed: validation)", fontsize=10)
    panels[1].set_title("learning rate", fontsize=10)
    shown = [title for key, title in _MAIN_SCORES.items() if any(r.get(key) for r in all_rows)]
    panels[2].set_title(
        f"validation {' and '.join(shown) or 'top-1'} (dashed: averaged weights)", fontsize=10
    )
    keys = [Line2D([], [], color=f"C{index % 10}") for index in range(len(runs))]
    names = list(map(Fonts(runs).drawable, runs))
    figure.legend(keys, names, loc="outside lower center", ncol=_LEGEND_COLUMNS, fontsize=8)
    _save(figure, panels, picture, against=against)


def _points(rows: List[Dict[str, str]], key: str, against: str) -> List[Tuple[float, float]]:
    return [
        (float(row[against]), float(row[key])) for row in rows if row.get(key) and row.get(against)
    ]


def _draw(axes: Any, points: List[Tuple[float, float]], style: str, **line: Any) -> None:
    if points:
        axes.plot([x for x, _ in points], [y for _, y in points], style, ms=3, **line)


def _save(figure: Any, panels: Any, picture: Path, *, against: str) -> None:
    from matplotlib import pyplot

    for axes in panels:
        if axes.lines:
            axes.set_xlabel(against)
            axes.grid(alpha=0.3)
    with replacing(picture) as draft:
        figure.savefig(draft, dpi=110)
    pyplot.close(figure)
