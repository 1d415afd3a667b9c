"""Parts of a page: every text in it is escaped here, and it needs no scripts and no other file."""

from __future__ import annotations

import base64
import html
import re
from itertools import starmap
from typing import List, NamedTuple, Sequence

from ..runtime.text import printable
from .style import STYLE

# `https://USER:PASSWORD@HOST/PATH?SIGNATURE`: what lets anybody in is not sent round.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@|\?[^\s'\"]*(?=['\"]?$)")
_NUMBER = re.compile(r"[0-9.,+-]+(e-?[0-9]+)?( %)?|-")

_NUMBERS = ' class="n"'


class Section(NamedTuple):
    """A heading and what is below it, as HTML."""

    title: str
    body: str


class Figure(NamedTuple):
    """A number at the head of the page: `top-1`, `91.2 %`, `epoch 7 of 10`."""

    name: str
    value: str
    note: str = ""


def text(said: object) -> str:
    """A text as HTML, also within an attribute."""
    return html.escape(printable(str(said)))


def without_credentials(said: str) -> str:
    """A value of a recipe as others may see it."""
    return _CREDENTIALS.sub("", said) if "://" in said else said


def slug(title: str) -> str:
    """`most-confident-mistakes`: a name within the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def page(
    title: str, facts: Sequence[str], figures: Sequence[Figure], sections: Sequence[Section]
) -> str:
    """A whole page that opens offline.

    Args:
        facts: what it is about, below its title.
    """
    links = "".join(f'<li><a href="#{slug(s.title)}">{text(s.title)}</a></li>' for s in sections)
    body = "\n".join(
        f'<section id="{slug(s.title)}"><h2>{text(s.title)}</h2>\n{s.body}\n</section>'
        for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{STYLE}</style>'
        '</head>\n<body><a class="skip" href="#main">Skip to the content</a>\n'
        f'<header><h1>{text(title)}</h1><p class="facts">{text(" · ".join(facts))}</p>'
        f'{_figures(figures)}</header>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        f'<main id="main">\n{body}\n</main>\n</body></html>\n'
    )


def _figures(figures: Sequence[Figure]) -> str:
    cells = "".join(
        f"<div><dt>{text(f.name)}</dt><dd>{text(f.value)}"
        f"{f'<small>{text(f.note)}</small>' if f.note else ''}</dd></div>"
        for f in figures
    )
    return f'<dl class="tiles">{cells}</dl>'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    label: str,
    shares: int = -1,
    fits: bool = False,
    is_text: bool = False,
) -> str:
    """Rows of texts in a box of their own, which scrolls by finger and by key.

    Args:
        head: of the columns; none: the first cell of each row is its heading.
        label: what the box is called to who does not see it.
        shares: the column whose percentages are drawn too.
        fits: only as wide as it needs.
        is_text: numbers in it are words, as in values of a recipe.
    """
    width = len(rows[0]) if rows else 0
    is_table = bool(head) and not is_text
    numbers = [is_table and all(_NUMBER.fullmatch(row[i]) for row in rows) for i in range(width)]

    def cell(index: int, said: str) -> str:
        if not head and index == 0:
            return f'<th scope="row">{text(said)}</th>'
        kind = _NUMBERS if numbers[index] else ""
        return f"<td{kind}>{text(said)}{_share(said) if index == shares else ''}</td>"

    heads = "".join(
        f'<th scope="col"{kind}>{text(name)}</th>'
        for name, kind in zip(head, (_NUMBERS if is_number else "" for is_number in numbers))
    )
    body = "\n".join(f"<tr>{''.join(starmap(cell, enumerate(row)))}</tr>" for row in rows)
    return (
        f'<div class="scroll{" fit" if fits else ""}" tabindex="0" role="region" '
        f'aria-label="{text(label)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _share(percent: str) -> str:
    width = percent if re.fullmatch("[0-9.]+", percent) else "0"
    return f'<span class="share"><i style="width:{width}%"></i></span>'


def folded(summary: str, body: str) -> str:
    """What opens when its heading is chosen, by key too."""
    return f"<details><summary>{text(summary)}</summary>\n{body}</details>"


def lines(items: Sequence[str]) -> str:
    return f'<ul class="lines">{"".join(f"<li>{text(item)}</li>" for item in items)}</ul>'


def commands(*words: str) -> str:
    """Commands to copy, one a line."""
    shown: List[str] = [text(word) for word in words]
    return '<pre tabindex="0"><code>' + "\n".join(shown) + "</code></pre>"


def image_source(content: bytes) -> str:
    """A PNG or JPEG as the source of an <img>."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
