"""A report as files: images.csv, classes.csv, report.json, and one page that opens offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..runs.markup import Figure, Section, lines, page, table
from ..runs.run_page import now
from ..runtime.files import write_json, write_whole
from ..runtime.text import to_utf8
from .figures import calibration_chart, confusion_chart
from .mistakes import HeatMaps, mistakes_html
from .outcomes import (
    Calibration,
    Collector,
    Outcomes,
    real_accuracy,
    summary,
    write_classes,
    write_outcomes,
)

# Of report.json.
KIND, VERSION = "report", 1
MISTAKES = 25
_MATRIX_CLASSES, _SMALL_MATRIX = 100, 15
_PAIRS, CLASS_ROWS = 20, 1000
_INTERVAL_NOTE = (
    "95 %: Wilson's confidence interval of top-1. It is for the choice of the images alone; "
    "another seed of the training moves the score too. scripts/compare_reports.py has the "
    "interval of the difference of two reports."
)


@dataclass(frozen=True)
class Background:
    """What the page shows beside the evaluation itself.

    Attributes:
        before, after: sections between the scores and what was found image by image, and at the
            end of the page.
        heat: of the mistakes of the first pass; None: there are none.
        choice: what is to be known of the scores of weights that scores have chosen.
    """

    before: Sequence[Section] = ()
    after: Sequence[Section] = ()
    heat: Optional[HeatMaps] = None
    choice: str = ""


def create_folder(folder: Path) -> None:
    """Makes the folder before any work is done.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"report {str(folder)!r}: {error.strerror}; choose another") from error


def write_report(
    folder: Path,
    passes: Sequence[Tuple[Outcomes, Collector]],
    *,
    facts: Dict[str, str],
    real_labels: Optional[Path],
    background: Optional[Background] = None,
) -> Path:
    """Writes everything; the first pass is the one the pictures show.

    Args:
        passes: of the raw and maybe of the averaged weights.
        facts: what was evaluated, for the head of the page.

    Returns:
        The page.

    Raises:
        UserError: as of `real_accuracy`.
    """
    reals = [real_accuracy(o, real_labels) if real_labels else None for o, _ in passes]
    summaries = [summary(outcomes, real) for (outcomes, _), real in zip(passes, reals)]
    facts = {**facts, "date": now()}
    write_outcomes(passes[0][0], folder / "images.csv")
    write_classes(passes[0][0], folder / "classes.csv")
    content = {"kind": KIND, "version": VERSION, **facts, "results": summaries}
    write_json(folder / "report.json", content)
    path = folder / "report.html"
    write_whole(path, to_utf8(_page(passes[0], summaries, facts, background or Background())))
    return path


def _page(
    first: Tuple[Outcomes, Collector],
    summaries: List[Dict[str, Any]],
    facts: Dict[str, str],
    background: Background,
) -> str:
    outcomes, collector = first
    title = f"{facts['arch']}: top-1 {summaries[0]['top1']:.3f}\u00a0%"
    shown = [f"{key}: {value}" for key, value in facts.items()]
    sections = [
        Section("Scores", _scores(summaries, background.choice)),
        Section("Confusion", _confusion(outcomes)),
        Section("Calibration", _calibration(outcomes.calibration())),
    ]
    if collector.mistakes:
        cards = mistakes_html(outcomes, collector, background.heat)
        sections.append(Section("Most confident mistakes", cards))
    sections.append(Section("Classes, worst first", _classes(outcomes)))
    sections[1:1] = background.before
    return page(title, shown, _figures(summaries[0]), [*sections, *background.after])


def _figures(first: Dict[str, Any]) -> List[Figure]:
    found = [
        Figure(
            "top-1",
            f"{first['top1']:.3f} %",
            f"95 %: {_interval(first['top1_interval'])}; {first['weights']} weights",
        ),
        Figure("top-5", f"{first['top5']:.3f} %"),
        Figure("macro recall", f"{first['macro_top1']:.3f} %", "mean of the classes"),
        Figure("loss", f"{first['loss']:.4f}"),
        Figure("calibration error", f"{first['ece']:.4f}", "0 is calibrated"),
        Figure("images", f"{first['images']:,}"),
    ]
    if "real_top1" in first:
        note = f"95 %: {_interval(first['real_top1_interval'])}"
        found.insert(2, Figure("ReaL top-1", f"{first['real_top1']:.3f} %", note))
    return found


