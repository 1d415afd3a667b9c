"""Functions and files stay short enough to be read at once."""

from __future__ import annotations

from statistics import median
from typing import List

from code_size import Size, file_sizes, function_sizes


def _longer(sizes: List[Size], limit: int) -> List[str]:
    return [f"{size.place}: {size.lines} lines" for size in sizes if size.lines > limit]


def test_no_function_has_more_than_50_lines() -> None:
    assert _longer(function_sizes(), 50) == []


def test_no_file_has_more_than_420_lines() -> None:
    assert _longer(file_sizes(), 420) == []


def test_the_median_function_has_at_most_8_lines() -> None:
    sizes = [size.lines for size in function_sizes()]
    assert len(sizes) > 1000  # all were found
    assert median(sizes) <= 8
