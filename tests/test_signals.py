"""Signals to whole jobs: saved, said in one line, and the exit code of the signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Tuple

import pytest
from signals_matrix import ALL, MOMENTS, ROOT, Combination, try_once, write_job

from src.runtime import stop_signal
from src.runtime.stop_signal import MOMENT_S, StopSignal

# Where the faults were: workers that a group's signal reaches, and what a launcher hands on.
QUICK = Combination("processes", "launcher", "both", signal.SIGINT)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_job(folder)
    return folder


def test_a_job_that_is_signalled_saves(job: Path, tmp_path: Path) -> None:
    assert try_once(QUICK, job, tmp_path / "run", seed=1) is None


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("combination", ALL, ids=str)
def test_every_job_and_signal(
    combination: Combination, moment: str, job: Path, tmp_path: Path
) -> None:
    assert try_once(combination, job, tmp_path / "run", seed=2, moment=moment) is None


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_repeats_within_a_moment_count_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost terminal and Slurm's --signal=USR1, too."""
    monkeypatch.setattr(stop_signal._Arrived, "at", None)
    monkeypatch.setattr(stop_signal._Arrived, "number", None)
    monkeypatch.setattr(stop_signal, "leave_terminal", lambda: None)
    heard: List[int] = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with StopSignal() as stop:
            for _ in range(3):
                os.kill(os.getpid(), number)
            assert (stop.received, heard) == (number, [])
            stop_signal._Arrived.at -= MOMENT_S
            os.kill(os.getpid(), number)
            assert heard == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shell_script_hands_on_what_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    """As quickstart.sh runs its programs: the signal goes to the shell alone."""
    program = BUSY.format(root=str(ROOT))
    script = f"set -euo pipefail; source {ROOT}/scripts/common.sh; "
    script += 'forward "$0" -c "$1" Python; echo not reached'
    process = subprocess.Popen(
        ["bash", "-c", script, sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (128 + number, "")
    assert errors == f"error: interrupted by signal {number:d}\n"


# A program that has nothing to save, and is busy in Python, in C, or deaf.
BUSY = """
import ctypes, signal, sys, time
sys.path.insert(0, {root!r})
from src.runtime.entry import CommandParser, run_command
from src.runtime.stop_signal import StopSignal
class Slow:
    def __del__(self):
        time.sleep(5)
def work(arguments):
    slow = Slow() if arguments.how == "ignored" else None
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    try:
        print("busy", flush=True)
        if arguments.how == "ignored":
            slow = None  # what its __del__ raises is dropped
        if arguments.how in ("deaf", "saving"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if arguments.how == "saving":
            StopSignal().__enter__()
        if arguments.how in ("C", "deaf", "saving"):
            lock(mutex)  # waits for ever, whatever signals come
        time.sleep(60)
    except BaseException:
        if arguments.how == "another error":
            raise RuntimeError("a compiler that was interrupted") from None
        raise
parser = CommandParser("busy")
parser.add_argument("how")
sys.exit(run_command(work, parser, None))
"""


@pytest.mark.parametrize("how", ["Python", "another error", "ignored"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_what_has_nothing_to_save_ends_with_one_line(number: signal.Signals, how: str) -> None:
    code, said = _end(how, [number])
    assert (code, said) == (128 + number, f"error: interrupted by signal {number:d}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["C", "deaf"])
def test_what_does_not_come_to_python_ends_all_the_same(how: str, number: signal.Signals) -> None:
    """By one signal; that a main thread waits for a disk, and is deaf, makes no difference."""
    start = time.monotonic()
    code, said = _end(how, [number, number], apart=60.0)
    assert (code, said) == (128 + number, f"error: ended at once by signal {number:d}\n")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_save_that_hangs_ends_with_the_second_signal(number: signal.Signals) -> None:
    start = time.monotonic()
    code, said = _end("saving", [number, number], apart=MOMENT_S + 0.5)
    assert (code, said) == (128 + number, f"error: ended at once by signal {number:d}\n")
    assert time.monotonic() - start > MOMENT_S


def test_an_interrupted_import_of_mindspore_aborts_nothing() -> None:
    """Its handler at Python's end would: exit code 134 and a core dump."""
    program = BUSY.format(root=str(ROOT)).replace("ctypes.CDLL(None)", "interrupted()", 1)
    program = f"{HALF_A_MODULE}{program}"
    process = subprocess.run([sys.executable, "-c", program, "Python"], capture_output=True)
    assert process.stderr == b"error: interrupted by signal 15\n"
    assert process.returncode == 143


# What aborts when Python ends, registered by a module whose import is interrupted.
HALF_A_MODULE = """
import atexit, os, signal
def interrupted():
    atexit.register(os.abort)
    os.kill(os.getpid(), signal.SIGTERM)
"""


def _end(how: str, numbers: List[signal.Signals], *, apart: float = 0.0) -> Tuple[int, str]:
    program = BUSY.format(root=str(ROOT))
    process = subprocess.Popen(
        [sys.executable, "-c", program, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    time.sleep(0.2)
    for number in numbers:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(apart)
    said = process.communicate(timeout=30)[1]
    return process.returncode, said