def _interval(ends: Sequence[float]) -> str:
    return "{:.2f} to {:.2f}".format(*ends)


def _scores(summaries: List[Dict[str, Any]], choice: str) -> str:
    """A column for each set of weights, so that the table fits a telephone."""
    shown: Dict[str, Callable[[Dict[str, Any]], str]] = {
        "top-1 %": lambda s: f"{s['top1']:.3f}",
        "95 % of top-1": lambda s: _interval(s["top1_interval"]),
        "top-5 %": lambda s: f"{s['top5']:.3f}",
        "macro recall %": lambda s: f"{s['macro_top1']:.3f}",
        "loss": lambda s: f"{s['loss']:.4f}",
        "ECE": lambda s: f"{s['ece']:.4f}",
        "images": lambda s: str(s["images"]),
    }
    if "real_top1" in summaries[0]:
        shown["ReaL top-1 %"] = lambda s: f"{s['real_top1']:.3f}"
    head = ("score", *(f"{s['weights']} weights" for s in summaries))
    rows = [(name, *map(form, summaries)) for name, form in shown.items()]
    said = [_INTERVAL_NOTE, *map(_over_all, summaries), choice]
    return table(head, rows, label="Scores", fits=True) + lines(list(filter(None, said)))


def _over_all(summary: Dict[str, Any]) -> str:
    """Of a subset of the classes, the scores over all."""
    if "all_classes" not in summary:
        return ""
    found = summary["all_classes"]
    scores = [f"{found[key]:.3f} %" for key in ("top1", "top5", "macro_recall")]
    return (
        f"{summary['weights']} weights: these scores are over the logits of "
        f"{summary['scored_classes']} classes. Over those of all {found['classes']}: top-1 "
        f"{scores[0]} ({_interval(found['top1_interval'])}), top-5 {scores[1]}, macro {scores[2]}."
    )


def _confusion(outcomes: Outcomes) -> str:
    """The matrix, unless it is too large to be seen, and the commonest mistakes beside it."""
    classes = len(outcomes.class_names)
    pairs = [(*pair[:2], str(pair[2])) for pair in outcomes.worst_pairs(_PAIRS)]
    head = ("true", "predicted", "images")
    found = table(head, pairs, label="Commonest mistakes", fits=True) if pairs else "<p>None.</p>"
    found = f"<div><h3>Commonest mistakes</h3>{found}</div>"
    if classes > _MATRIX_CLASSES:
        return found
    chart = confusion_chart(outcomes.confusion(), outcomes.class_names)
    return (
        f'<div class="{"charts two" if classes <= _SMALL_MATRIX else "below"}">{chart}{found}</div>'
    )


def _calibration(found: Calibration) -> str:
    bins = [
        (f"{confidence:.3f}", f"{accuracy:.3f}", str(images))
        for images, confidence, accuracy in zip(*found[:3])
        if images
    ]
    head = ("confidence", "accuracy", "images")
    as_table = table(head, bins, label="Calibration", fits=True)
    return f'<div class="charts two">{calibration_chart(found)}{as_table}</div>'


def _classes(outcomes: Outcomes) -> str:
    found = outcomes.of_classes()
    worst = np.where(found.images > 0, found.recall, np.inf)
    rows = []
    for i in np.argsort(worst, kind="stable")[:CLASS_ROWS]:
        scores = (found.recall[i], found.precision[i], found.f1[i])
        shown = ("-" if np.isnan(score) else f"{score:.2f}" for score in scores)
        rows.append((outcomes.class_names[i], str(found.images[i]), *shown))
    head = ("class", "images", "recall %", "precision %", "F1 %")
    return table(head, rows, label="Classes", shares=2, fits=True)
