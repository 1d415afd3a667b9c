"""Every reader refuses what `hostile_files.py` gives it; the others than these are slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "only",
    [
        pytest.param(["--only", "rank table", "recipe", "base of a recipe"], id="text"),
        pytest.param([], id="all", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_all_are_refused(only: list) -> None:
    command = [sys.executable, str(ROOT / "tests" / "hostile_files.py"), *only]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| rank table | " in done.stdout
