"""The page of a run: its curves, its scores, its recipe and what computed it."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..args import Config
from ..checkpoints.saved_record import Change
from ..configs import parser
from ..runtime.host import describe_host
from .charts import Mark, Points, Series, line_chart
from .markup import (
    Figure,
    Section,
    commands,
    folded,
    lines,
    page,
    table,
    without_credentials,
)
from .model_card import data_name
from .scores import SCORES

Rows = List[Dict[str, str]]
# Of the table of evaluations, the last ones.
_MOST_EVALUATIONS = 1000

# Column of metrics.csv -> how tables call it; those of the other kind of labels stay empty.
_TITLES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "map": "mAP %",
    "macro_f1": "macro F1 %",
    "micro_f1": "micro F1 %",
    "val_loss": "loss",
}

# Of a path; who reads the page has not these folders.
_FOLDERS = re.compile(r"\S*/(?=[^/\s])")


@dataclass(frozen=True)
class RunStory:
    """What is known of a run while it works.

    Attributes:
        rows: of its metrics.csv.
        header: the lines it began with.
        step, total_steps: how far it is.
        best_top1, best_epoch: by the weights that `best_by` names; epoch 0: none yet; top-1 below
            0: images have several labels.
        changes: where it went on with another recipe.
        best_interval: 95 % confidence interval of `best_top1`, percent.
        best_score: by the key `best_metric`; None: `best_top1`.
        has_stopped: it has ended early.
    """

    config: Config
    rows: Rows
    header: Sequence[str]
    step: int
    total_steps: int
    best_top1: float = -1.0
    best_epoch: int = 0
    changes: Sequence[Change] = field(default_factory=list)
    best_interval: Optional[Tuple[float, float]] = None
    best_score: Optional[float] = None
    has_stopped: bool = False


def now() -> str:
    """The time that a page says it is of."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def run_page(story: RunStory, *, folder: str) -> str:
    """A page that opens offline.

    Args:
        folder: of the run, for the commands that go on from it.
    """
    config = story.config
    sections = [
        curves_section(story.rows, story.changes),
        *_evaluations(story.rows),
        Section("The run", lines(story.header)) if story.header else None,
        recipe_section(config, config.origins),
        host_section({}),
        Section("Go on", _next_commands(folder)),
    ]
    state = "finished" if story.step >= story.total_steps else "under way"
    state = "stopped early" if story.has_stopped else state
    data = data_name(config.data.set, config.data.data_url)
    facts = [f"training on {data}", state, f"written {now()}"]
    title = f"{config.model.arch}: training run"
    return page(title, facts, _figures(story), [s for s in sections if s is not None])


def _figures(story: RunStory) -> List[Figure]:
    config = story.config
    found = []
    if story.best_epoch:
        count = count_evaluations(story.rows)
        note = f"{config.train.best_by} weights, epoch {story.best_epoch}, best of {count}"
        score = SCORES[config.train.best_metric]
        if story.best_score is not None:
            found.append(Figure(f"best {score.title}", score.text(story.best_score), note))
            note = "in that epoch"
        if story.best_interval:
            note += "; 95 %: {:.2f} to {:.2f}".format(*story.best_interval)
        title = "best top-1" if story.best_score is None else "its top-1"
        if story.best_top1 >= 0:
            found.append(Figure(title, f"{story.best_top1:.3f} %", note))
    percents = {key: title[:-2] for key, title in _TITLES.items() if title.endswith(" %")}
    for name, key, unit in (
        *((f"last {title}", key, " %") for key, title in percents.items()),
        ("validation loss", "val_loss", ""),
        ("training loss", "loss", ""),
    ):
        points = points_of(story.rows, key)
        if points:
            epoch, value = points[-1]
            digits = 3 if unit else 4
            found.append(Figure(name, f"{value:.{digits}f}{unit}", f"epoch {epoch:g}"))
    return [*found, Figure("steps", f"{story.step}", f"of {story.total_steps}")]


def points_of(rows: Rows, key: str) -> Points:
    """(epoch, value) of a column; values that are no finite numbers are left out."""
    pairs = [(row["epoch"], row[key]) for row in rows if row.get(key) and row.get("epoch")]
    numbers = [(float(epoch), float(value)) for epoch, value in pairs]
    return [(x, y) for x, y in numbers if math.isfinite(x) and math.isfinite(y)]


