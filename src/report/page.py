"""A report as files: images.csv, report.json, pictures, and one page that opens offline."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..runs.fonts import Fonts, create_figure
from ..runtime.files import write_json, write_whole
from ..runtime.text import printable, to_utf8
from .outcomes import Collector, Outcomes, real_accuracy, summary, write_outcomes
from .pictures import Tile, contact_sheet

# Of report.json.
KIND, VERSION = "report", 1
MISTAKES = 25
_MATRIX_CLASSES = 100
_PAIRS, _CLASS_ROWS = 20, 1000
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1150px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:1em 0}td,th{padding:3px 12px;border-bottom:1px solid #e4e4e4}
th{text-align:left;background:#f4f6f8}td.n{text-align:right;font-variant-numeric:tabular-nums}
img{max-width:100%;height:auto}.columns{max-height:420px;overflow:auto;display:inline-block}
p.facts{color:#666}
"""


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
    outcomes, collector = passes[0]
    write_outcomes(outcomes, folder / "images.csv")
    content = {"kind": KIND, "version": VERSION, **facts, "results": summaries}
    write_json(folder / "report.json", content)
    pictures = {"reliability.png": _reliability(outcomes)}
    if len(outcomes.class_names) <= _MATRIX_CLASSES:
        pictures["confusion.png"] = _confusion(outcomes)
    if collector.mistakes:
        pictures["mistakes.png"] = _mistakes(outcomes, collector)
    for name, content_of_file in pictures.items():
        write_whole(folder / name, content_of_file)
    page = folder / "report.html"
    write_whole(page, to_utf8(_page(outcomes, summaries, facts, pictures)))
    return page


def _page(
    outcomes: Outcomes,
    summaries: List[Dict[str, Any]],
    facts: Dict[str, str],
    pictures: Dict[str, bytes],
) -> str:
    title = f"{printable(facts['arch'])}: top-1 {summaries[0]['top1']:.3f} %"
    shown = " · ".join(f"{key}: {value}" for key, value in facts.items())
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="facts">{html.escape(printable(shown))}</p>',
        "<h2>Scores</h2>",
        _scores(summaries),
        "<h2>Calibration</h2>",
        _picture(pictures, "reliability.png"),
    ]
    if "confusion.png" in pictures:
        parts += ["<h2>Confusion matrix</h2>", _picture(pictures, "confusion.png")]
    pairs = [(*pair[:2], str(pair[2])) for pair in outcomes.worst_pairs(_PAIRS)]
    parts += ["<h2>Commonest mistakes</h2>", _table(("true", "predicted", "images"), pairs)]
    if "mistakes.png" in pictures:
        parts += ["<h2>Most confident mistakes</h2>", _picture(pictures, "mistakes.png")]
    parts += ["<h2>Classes, worst first</h2>", _classes(outcomes)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _scores(summaries: List[Dict[str, Any]]) -> str:
    has_real = "real_top1" in summaries[0]
    head = ("weights", "top-1 %", "top-5 %", "loss", "ECE", "images")
    rows = []
    for s in summaries:
        scores = (f"{s['top1']:.3f}", f"{s['top5']:.3f}", f"{s['loss']:.4f}", f"{s['ece']:.4f}")
        row = (s["weights"], *scores, str(s["images"]))
        rows.append((*row, f"{s['real_top1']:.3f}") if has_real else row)
    return _table((*head, "ReaL top-1 %") if has_real else head, rows)


def _classes(outcomes: Outcomes) -> str:
    count, accuracy = outcomes.per_class()
    order = np.argsort(np.where(count > 0, accuracy, np.inf), kind="stable")[:_CLASS_ROWS]
    rows = [
        (outcomes.class_names[i], str(count[i]), f"{accuracy[i]:.2f}" if count[i] else "-")
        for i in order
    ]
    return f'<div class="columns">{_table(("class", "images", "top-1 %"), rows)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        number = re.fullmatch("[0-9.-]+", text)
        return f"<td{' class=n' if number else ''}>{html.escape(printable(text))}</td>"

    heads = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{heads}</tr>\n{body}</table>"


def _picture(pictures: Dict[str, bytes], name: str) -> str:
    data = base64.b64encode(pictures[name]).decode()
    return f'<img alt="{name}" src="data:image/png;base64,{data}">'


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    pyplot.close(figure)
    return buffer.getvalue()


def _reliability(outcomes: Outcomes) -> bytes:
    calibration = outcomes.calibration()
    figure, axes = create_figure(figsize=(6, 5))
    used = calibration.images > 0
    share = calibration.images[used] / max(1, calibration.images.sum())
    axes.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    axes.bar(calibration.confidence[used], share, width=0.03, alpha=0.3, label="share of images")
    axes.plot(
        calibration.confidence[used], calibration.accuracy[used], "o-", label=outcomes.weights
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.04))
    axes.set_title(f"expected calibration error {calibration.ece:.4f}")
    axes.legend()
    return _png(figure)


def _confusion(outcomes: Outcomes) -> bytes:
    matrix = outcomes.confusion()
    classes = len(matrix)
    side = min(11.0, 3.5 + 0.25 * classes)
    figure, axes = create_figure(figsize=(side, side * 0.9), texts=outcomes.class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if classes <= 30 else 5
    fonts = Fonts(outcomes.class_names)
    names = [fonts.drawable(name)[:20] for name in outcomes.class_names]
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= 30:
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    return _png(figure)


def _mistakes(outcomes: Outcomes, collector: Collector) -> bytes:
    names = outcomes.class_names
    tiles = [
        Tile(
            image,
            [
                f"{100 * confidence:.1f} % {names[outcomes.predicted[index]]}",
                f"true: {names[outcomes.label[index]]}",
                Path(outcomes.images[index]).name,
            ],
            good=False,
        )
        for confidence, index, image in collector.mistakes
    ]
    buffer = io.BytesIO()
    contact_sheet(tiles).save(buffer, format="PNG")
    return buffer.getvalue()
