"""Charts of lines as SVG within a page: sharp at every size, in the colours of the page."""

from __future__ import annotations

import math
from typing import List, NamedTuple, Sequence, Tuple

from .markup import slug, text

Points = List[Tuple[float, float]]
# In units of the drawing, which is shown about as wide as it is on telephones and in columns.
_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 350, 14, 202
# More points than this cannot be told apart.
_MOST_POINTS = 400
_COLOURS = ("first", "second", "third")


class Series(NamedTuple):
    """A line of a chart; one with dots has few points, and each tells its value.

    Attributes:
        points: finite, in order of x.
    """

    label: str
    points: Points
    has_dots: bool = False


class Mark(NamedTuple):
    """Something that happened at `x`."""

    x: float
    label: str


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "epoch",
    marks: Sequence[Mark] = (),
    note: str = "",
) -> str:
    """A <figure>; without any point it says so.

    Args:
        note: said below the chart.
    """
    drawn = [line for line in series if line.points]
    heading = f"<h3>{text(title)}</h3>"
    if not drawn:
        return f'<figure>{heading}<p class="soft">nothing was recorded</p></figure>'
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_axis, y_axis = _Axis(min(xs), max(xs), _LEFT, _RIGHT), _Axis(min(ys), max(ys), _BOTTOM, _TOP)
    marks = [mark for mark in marks if x_axis.low <= mark.x <= x_axis.high]
    parts = [_grid(x_axis, y_axis, x_label)]
    parts += [_mark(x_axis.at(mark.x), number) for number, mark in enumerate(marks, 1)]
    for line, colour in zip(drawn, _COLOURS):
        parts.append(_line(line, colour, x_axis, y_axis, x_label))
    name = slug(title)
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{text(title)}</title>'
        f'<desc id="{name}-d">{text(_described(drawn, x_label))}</desc>{"".join(parts)}</svg>'
    )
    return f"<figure>{heading}{svg}{_legend(drawn, marks, note)}</figure>"


class _Axis:
    """Values -> places of the drawing.

    Attributes:
        low, high: the ends, multiples of the step.
        ticks: the values that are written.
    """

    def __init__(self, low: float, high: float, first: int, last: int) -> None:
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, or none apart
            margin = abs(low) / 10 or 1.0
            low, high = low - margin, high + margin
        self._step = nice_step((high - low) / 4)
        self.low = math.floor(low / self._step + 1e-9) * self._step
        self.high = math.ceil(high / self._step - 1e-9) * self._step
        self._first, self._last = first, last
        count = round((self.high - self.low) / self._step)
        self.ticks = [self.low + index * self._step for index in range(count + 1)]

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._first + share * (self._last - self._first)

    def shown(self, value: float) -> str:
        if abs(value) < self._step / 2:
            return "0"
        digits = max(0, -math.floor(math.log10(self._step) + 1e-9))
        return f"{value:.3g}" if digits > 4 or abs(value) >= 1e5 else f"{value:.{digits}f}"


def nice_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least this, > 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999999)


def thinned(points: Points, most: int = _MOST_POINTS) -> Points:
    """At most about `most` of them, with the highest and the lowest of each stretch."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    found = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        found.add(min(stretch, key=lambda index: points[index][1]))
        found.add(max(stretch, key=lambda index: points[index][1]))
    return [points[index] for index in sorted(found)]


def _grid(x_axis: _Axis, y_axis: _Axis, x_label: str) -> str:
    parts = []
    for value in y_axis.ticks:
        y = y_axis.at(value)
        parts.append(f'<path class="axis" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_axis.shown(value)}</text>'
        )
    parts += [
        f'<text x="{x_axis.at(value):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">'
        f"{x_axis.shown(value)}</text>"
        for value in x_axis.ticks
    ]
    middle = (_LEFT + _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{text(x_label)}</text>'
    )
    return "".join(parts)


def _line(line: Series, colour: str, x_axis: _Axis, y_axis: _Axis, x_label: str) -> str:
    shown = thinned(line.points)
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in shown]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn = f'<path class="{colour}" d="M{path}"/>'
    # A single point has no line; dots of many would be a band.
    if len(shown) > 1 and not (line.has_dots and len(shown) <= 60):
        return drawn
    dots = [
        f'<circle class="{colour}" cx="{px:.1f}" cy="{py:.1f}" r="3">'
        f"<title>{text(f'{line.label}, {x_label} {x:g}: {y:.5g}')}</title></circle>"
        for (px, py), (x, y) in zip(places, shown)
    ]
    return drawn + "".join(dots)


def _mark(x: float, number: int) -> str:
    return (
        f'<path class="mark" d="M{x:.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text class="marked" x="{x:.1f}" y="{_TOP - 3}" text-anchor="middle">{number}</text>'
    )


def _legend(drawn: Sequence[Series], marks: Sequence[Mark], note: str) -> str:
    parts = [
        f'<span><i class="key {colour}"></i>{text(line.label)}</span>'
        for line, colour in zip(drawn, _COLOURS)
    ]
    parts += [
        f'<span><i class="key mark"></i>{number}: {text(mark.label)}</span>'
        for number, mark in enumerate(marks, 1)
    ]
    parts += [f"<span>{text(note)}</span>"] if note else []
    return f'<figcaption class="legend">{"".join(parts)}</figcaption>'


def _described(drawn: Sequence[Series], x_label: str) -> str:
    """The lines in words."""
    said = []
    for line in drawn:
        (x0, y0), (x1, y1) = line.points[0], line.points[-1]
        low, high = min(y for _, y in line.points), max(y for _, y in line.points)
        said.append(
            f"{line.label}: from {y0:.4g} at {x_label} {x0:.4g} to {y1:.4g} at {x_label} {x1:.4g}, "
            f"lowest {low:.4g}, highest {high:.4g}."
        )
    return " ".join(said)
