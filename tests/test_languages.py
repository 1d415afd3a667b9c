"""A Chinese page says what its English page says."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, List, Set, Tuple

import pytest
from markdown_pages import (
    PAGES,
    ROOT,
    Link,
    anchors,
    fences,
    headings,
    is_broken,
    links,
    plain_text,
    read,
    sections,
    tables,
    targets,
    without_fences,
)

DOCS = ROOT / "docs"
CHINESE = [
    *(path for path in PAGES if path.name.endswith("_CN.md")),
    *sorted((DOCS / "zh").rglob("*.md")),
]
# The two READMEs are compared in test_documentation.py: their headings have other levels.
COMPARED = [path for path in CHINESE if path.name != "README_CN.md"]

PROMISED = (
    *("data", "distributed", "inference", "object_storage", "troubleshooting", "migrating"),
    *("checkpoints", "commands", "evaluation", "recipes", "tutorial", "weights"),
    *("configuration", "models/cct", "models/convmixer", "models/convnext", "models/deit"),
    "models/twins",
)

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_NUMBERS = {**{word: str(n) for n, word in enumerate(_WORDS)}, "twenty": "20", "hundred": "100"}
# Letters, and punctuation that is as wide as a letter.
_WIDE = r"[\u2014\u2018-\u201d\u2026\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"


Faults = Callable[[str, str], Iterator[str]]


def english_of(path: Path) -> Path:
    if path.name.endswith("_CN.md"):
        return path.with_name(path.name.replace("_CN.md", ".md"))
    return DOCS / path.relative_to(DOCS / "zh")


_SIBLINGS = {english_of(path): path for path in CHINESE}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code(text: str) -> List[str]:
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]


def numbers(text: str) -> List[str]:
    """Outside code and addresses; thousands have commas in both languages."""
    text = re.sub(r"`[^`]+`", "", plain_text(text))
    return re.findall(r"\d+(?:[.,]\d+)*", text)


def missing_and_surplus(kind: str, english: List[str], chinese: List[str]) -> Iterator[str]:
    missing = Counter(english) - Counter(chinese)
    surplus = Counter(chinese) - Counter(english)
    if missing:
        yield f"{kind} only in English: {sorted(missing.elements())}"
    if surplus:
        yield f"{kind} only in Chinese: {sorted(surplus.elements())}"


def facts(english: str, chinese: str) -> Iterator[str]:
    """Numbers and `code` of one text that the other lacks. A number that is a word in English may
    have digits in Chinese."""
    yield from missing_and_surplus("code", code(english), code(chinese))
    words = [_NUMBERS[word] for word in re.findall("[a-z]+", english.lower()) if word in _NUMBERS]
    digits = Counter(numbers(english))
    as_words = (Counter(numbers(chinese)) - digits) & Counter(words)
    yield from missing_and_surplus(
        "numbers", numbers(english), sorted((Counter(numbers(chinese)) - as_words).elements())
    )


def names(title: str) -> Set[str]:
    """Words of Latin letters, without the plural's s."""
    return {word.lower().rstrip("s") for word in re.findall(r"[A-Za-z][A-Za-z-]*", title)}


def proper_names(title: str) -> Set[str]:
    """Words with a capital that no beginning of a sentence explains."""
    return names(" ".join(re.findall(r"(?<=.)\b[A-Z][\w-]*|\b\w[\w-]*[A-Z][\w-]*", title)))


def heading_faults(english: str, chinese: str) -> Iterator[str]:
    there, here = headings(english), headings(chinese)
    if [heading.level for heading in there] != [heading.level for heading in here]:
        yield f"headings: {[(h.level, h.title) for h in there]} != {[tuple(h) for h in here]}"
        return
    for original, heading in zip(there, here):
        title = f"heading {heading.title!r} of {original.title!r}"
        for fault in facts(original.title, heading.title):
            yield f"{title}: {fault}"
        if not proper_names(original.title) <= names(heading.title) <= names(original.title):
            yield f"{title}: other names"
        if not re.search(_WIDE, heading.title) and names(heading.title) != names(original.title):
            yield f"{title}: neither Chinese nor equal"


def fence_faults(english: str, chinese: str) -> Iterator[str]:
    there, here = fences(english), fences(chinese)
    if len(there) != len(here):
        yield f"{len(here)} fenced blocks, in English {len(there)}"
    for original, block in zip(there, here):
        if original != block:
            yield f"block {block} != {original}"