def curves_section(rows: Rows, changes: Sequence[Change] = ()) -> Section:
    """Loss, accuracy and learning rate against epochs, with where another recipe went on."""
    marks = _marks(rows, changes)
    title, key = ("mAP", "map") if any(row.get("map") for row in rows) else ("top-1", "top1")
    charts = [
        ("Loss", (("training", "loss"), ("validation", "val_loss"), ("averages", "ema_val_loss"))),
        (f"Validation {title}, percent", (("weights", key), ("averaged weights", f"ema_{key}"))),
        ("Learning rate", (("learning rate", "lr"),)),
    ]
    drawn = []
    for title, columns in charts:
        keys = [key for _, key in columns]
        series = [
            Series(name, points_of(rows, key), has_dots=key not in ("loss", "lr"))
            for name, key in columns
        ]
        drawn.append(line_chart(title, series, marks=marks, note=_not_finite(rows, keys)))
    return Section("Curves", f'<div class="charts">{"".join(drawn)}</div>')


def _not_finite(rows: Rows, keys: Sequence[str]) -> str:
    values = [float(row[key]) for row in rows for key in keys if row.get(key)]
    count = sum(not math.isfinite(value) for value in values)
    return f"{count} of {len(values)} values are inf or NaN and left out" if count else ""


def _marks(rows: Rows, changes: Sequence[Change]) -> List[Mark]:
    places = [(int(row["step"]), float(row["epoch"])) for row in rows if row.get("epoch")]
    found = []
    for change in changes:
        before = [epoch for step, epoch in places if step <= change.step]
        if places:
            label = f"resumed at step {change.step}: {'; '.join(change.what)}"
            found.append(Mark(before[-1] if before else places[0][1], label))
    return found


def count_evaluations(rows: Rows) -> int:
    return sum(map(_is_scored, rows))


def _is_scored(row: Mapping[str, str]) -> bool:
    return any(row.get(key) for key in _TITLES)


def choice_bias(count: int) -> str:
    """What is to be known of a checkpoint that its own scores have chosen.

    Args:
        count: evaluations of its run; 0: not known.
    """
    among = f"{count} evaluations" if count else "the evaluations"
    return (
        f"best.ckpt is the best of {among} of its run on these images. The best of several scores "
        "is too high on average, and no interval corrects that: report the score of last.ckpt, or "
        "of images that chose nothing, such as a test split."
    )


def _evaluations(rows: Rows) -> List[Section]:
    found = list(filter(_is_scored, rows))[-_MOST_EVALUATIONS:]
    if not found:
        return []
    head = {"epoch": "epoch", "step": "step"}
    for prefix, whose in (("", ""), ("ema_", "averages: ")):
        for key, title in _TITLES.items():
            if any(row.get(prefix + key) for row in found):
                head[prefix + key], whose = whose + title, ""
    cells = [[_short(key, row.get(key) or "-") for key in head] for row in found]
    body = table(list(head.values()), cells, label="Evaluations")
    if len(found) > 1:
        body += lines([choice_bias(count_evaluations(rows))])
    return [Section("Evaluations", body)]


def _short(key: str, value: str) -> str:
    if key in ("step", "epoch") or value == "-":
        return value
    return f"{float(value):.{4 if key.endswith('loss') else 3}f}"


def recipe_section(config: Config, origins: Mapping[str, str], *, title: str = "Recipe") -> Section:
    """Every key with its value and where that came from: what was given first, defaults folded.

    Args:
        origins: key -> where its value came from.
    """
    given: List[Tuple[str, str, str]] = []
    defaults: List[Tuple[str, str, str]] = []
    for key, value in config.flat().items():
        origin = _FOLDERS.sub("", origins.get(key, "not known"))
        row = (key, without_credentials(parser.to_flow(value)), origin)
        (defaults if row[2] == parser.DEFAULT else given).append(row)
    head = ("key", "value", "from")
    parts = [table(head, given, label=f"{title}: given values", is_text=True)] if given else []
    parts.append(
        folded(
            f"{len(defaults)} keys at their defaults",
            table(
                head[:2], [row[:2] for row in defaults], label=f"{title}: defaults", is_text=True
            ),
        )
    )
    return Section(title, "\n".join(parts))


def host_section(more: Mapping[str, str]) -> Section:
    """The machine and the versions.

    Args:
        more: what else computed it: the device.
    """
    rows: List[Tuple[str, str]] = [*more.items(), *describe_host().items()]
    return Section("Machine and versions", table((), rows, label="Machine", fits=True))


def _next_commands(folder: str) -> str:
    best = shlex.quote(f"{folder}/best.ckpt")
    return commands(
        f"python eval.py --pretrained {best} --report {shlex.quote(f'{folder}/report')}",
        f"python predict.py --pretrained {best} --input IMAGE_OR_FOLDER",
        f"python export.py --pretrained {best} --file_format MINDIR",
    )


def last_scores(rows: Rows) -> Optional[Dict[str, float]]:
    """`{"top1": ..., "top5": ..., "loss": ..., "epoch": ...}` of the last evaluation, if any."""
    for row in reversed(rows):
        if _is_scored(row):
            names = {**{key: key for key in _TITLES}, "val_loss": "loss", "epoch": "epoch"}
            return {name: float(row[key]) for key, name in names.items() if row.get(key)}
    return None
