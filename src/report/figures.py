"""Charts of an evaluation as SVG within its page: the confusion matrix and the calibration."""

from __future__ import annotations

from typing import List

import numpy as np

from ..runs.markup import text
from .outcomes import Calibration

# Of the confusion matrix: sides of a cell by the number of classes, the largest that has numbers.
_CELLS = ((12, 30), (30, 24), (60, 14), (100, 10))
_WITH_COUNTS = 30
_NAME_CHARS = 16
# Of the calibration.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 44, 350, 10, 220
_SHARES, _END = 250, 290  # of the strip of shares below


def confusion_chart(matrix: np.ndarray, names: List[str]) -> str:
    """Counts (K, K), rows the true class, as squares as dark as the share of their row."""
    classes = len(names)
    cell = next(side for most, side in _CELLS if classes <= most)
    size = min(11, cell)
    margin = round(0.62 * size * min(_NAME_CHARS, max(map(len, names)))) + 28
    side = margin + classes * cell + 4
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = [
        f'<rect class="track" x="{margin}" y="{margin}" width="{classes * cell}" '
        f'height="{classes * cell}"/>'
    ]
    for index, name in enumerate(names):
        parts += _names(text(_cut(name)), margin, margin + (index + 0.5) * cell, size)
    for row, column in np.argwhere(matrix):
        place = (margin + column * cell, margin + row * cell)
        said = text(f"true {names[row]}, predicted {names[column]}: {matrix[row, column]}")
        parts.append(
            f'<rect class="cell" x="{place[0]}" y="{place[1]}" width="{cell}" height="{cell}" '
            f'fill-opacity="{0.08 + 0.92 * shares[row, column]:.2f}"><title>{said}</title></rect>'
        )
        if classes <= _WITH_COUNTS:
            kind = "on" if shares[row, column] > 0.5 else "name"
            parts.append(
                f'<text class="{kind}" x="{place[0] + cell / 2}" y="{place[1] + cell / 2 + 4}" '
                f'text-anchor="middle">{matrix[row, column]}</text>'
            )
    parts += _axis_titles(margin, side)
    right = int(np.trace(matrix))
    described = f"{right} of {int(matrix.sum())} images are on the diagonal, predicted rightly."
    return (
        f'<figure class="wide" tabindex="0" role="group" aria-label="Confusion matrix">'
        f'<svg viewBox="0 0 {side} {side}" role="img" aria-labelledby="matrix-t matrix-d" '
        f'style="min-width:{round(0.94 * side)}px;max-width:{max(side, 560)}px">'
        f'<title id="matrix-t">Confusion matrix</title><desc id="matrix-d">{described}</desc>'
        f"{''.join(parts)}</svg></figure>"
    )


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def _names(name: str, margin: int, middle: float, size: int) -> List[str]:
    """Of a row, and turned round of its column."""
    return [
        f'<text class="name" x="{margin - 6}" y="{middle + 0.35 * size:.1f}" text-anchor="end" '
        f'style="font-size:{size}px">{name}</text>',
        f'<text class="name" transform="translate({middle + 0.35 * size:.1f} {margin - 6}) '
        f'rotate(-90)" style="font-size:{size}px">{name}</text>',
    ]


def _axis_titles(margin: int, side: int) -> List[str]:
    middle = (margin + side) / 2
    return [
        f'<text x="{middle}" y="12" text-anchor="middle">predicted</text>',
        f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">true</text>',
    ]


def calibration_chart(calibration: Calibration) -> str:
    """Accuracy against confidence, and below it how many images have each confidence."""
    used = np.flatnonzero(calibration.images > 0)
    share = calibration.images / max(1, calibration.images.sum())
    parts = [_frame()]
    points = []
    for index in used:
        x = _LEFT + calibration.confidence[index] * (_RIGHT - _LEFT)
        y = _BOTTOM - calibration.accuracy[index] * (_BOTTOM - _TOP)
        points.append(f"{x:.1f} {y:.1f}")
        height = share[index] / share.max() * (_END - _SHARES)
        said = (
            f"confidence {calibration.confidence[index]:.3f}: accuracy "
            f"{calibration.accuracy[index]:.3f}, {calibration.images[index]} images"
        )
        parts.append(
            f'<rect class="bar" fill-opacity="0.55" x="{x - 7:.1f}" y="{_END - height:.1f}" '
            f'width="14" height="{height:.1f}"><title>{said}</title></rect>'
        )
        parts.append(
            f'<circle class="first" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{said}</title></circle>'
        )
    path = f'<path class="first" d="M{"L".join(points)}"/>' if len(points) > 1 else ""
    gap = f"Expected calibration error {calibration.ece:.4f}."
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} 324" role="img" aria-labelledby="cal-t cal-d">'
        f'<title id="cal-t">Accuracy against confidence</title><desc id="cal-d">{gap}</desc>'
        f"{parts[0]}{path}{''.join(parts[1:])}</svg>"
        '<figcaption class="legend"><span><i class="key first"></i>accuracy of the images of '
        "about this confidence; on the dashed line it is what the network says</span>"
        "<span>bars: share of the images</span></figcaption></figure>"
    )


def _frame() -> str:
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + tick * (_RIGHT - _LEFT), _BOTTOM - tick * (_BOTTOM - _TOP)
        parts.append(f'<path class="axis" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_END + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_END}H{_RIGHT}"/>')
    parts.append(f'<path class="axis even" d="M{_LEFT} {_BOTTOM}L{_RIGHT} {_TOP}"/>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="322" text-anchor="middle">confidence</text>')
    return "".join(parts)
