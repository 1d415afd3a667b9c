"""The longest function, the longest file and the median function: python tests/code_size.py

Counted are src/, scripts/ and the programs of the root. A function has the lines from its `def`
(decorators left out) to its end, docstring and nested functions included.
"""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median
from typing import Iterator, List, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Size(NamedTuple):
    """Lines of a function or a file."""

    lines: int
    place: str


def product_files() -> List[Path]:
    """Python files of the product, sorted."""
    folders = [path for name in ("src", "scripts") for path in (ROOT / name).rglob("*.py")]
    return sorted([*folders, *ROOT.glob("*.py")])


def file_sizes() -> List[Size]:
    return [
        Size(len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(ROOT)))
        for path in product_files()
    ]


def function_sizes() -> List[Size]:
    return [size for path in product_files() for size in _functions_of(path)]


def _functions_of(path: Path) -> Iterator[Size]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield Size(node.end_lineno - node.lineno + 1, place)


if __name__ == "__main__":
    functions = function_sizes()
    for title, sizes in (("function", functions), ("file", file_sizes())):
        for size in sorted(sizes, reverse=True)[:5]:
            print(f"{title:8} {size.lines:4} lines  {size.place}")
    print(
        f"median   {median(size.lines for size in functions):g} lines  {len(functions)} functions"
    )
