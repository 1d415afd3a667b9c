"""The programs where there is no home folder, no name, no UTF-8, and nothing to write to."""

from __future__ import annotations

from typing import List

import pytest
from environments import ENVIRONMENTS, row


@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("unknown uid", ["train"]),
        ("ASCII", ["train", "predict"]),
        *(pytest.param(name, [], marks=pytest.mark.slow) for name in ENVIRONMENTS),
    ],
)
def test_programs_work(name: str, programs: List[str]) -> None:
    cells = row(name, programs, lambda program, cell: None)
    if set(cells.values()) == {"-"}:
        pytest.skip("cannot be made here: needs root, or mounts")
    assert {program: cell for program, cell in cells.items() if cell != "ok"} == {}