def table_faults(english: str, chinese: str) -> Iterator[str]:
    there, here = tables(english), tables(chinese)
    if len(there) != len(here):
        yield f"{len(here)} tables, in English {len(there)}"
    for original, table in zip(there, here):
        if [len(row) for row in original] != [len(row) for row in table]:
            yield f"table {table[0]}: other rows or columns than {original[0]}"
            continue
        for cells, row in zip(original, table):
            for cell, translated in zip(cells, row):
                for fault in facts(cell, translated):
                    yield f"row {row}: {fault}"


def section_faults(english: str, chinese: str) -> Iterator[str]:
    """What is said once may be said twice, in any order."""
    for number, (there, here) in enumerate(zip(sections(english), sections(chinese))):
        title = headings(chinese)[number - 1].title if number else "top"
        for kind, of in (("code", code), ("numbers", numbers)):
            original, translated = sorted(set(of(there))), sorted(set(of(here)))
            if kind == "numbers":
                words = {_NUMBERS.get(word) for word in re.findall("[a-z]+", there.lower())}
                translated = [n for n in translated if n in original or n not in words]
            for fault in missing_and_surplus(kind, original, translated):
                yield f"section {title!r}: {fault}"


def address(link: Link) -> Tuple[str, int]:
    """The English page, and the place of the heading: equal for links that mean the same."""
    path = english_of(link.path) if link.path in CHINESE else link.path
    known = anchors(read(link.path)) if link.anchor and link.path.suffix == ".md" else []
    return name_of(path), known.index(link.anchor) if link.anchor in known else -1


def links_of_sections(path: Path, text: str) -> Iterator[List[str]]:
    for part in sections(text):
        pages = [f"{page}, heading {n + 1}" for page, n in map(address, links(path, part))]
        web = [target for target in targets(part) if target.startswith("http")]
        yield sorted({*pages, *(target.replace("/zh-CN/", "/en/") for target in web)})


def other_links(path: Path, english: str, chinese: str) -> Iterator[str]:
    there = links_of_sections(english_of(path), below_top(english))
    here = links_of_sections(path, below_top(chinese))
    for number, (original, translated) in enumerate(zip(there, here)):
        title = headings(chinese)[number - 1].title if number else "top"
        for fault in missing_and_surplus("links", original, translated):
            yield f"section {title!r}: {fault}"


def below_top(text: str) -> str:
    """Without the line that leads to the other language."""
    return re.sub(r"\A(# .*\n\n)\[(?:English|中文)\]\(.*\)\n", r"\1\n", text)


def of_its_own_language(path: Path, text: str) -> Iterator[str]:
    """Links that lead to a page although it is there in the language of the one that links."""
    is_chinese = path in CHINESE
    for link in links(path, below_top(text)):
        other = _SIBLINGS.get(link.path)
        if is_chinese and other:
            yield f"{name_of(link.path)} is there in Chinese: {name_of(other)}"
        if not is_chinese and link.path in CHINESE:
            yield f"{name_of(link.path)} is Chinese"


def broken_lines(text: str) -> Iterator[str]:
    """A line break between two wide characters is shown as a space."""
    plain = re.sub(r"\*\*|~~", "", plain_text(without_fences(text)))
    lines = [line.strip(" >") for line in plain.splitlines()]
    for line, following in zip(lines, lines[1:]):
        if re.search(rf"^[^#].*{_WIDE}$", line) and re.match(_WIDE, following):
            yield f"{line[-20:]} / {following[:20]}"


def ids(path: Path) -> str:
    return name_of(path)


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_page_is_there_in_chinese(name: str) -> None:
    assert (DOCS / "zh" / f"{name}.md").is_file()


@pytest.mark.parametrize("path", CHINESE, ids=ids)
def test_both_pages_lead_to_each_other_at_the_top(path: Path) -> None:
    english = english_of(path)
    assert english.is_file(), f"{name_of(path)} has no English page"
    for page, other, language in ((path, english, "English"), (english, path, "中文")):
        third = read(page).splitlines()[2]
        assert third == f"[{language}]({Path(os.path.relpath(other, page.parent)).as_posix()})"


