"""The scaling model and the memory plan against what can be worked out by hand."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str = "scaling_model") -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


model = load()
MACHINE = model.Machine(bandwidth=1e9, latency_s=1e-3, images_per_core=100.0, cores=10, disk=1e8)
# 0.5 s for 32 images on each of 8 devices.
QUOTED = model.Quoted("x", 8, 256, 500.0)


def test_the_all_reduce_of_a_ring() -> None:
    assert model.all_reduce_s(1e9, 1, MACHINE) == 0
    assert model.all_reduce_s(1e9, 2, MACHINE) == pytest.approx(1.0 + 0.002)
    assert model.all_reduce_s(1e9, 8, MACHINE) == pytest.approx(1.75 + 0.006)
    assert model.all_reduce_s(0, 1024, MACHINE) == pytest.approx(0.020)


def test_one_estimate_by_hand() -> None:
    found = model.estimate(QUOTED, 25_000_000, 8, MACHINE)  # 100 MB of gradient: 0.181 s
    assert found.images_per_s_per_host == pytest.approx(512)
    assert found.cores_per_host == pytest.approx(5.12)
    assert found.efficiency_low == pytest.approx(0.5 / 0.681)
    assert found.efficiency_high == 1
    assert found.epoch_s == pytest.approx(5004 * 0.681)
    assert found.eval_share * found.epoch_s == pytest.approx(196 * 0.5 / 3)
    assert found.save_share * found.epoch_s == pytest.approx(3.0)
    few = model.estimate(QUOTED, 25_000_000, 8, replace(MACHINE, cores=1))
    assert few.epoch_s == pytest.approx(5004 * 2.56)  # 256 images at 100 images/s
    assert few.efficiency_high == few.efficiency_low == pytest.approx(0.5 / 2.56)
    small = model.estimate(QUOTED, 25_000_000, 64, MACHINE, global_batch=512)
    assert small.efficiency_low == pytest.approx(0.125 / (0.125 + 0.2 * 63 / 64 + 0.012))


def test_the_page_shows_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    counts = model.parameter_counts()
    published = json.loads((ROOT / "tests" / "data" / "params.json").read_text())
    for quoted in model.QUOTED:
        assert counts[quoted.arch] == published[quoted.arch]["params"]
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for more in ([], ["--global_batch", "8192", "--devices", "64", "1024"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["scaling_model.py", *more])
            model.main()
        assert capsys.readouterr().out in page


def test_the_memory_plan_is_the_line_through_two_batches() -> None:
    """One that no graph is compiled for; 100 for any batch, 10 an image."""
    plan = load("memory_plan")
    plans = [plan.Plan(60, 40 + 20), plan.Plan(60, 40 + 40)]
    assert plan.line_through(plans, [2, 4]) == [100, 10]


def test_a_network_that_cannot_be_compiled_has_no_memory_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load("memory_plan")
    assert plan.main(["deit_small_patch16_224", "--batches", "2", "2"]) == 2
    assert "give two different ones" in capsys.readouterr().err
    assert plan.main(["deit_small_patch16_224", "nowhere"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err[:14]) == ("", "error: arch 'n")
    monkeypatch.setattr(plan, "_CHILD", "raise ValueError('first\\nlast')")
    assert plan.main(["deit_small_patch16_224"]) == 2
    assert "deit_small_patch16_224, batch 2: no plan (last)" in capsys.readouterr().err
