"""Reads that never return: a signal ends every program all the same, and a run saves."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest
from stalled_disk import CASES, SIGNALS, prepare, train, try_once

from src.errors import StoppedReading
from src.runtime import stop_signal, threads
from src.runtime.stop_signal import StopSignal
from src.runtime.threads import ThreadPool, result_of

# Starts sooner than any other, and trains nothing.
QUICK = "pack, an image"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, on Linux")
    folder = tmp_path_factory.mktemp("job")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def trained_job(job: Path) -> Path:
    train(job)
    return job


def test_a_program_that_reads_for_ever_ends(job: Path, tmp_path: Path) -> None:
    ended = try_once(QUICK, signal.SIGINT, job, tmp_path / "run", sys.executable)
    assert ended.problem is None, ended
    assert ended.said.startswith("error: interrupted by signal 2: 0 of 3 shards are whole in ")


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", CASES)
def test_every_program_and_what_stalls(
    name: str, number: signal.Signals, trained_job: Path, tmp_path: Path
) -> None:
    ended = try_once(name, number, trained_job, tmp_path / "run", sys.executable)
    assert ended.problem is None, ended


@pytest.fixture
def stalled() -> Iterator[threading.Event]:
    """What a task waits for; it comes when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("at", "number", "noted_at"):
        monkeypatch.setattr(stop_signal._Arrived, name, None)


def test_results_come_as_those_of_concurrent_futures() -> None:
    def task(number: int) -> float:
        time.sleep(0.01 * (number % 3))
        return 1 / (number - 12)

    def taken(results: Iterator[float]) -> Iterator[object]:
        try:
            yield from results
        except ZeroDivisionError as error:
            yield str(error)

    with ThreadPoolExecutor(3) as theirs:
        expected = list(taken(theirs.map(task, range(20))))
    with ThreadPool(3, "t") as ours:
        assert list(taken(ours.map(task, range(20), str))) == expected
        assert len(ours._threads) == 3
    assert not any(thread.is_alive() for thread in ours._threads)


def test_a_read_of_a_minute_is_named_once(
    stalled: threading.Event,
    no_signal: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(threads, "_LONG_S", 0.2)
    threading.Timer(0.8, stalled.set).start()
    with caplog.at_level(logging.WARNING), ThreadPool(1, "t") as pool:
        assert result_of(pool.submit(stalled.wait), lambda: "cat/1.png") is True
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("reading cat/1.png for 0 s: a stalled disk or network mount? Ctrl-C")


@pytest.mark.parametrize("moves", [False, True])
def test_a_stop_waits_for_images_that_come(
    moves: bool, stalled: threading.Event, no_signal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow batch whose images come one after the other is waited for, a stalled one is not."""
    monkeypatch.setattr(threads, "GIVE_UP_S", 0.3)
    threading.Timer(1.5, stalled.set).start()
    clock = time.monotonic

    def reading() -> str:
        return f"{int(10 * clock()) if moves else 0}.png"

    with StopSignal(), ThreadPool(1, "t") as pool:
        task = pool.submit(stalled.wait)
        os.kill(os.getpid(), signal.SIGUSR1)
        if moves:
            assert result_of(task, reading, patience_s=0.3) is True
        else:
            with pytest.raises(StoppedReading, match=r"0\.png has been read for 0 s"):
                result_of(task, reading, patience_s=0.3)
            pool.close(0.0)
            assert threads.has_abandoned()
            stalled.set()
            pool._threads[0].join()
            assert not threads.has_abandoned()