@pytest.mark.parametrize("path", COMPARED, ids=ids)
@pytest.mark.parametrize("faults", [heading_faults, fence_faults, table_faults, section_faults])
def test_both_pages_say_the_same(path: Path, faults: Faults) -> None:
    assert list(faults(read(english_of(path)), read(path))) == []


@pytest.mark.parametrize("path", COMPARED, ids=ids)
def test_both_pages_link_to_the_same(path: Path) -> None:
    assert list(other_links(path, read(english_of(path)), read(path))) == []


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_stay_within_the_language(path: Path) -> None:
    assert list(of_its_own_language(path, read(path))) == []


@pytest.mark.parametrize("path", CHINESE, ids=ids)
def test_no_line_break_becomes_a_space_between_chinese_characters(path: Path) -> None:
    assert list(broken_lines(read(path))) == []


_ENGLISH = """# Data of MNIST

[中文](zh/new.md)

It takes two kinds or 30, by `set` and [those](../tests/README.md#kernels).

## Kinds

```bash
python train.py --set X   # an example
ls
```

| key | value |
|---|---|
| `set` | 4 or 5 |
| `lr` | 6 |
"""
_CHINESE = """# MNIST 数据

[English](../new.md)

共 2 种或 30 种，由 `set` 和[这里](../../tests/README.md#kernels)决定。

## 种类

```bash
python train.py --set X   # 示例
ls
```

| 键 | 值 |
|---|---|
| `set` | 5 或 4 |
| `lr` | 6 |
"""


def all_faults(english: str, chinese: str) -> List[str]:
    path = DOCS / "zh" / "new.md"
    kinds = (heading_faults, fence_faults, table_faults, section_faults)
    faults = [fault for kind in kinds for fault in kind(english, chinese)]
    return [*faults, *other_links(path, english, chinese), *broken_lines(chinese)]


def test_pages_that_say_the_same_have_no_faults() -> None:
    assert all_faults(_ENGLISH, _CHINESE) == []


@pytest.mark.parametrize(
    ("here", "otherwise"),
    [
        ("## 种类", "### 种类"),
        ("## 种类", "## 种类\n\n## 其他"),
        ("## 种类", "## ImageNet 的种类"),
        ("# MNIST 数据", "# 数据"),
        ("## 种类", "## Sorts"),
        ("# MNIST 数据", "# MNIST"),
        ("--set X", "--set Y"),
        ("```bash", "```python"),
        ("python train", " python train"),
        ("| `lr` | 6 |\n", ""),
        ("| `lr` | 6 |", "| `lr` | 6 | |"),
        ("| `lr` | 6 |", "| `lr` | 7 |"),
        ("| `lr` | 6 |", "| `wd` | 6 |"),
        ("5 或 4", "5 或 5"),
        ("5 或 4 |\n| `lr` | 6 |", "6 |\n| `lr` | 5 或 4 |"),
        ("30", "31"),
        ("2 种", "3 种"),
        ("2 种或 30", "2"),
        ("由 `set`", "由 `base`"),
        ("#kernels", "#records-and-programs"),
        ("tests/README.md#kernels", "README_CN.md"),
        ("，由", "，\n由"),
    ],
)
def test_a_page_that_says_something_else_is_found(here: str, otherwise: str) -> None:
    assert here in _CHINESE
    assert all_faults(_ENGLISH, _CHINESE.replace(here, otherwise))


@pytest.mark.parametrize("target", ["nosuch.md", "data.md#nosuch", "#nosuch", "a.svg"])
def test_a_link_to_nothing_is_found(target: str) -> None:
    page = DOCS / "distributed.md"
    (link,) = links(page, f"[there]({target})")
    assert is_broken(link)


def test_a_link_to_the_other_language_is_found() -> None:
    readmes = (ROOT / "README_CN.md", ROOT / "README.md")
    for page, other, language in ((*readmes, "English"), (*readmes[::-1], "中文")):
        top = f"# Title\n\n[{language}]({other.name})\n"
        assert list(of_its_own_language(page, top)) == []
        assert len(list(of_its_own_language(page, f"{top}\n[There]({other.name}#x)\n"))) == 1


def test_anchors_are_those_of_github() -> None:
    text = "# 数据（`set`、URL）：MNIST\n## How to add ...\n## A, b_c\n```\n# no\n```\n"
    text += "# [A, b_c](x.md)\n"
    assert anchors(text) == ["数据seturlmnist", "how-to-add-", "a-b_c", "a-b_c-1"]
