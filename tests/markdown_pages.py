"""Parts of Markdown pages: headings and their anchors, fenced blocks, tables, links."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"])

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)[^)]*\)")
_COMMENT = {"cpp": r"(?:^|\s)//.*", "text": r"(?!)"}


class Heading(NamedTuple):
    level: int
    title: str


class Link(NamedTuple):
    """`path` is the page itself for `#anchor`; `anchor` is '' for a whole page."""

    path: Path
    anchor: str


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_fences(text: str) -> str:
    """The text with as many lines, where those of fenced blocks are empty."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def fences(text: str) -> List[Tuple[str, List[str]]]:
    """Language and lines of each block. Comments, empty lines and the width of gaps do not count,
    but indentation does; a command that goes on in the next line is one line."""
    found = []
    for language, body in _FENCE.findall(text):
        comment = _COMMENT.get(language, r"(?:^|\s)#.*")
        joined = textwrap.dedent(body).replace("\\\n", " ")
        lines = [re.sub(comment, "", line).rstrip() for line in joined.splitlines()]
        found.append((language, [re.sub(r"(?<=\S) +", " ", line) for line in lines if line]))
    return found


def headings(text: str) -> List[Heading]:
    return [Heading(len(mark), title) for mark, title in _HEADING.findall(without_fences(text))]


def sections(text: str) -> List[str]:
    """What stands before the first heading, and after each of them, without fenced blocks."""
    return re.split(r"^#+ .*$", without_fences(text), flags=re.MULTILINE)


def anchors(text: str) -> List[str]:
    """Of each heading in order, as GitHub makes them: letters of any script, digits, `_`, `-`;
    a space is a `-`; the second of its kind ends with `-1`."""
    found: List[str] = []
    plain = [plain_text(title).lower() for _, title in headings(text)]
    slugs = [re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in plain]
    for index, slug in enumerate(slugs):
        before = slugs[:index].count(slug)
        found.append(f"{slug}-{before}" if before else slug)
    return found


def plain_text(text: str) -> str:
    """Links as their words."""
    return _LINK.sub(lambda found: found[1], text)


def targets(text: str) -> List[str]:
    """What links, pictures and HTML attributes name, in order."""
    found = [target for _, target in _LINK.findall(text)]
    for label, _ in _LINK.findall(text):  # a picture that is a link
        found += [target for _, target in _LINK.findall(label)]
    return found + re.findall(r'(?:src|href|srcset)="([^"\s]+)', text)


def links(path: Path, text: str) -> Iterator[Link]:
    """Those of a page, or of a part of it, that lead to files."""
    for target in targets(without_fences(text)):
        if not re.match(r"https?:|mailto:", target):
            name, _, anchor = unquote(target).partition("#")
            yield Link((path.parent / name).resolve() if name else path, anchor)


def is_broken(link: Link) -> bool:
    if link.anchor and link.path.suffix == ".md" and link.path.is_file():
        text = read(link.path)
        return link.anchor not in {*anchors(text), *re.findall(r'<a (?:id|name)="([^"]+)"', text)}
    return not link.path.exists()


def tables(text: str) -> List[List[List[str]]]:
    """Cells of the rows of each table, without the line below the header."""
    found = []
    for block in re.findall(r"(?:^ *\|.*\n?)+", without_fences(text), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()]
        found.append([[cell.strip() for cell in row] for row in rows[:1] + rows[2:]])
    return found
