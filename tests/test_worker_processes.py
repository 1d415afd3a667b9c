"""Worker processes that die, have no room, or lose their parent; what they make stays the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, List

import numpy as np
import pytest
from digits_run import start, wait_for_step
from signals_matrix import ROOT, members, recorded, write_job

import train as train_program
from src.data import worker_processes, workers
from src.data.rows import Rows, Shape
from src.data.sampler import Key
from src.data.workers import batches_of
from src.errors import TrainingFailed

SHAPE = Shape(batch_size=16, image_size=8, box_columns=0)
BATCHES = 12


def fill(key: Key, row: int, image: np.ndarray, label: np.ndarray, boxes: np.ndarray) -> None:
    """Writes the key; takes its time, so that a worker is found at work."""
    image[:] = key.sample % 251
    label[:] = key.sample
    time.sleep(0.002)


def fail(key: Key, row: int, image: np.ndarray, label: np.ndarray, boxes: np.ndarray) -> None:
    raise Unpicklable(key.sample, "no")


class Unpicklable(Exception):
    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"image {index}: {why}")


def keys() -> Iterator[Key]:
    return (Key(0, index, 0) for index in range(BATCHES * SHAPE.batch_size))


def stream(in_processes: bool = True) -> Iterator[Rows]:
    return batches_of(fill, keys(), SHAPE, num_workers=2, in_processes=in_processes, file_name=str)


def children() -> List[int]:
    """Worker processes of this one."""
    return [p for p in members(os.getpid()) if b"--multiprocessing-fork" in _command(p)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def same(batches: List[Rows]) -> None:
    for batch, other in zip(batches, stream(in_processes=False)):
        np.testing.assert_array_equal(batch.label, other.label)
        np.testing.assert_array_equal(batch.image, other.image)
    assert len(batches) == BATCHES


def test_what_a_killed_worker_was_to_do_is_done() -> None:
    batches = []
    for number, batch in enumerate(stream()):
        batches.append(batch)
        if number == 2:
            assert batch.lost is None
            os.kill(children()[0], signal.SIGKILL)
    same(batches)
    assert re.match(r"a process that reads images was killed by signal 9 \(SIGKILL: ", batch.lost)
    assert "--shm-size" in batch.lost
    assert children() == []


def test_workers_hear_no_signal_and_this_thread_hears_what_it_did() -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        batches = []
        for batch in stream():
            batches.append(batch)
            for pid in children():
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                    os.kill(pid, number)
        same(batches)
        assert batch.lost is None
        # multiprocessing's resource tracker unblocks it.
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_too_little_shared_memory_is_known_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As tmpfs says it: no room for all of a file, which writing would find out by SIGBUS."""

    def allocate(number: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    before = set(Path(worker_processes._SHARED).iterdir())
    monkeypatch.setattr(worker_processes.os, "posix_fallocate", allocate)
    batches = list(stream())
    same(batches)
    assert re.match(r"python_multiprocessing: \d+ MiB of shared memory are needed", batches[0].lost)
    assert "--shm-size" in batches[0].lost
    assert set(Path(worker_processes._SHARED).iterdir()) <= before


def test_an_error_of_a_worker_says_where_it_was_raised() -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: image 0: no") as raised:
        next(batches_of(fail, keys(), SHAPE, num_workers=1, in_processes=True, file_name=str))
    assert "raise Unpicklable(key.sample" in str(raised.value.__cause__)


ORPHANS = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
if __name__ == "__main__":
    from test_worker_processes import children, stream
    rows = stream()
    next(rows)
    print(*children(), flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(ORPHANS.format(root=str(ROOT), tests=str(ROOT / "tests")))
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while any(_command(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_whose_worker_is_killed_saves(tmp_path: Path) -> None:
    write_job(tmp_path)
    run = tmp_path / "run"
    words = ["--config", str(tmp_path / "tiny.yaml"), "--data_url", str(tmp_path / "data")]
    process = start([*words, "--train_url", str(run), "--python_multiprocessing"])
    wait_for_step(process, run, 2)
    found = [p for p in members(process.pid) if b"--multiprocessing-fork" in _command(p)]
    os.kill(found[0], signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert "killed by signal 9" in last
    assert last.endswith(f"last.ckpt at step {recorded(run)}; continue with --resume auto")
    assert (run / "last.ckpt").exists()


def test_a_run_without_room_ends_before_it_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise worker_processes.NoSharedMemory("2 MiB of shared memory are needed")

    monkeypatch.setattr(workers, "Processes", refuse)
    write_job(tmp_path)
    words = ["--config", str(tmp_path / "tiny.yaml"), "--data_url", str(tmp_path / "data")]
    words += ["--train_url", str(tmp_path / "run"), "--python_multiprocessing", "--debug"]
    with pytest.raises(TrainingFailed, match="2 MiB of shared memory are needed"):
        train_program.main(words)
    assert not (tmp_path / "run" / "last.ckpt").exists()
