"""Short runs of train.py on the digits, for tests that look at a whole run."""

from __future__ import annotations

import csv
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

import pytest

from src.runtime import files

ROOT = Path(__file__).resolve().parent.parent
STEPS_PER_EPOCH = 1437 // 64


def words(digits: Path, run: Path, *more: str) -> List[str]:
    """Arguments for two epochs of the quickstart recipe, with half the tokenizer and dropout on."""
    recipe = str(ROOT / "src" / "configs" / "cct_2_3x2_32_digits.yaml")
    layers = "{num_layers: 2, n_conv_layers: 1, attention_dropout: 0.1, dropout: 0.1}"
    paths = ["--data_url", str(digits), "--train_url", str(run)]
    return ["--config", recipe, "--model_args", layers, "--epochs", "2", *paths, *more]


def rows(run: Path) -> List[Dict[str, str]]:
    """Rows of the run's metrics.csv, without those that a save adds."""
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if not row.get("weights")]


def steps(run: Path) -> List[int]:
    """Steps that have a training row."""
    return [int(row["step"]) for row in rows(run) if row["loss"]]


def start(
    arguments: List[str], program: str = "train.py", before: Optional[Callable[[], None]] = None
) -> subprocess.Popen:
    """The program as a process of its own; `before` runs in it first."""
    command = [sys.executable, str(ROOT / program), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)


def without_override() -> None:
    """Root may write anywhere, unless it gives that up before the program starts."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def fill_disk(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """From now on the disk is full whenever `path` is written."""
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    draft.symlink_to("/dev/full")
    draft_of = files._draft_of
    monkeypatch.setattr(
        files, "_draft_of", lambda other: draft if other == path else draft_of(other)
    )


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Returns when the run has recorded `step`; fails the test when it ends before."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        # A resumed process rewrites the file by a rename, so a reader never sees half of it.
        if (run / "metrics.csv").exists() and max(steps(run), default=0) >= step:
            return
        time.sleep(0.02)
    pytest.fail(f"step {step} was not reached: {process.communicate()[1]}")


def failure(capsys: pytest.CaptureFixture[str], program: object, arguments: List[str]) -> str:
    """The only `error:` line on stderr of a program that ends with 1 or 2."""
    capsys.readouterr()
    assert program.main(arguments) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    assert not [line for line in lines if "Traceback" in line]
    return errors[0]
