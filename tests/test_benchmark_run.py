"""benchmarks/run.py: what it counts, what it refuses, and one true measurement."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import List

import numpy as np
import pytest
from digits_run import failure, words
from model_parity import HAS_TIMM
from program_options import load

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ("images_per_s", "ms_p50", "ms_p95", "peak_gib", "compile_s")
program = load("benchmarks/run.py")


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).exponential(size=23).tolist()
    for share in (0.0, 0.5, 0.95, 1.0):
        assert program.percentile(values, share) == pytest.approx(
            np.percentile(values, 100 * share)
        )
    assert program.percentile([3.0], 0.95) == 3.0


def test_steps_are_timed_with_their_wait_and_without_the_first_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    seen: List[int] = []
    times = program.timed(iter(range(9)), seen.append, 4)
    # Three readings of the clock a step, one second between two.
    assert times == {"first_s": 1.0, "seconds": [2.0] * 4, "waits": [1.0] * 4}
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_row_is_the_median_of_all_rounds() -> None:
    one = {"first_s": 5.0, "seconds": [1.0, 2.0], "waits": [0.5, 0.1], "peak_gib": 1.0}
    two = {"first_s": 7.0, "seconds": [2.0, 9.0], "waits": [0.0, 0.8], "peak_gib": 3.0}
    rounds = [{**one, "device": "d"}, {**two, "device": "d"}]
    row = program.summarise(rounds, 8, in_memory=False)
    assert row["ms_p50"] == 2000.0
    assert row["images_per_s"] == 4.0
    assert row["data_wait_share"] == pytest.approx(1.4 / 14)
    assert (row["compile_s"], row["peak_gib"], row["steps"]) == (4.0, 3.0, 4)
    assert program.summarise(rounds, 8, in_memory=True)["data_wait_share"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--arch", "convnext_tine"], "convnext_tine"),
        (["--arch", "deit_tiny_patch16_224", "--json", "nowhere/x.json"], "nowhere"),
        (["--config", "src/configs/twin_s.yaml", "--device_target", "CPU"], "../data"),
    ],
)
def test_it_refuses(more: List[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in failure(capsys, program, [*more, "--phases", "inference"])


@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
def test_timms_names() -> None:
    assert program.timms_name("pcpvt_small_v0") == "twins_pcpvt_small"
    assert program.timms_name("alt_gvt_base") == "twins_svt_base"
    assert program.timms_name("twins_pcpvt_base") == "twins_pcpvt_base"
    with pytest.raises(ValueError, match="cct_2_3x2_32"):
        program.timms_name("cct_2_3x2_32")


@pytest.mark.slow
def test_a_recipe_is_measured_in_both_phases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = words(tmp_path / "digits", tmp_path / "run", "--epochs", "1", "--warmup_length", "0")
    file = tmp_path / "out.json"
    assert program.main([*keys, "--steps", "3", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert [row["phase"] for row in content["rows"]] == ["training", "inference"]
    for row in content["rows"]:
        assert all(np.isfinite(row[name]) and row[name] > 0 for name in NUMBERS)
        assert row["ms_p50"] <= row["ms_p95"]
        assert 0 <= row["data_wait_share"] < 1
        assert row["images_per_s"] == pytest.approx(1000 * row["batch_size"] / row["ms_p50"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cct_2_3x2_32: date ")
    assert len(lines) == 5
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TIMM, reason="needs torch and timm")
def test_timm_takes_turns(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--arch", "deit_tiny_patch16_224", "--batch_size", "1", "--compare", "timm"]
    assert program.main([*given, "--steps", "2", "--rounds", "2"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    sides = [(row[0].strip("| "), row[1]) for row in rows]
    assert sides == [(s, p) for p in ("training", "inference") for s in ("here", "timm")]
    assert [row[-1].strip(" |") for row in rows][1::2] == ["1.00", "1.00"]
