"""benchmarks/lock.py: its counts on what holds the lock and what does not, and what follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_scaling_model import load

from src.runtime.native_library import find_compiler

ROOT = Path(__file__).resolve().parent.parent
lock = load("lock")
needs_compiler = pytest.mark.skipif(find_compiler(os.environ) is None, reason="needs a compiler")

# What Python's documentation says of the lock: hashlib releases it for more than 2,047 bytes, and
# sleeping does; nothing else here.
KNOWN = """
import hashlib, json, sys, threading, time
sys.path.insert(0, sys.argv[1])
import lock

meter, megabyte = lock.Meter(), bytes(2**20)
lock.check_known_cases(meter)
loop = lambda: sum(range(200_000))
inner = meter.timed(lambda: hashlib.sha256(megabyte), 1)
outer = meter.timed(lambda: (loop(), inner(), loop()), 2)
before = meter.process()
threads = [threading.Thread(target=lambda: [outer() for _ in range(20)]) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
alone = meter.of(loop, 20)
print(json.dumps([alone, meter.take(1), meter.take(2), meter.process().minus(before)]))
"""


@needs_compiler
def test_what_holds_the_lock_is_counted_in_every_thread(tmp_path: Path) -> None:
    meter = lock.compile_meter(tmp_path)
    command = ["env", f"LD_PRELOAD={meter}", sys.executable, "-c", KNOWN, str(ROOT / "benchmarks")]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    alone, inner, outer, whole = (lock.Spent(*values) for values in json.loads(printed))
    assert alone.held == pytest.approx(alone.all, rel=0.02)
    # 2 threads called each 20 times; a megabyte takes half a millisecond at the least.
    assert inner.releases == outer.releases == 40
    assert inner.held < 0.1 * inner.all
    assert inner.all > 40 * 100
    # What the inner stage takes is not the outer's, which is two loops.
    assert outer.held == pytest.approx(outer.all, rel=0.05)
    assert outer.held == pytest.approx(80 * alone.held, rel=0.5)
    # The measurement of the loop alone is in the whole.
    together = inner.held + outer.held + 20 * alone.held
    assert whole.held == pytest.approx(together, rel=0.2)
    assert 40 <= whole.releases < 200


def test_without_the_meter_nothing_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert lock.main(["plain", "folder", "nowhere"]) == 2
    assert (
        capsys.readouterr().err == "error: the meter is not loaded; give no chain, and it will be\n"
    )


def test_limits_by_hand() -> None:
    threads = lock.Spent(held=200, all=1000, main=20)
    processes = lock.Spent(held=40, all=1250, main=50)
    # 4 cores make 4 images in 1000 us; from 5 on the lock is the limit.
    assert lock.images_per_s(threads, 4) == 4000
    assert lock.images_per_s(threads, 24) == 5000
    assert lock.images_per_s(processes, 24) == 19200
    assert lock.images_per_s(processes, 192) == 20000  # its main thread takes 50 us
    assert lock.cores_for_processes(threads, processes) == 6.25
    assert lock.images_per_s(processes, 6) < lock.images_per_s(threads, 6)
    assert lock.images_per_s(processes, 7) > lock.images_per_s(threads, 7)


def test_stages_are_functions_of_the_pipeline() -> None:
    stages = lock.stage_functions()
    assert {name for name, _, _ in stages} == set(lock.ROWS) - {lock.QUEUE, "whole"}
    assert all(callable(getattr(owner, attribute)) for _, owner, attribute in stages)


@needs_compiler
@pytest.mark.slow
def test_a_chain_is_measured(tmp_path: Path) -> None:
    lock.pipeline.write_images(tmp_path)
    job = lock.Job("full", "folder", tmp_path, 2)
    found = lock.measure_apart(job, lock.compile_meter(tmp_path))
    assert set(found) == {*lock.ROWS, "processes"}
    parts = [spent for name, spent in found.items() if name not in ("whole", "processes")]
    assert sum(spent.all for spent in parts) == pytest.approx(found["whole"].all, rel=0.5)
    # Two are what is left of others, which two batches do not settle.
    for name in set(found) - {lock.REST, lock.QUEUE}:
        assert 0 < found[name].held < 1.1 * found[name].all + 1, name
    # Decoding and resizing are calls of compiled code.
    for name in ("decode", "crop and resize"):
        assert found[name].held < 0.3 * found[name].all
    assert found["processes"].held < 0.5 * found["whole"].held
