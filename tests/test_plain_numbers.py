"""Numbers in text of others, beside the grammar of JSON (RFC 8259) as Python's parser reads it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.errors import UserError
from src.runtime.plain_numbers import decimal_number, whole_number
from src.runtime.ranks import read_rank_environment

ROOT = Path(__file__).resolve().parent.parent
# Each of them is 1, 10 or 8 to `int`.
TAKEN_BY_INT = ["\uff11", "1_0", " 8", "8\n", "+8", "08", "\u0661"]


def as_json(text: str) -> Any:
    """The number that the whole text is in JSON; None: none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_number = type(found) in (int, float) and text == text.strip(" \t\r\n")
    return found if is_number and abs(found) < float("inf") else None


def result_of(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


@given(st.one_of(st.integers().map(str), st.floats().map(repr), st.from_regex(r"[-+0-9._eE]{1,8}")))
@example("1e999")
@example("-0")
@example("9" * 5000)
@example("NaN")
def test_numbers_are_those_of_json(text: str) -> None:
    due = as_json(text) if len(text) < 400 else None
    assert result_of(decimal_number, text) == due
    is_in_range = type(due) is int and -(2**31) <= due < 2**31
    found = result_of(lambda text: whole_number(text, -(2**31)), text)
    assert found == (due if is_in_range else None)


@pytest.mark.parametrize("text", [*TAKEN_BY_INT, "", "nan", "9" * 5000])
def test_the_launchers_variables_are_numbers(text: str) -> None:
    with pytest.raises(UserError, match=r"RANK_SIZE .*: the launcher must set it to a number"):
        read_rank_environment({"RANK_SIZE": text})


def loose(path: Path) -> Iterator[str]:
    """Where a module asks Python's own, wider idea of a number."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("isdigit", "isdecimal", "isnumeric"):
            yield f"{path.name}:{node.lineno}: {node.attr}"
        if isinstance(node, ast.keyword) and ast.unparse(node) in ("type=int", "type=float"):
            yield f"{path.name}:{node.value.lineno}: {ast.unparse(node)}"


def test_no_other_idea_of_a_number() -> None:
    folders = [ROOT / name for name in ("src", "scripts", "benchmarks")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    assert [where for path in [*paths, *ROOT.glob("*.py")] for where in loose(path)] == []
