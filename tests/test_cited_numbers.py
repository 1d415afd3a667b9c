"""A number that names a page as its source is on that page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest
from markdown_pages import PAGES, ROOT
from test_scaling_model import load

_LINK = re.compile(r"\[[^\]]*\]\((?!http)([^)#\s]*\.md)(?:#([\w-]+))?\)")
# With a unit a number is a measurement; alone it may be a version, a size or a count.
_UNIT = (
    r"(?:images/s|steps/s|ms|s|min(?:utes)?|h(?:ours)?|us|TB|GiB|MiB|KiB|GB|MB|kB|GMACs|%|times)"
    r"(?![\w/])"
)
_NUMBER = re.compile(
    rf"(?<![\w.,-])(\d[\d,]*(?:\.\d+)?)(?= ?{_UNIT}|(?: to | and |, )\d[\d.,]* ?{_UNIT})"
)
# Not the names of chips.
_LARGE = re.compile(r"(?<![\w.,-])(?!310|910)(\d{3}|\d{1,3}(?:,\d{3})+)(?![\d.,]*\d|x\d|-)")
_SENTENCES = re.compile(r"(?<=[.;:]) (?=[A-Z`\[(*])|(?<=[。；：])")
_SCALES = (1.0, 1024.0, 1 / 1024, 1000.0, 1e-3)  # of MiB and GiB, ms and s


class Citation(NamedTuple):
    """Numbers of a sentence or a row of a table, and the page that it links to."""

    said: str
    numbers: List[str]
    page: Path
    section: str


def citations(path: Path, text: str) -> Iterator[Citation]:
    """All of a page; where something was measured, large numbers without a unit count too."""
    for said in statements(text):
        plain = _LINK.sub("", re.sub(r"`[^`]*`", "", said))
        for page, section in _LINK.findall(said):
            is_measured = "measured" in said or page.endswith("results.md")
            numbers = _NUMBER.findall(plain) + (_LARGE.findall(plain) if is_measured else [])
            numbers = list(dict.fromkeys(numbers))
            yield Citation(said, numbers, (path.parent / page).resolve(), section)


def statements(text: str) -> List[str]:
    """Rows of tables, and sentences of what else there is, each on one line."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    blocks = [" ".join(b.split()) for b in re.split(r"\n\s*\n|\n(?=- |#|\d+\. )", prose)]
    return rows + [said for b in blocks for said in _SENTENCES.split(b)]


def missing(citation: Citation) -> List[str]:
    """The numbers that the cited page, or its section, has in no precision and in no unit."""
    text = citation.page.read_text(encoding="utf-8")
    if citation.section:
        text = section_of(text, citation.section)
    there = [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
    return [number for number in citation.numbers if not is_among(number, there)]


def section_of(text: str, anchor: str) -> str:
    """From the heading of an anchor to the next heading of its level, or to the end."""
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        heading = part.partition("\n")[0].lstrip("# ")
        if re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") == anchor:
            return part
    return text


def is_among(number: str, there: List[float]) -> bool:
    """Whether one of them rounds to the number, at the number's precision."""
    step = 10.0 ** -len(number.partition(".")[2])
    value = float(number.replace(",", ""))
    return any(abs(found * scale - value) <= 0.501 * step for found in there for scale in _SCALES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_cited_number_is_on_the_page_it_is_cited_from(page: Path) -> None:
    found = citations(page, page.read_text(encoding="utf-8"))
    wrong = {citation.said: missing(citation) for citation in found}
    assert {said: numbers for said, numbers in wrong.items() if numbers} == {}


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("| input | 305 images/s | measured: [page](data.md), packed: 474; x86 |", ["305", "474"]),
        ("It takes 16.4 to 99 GiB, see\n[results](results.md#data-pipeline).", ["16.4", "99"]),
        ("`362` images/s; 362 images/s per core ([r](results.md#data-pipeline)).", []),
    ],
)
def test_a_number_without_its_source_is_found(said: str, numbers: List[str]) -> None:
    (found,) = [c for c in citations(ROOT / "docs" / "new.md", said) if c.numbers]
    assert missing(found) == numbers


def test_the_tables_of_the_scaling_page_are_the_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for words in ([], ["--devices", "64", "1024", "--global_batch", "8192"]):
        assert load().main(words) == 0
        assert capsys.readouterr().out.strip() in page
