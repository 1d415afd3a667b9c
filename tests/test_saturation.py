"""Training on a chip that computes the largest number for an infinity and 0 for NaN."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List, Set

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from saturating_chip import (
    Chip,
    SaturatingNet,
    State,
    batch,
    build_step,
    eight_steps,
    run,
    saturating_chip,
    state,
)

from src.args import RunConfig
from src.data.dataset import Batch
from src.runtime import compat, device
from src.runtime.float_status import FloatStatus, create_float_status
from src.runtime.npu_smi import Card
from src.trainer.evaluate import evaluate
from src.trainer.forensics import find_suspect, probe

ROOT = Path(__file__).resolve().parent.parent
SCALE_ALONE = {"train.loss_scale", "train.finite_steps", "train.calls"}
# What overflows: the gradient, by the factor of the loss; or the network itself.
OVERFLOWS = [{"factor": 1e5}, {"pixel": np.inf}, {"pixel": np.nan}]


@pytest.fixture
def chip() -> Iterator[Chip]:
    with saturating_chip() as chip:
        yield chip


def changed(before: State, after: State) -> Set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_an_overflow_skips_the_step_and_halves_the_scale(chip: Chip) -> None:
    """Without the status the same step is applied, and its loss looks finite."""
    step, blind = build_step(FloatStatus()), build_step(None)
    scale = 1024.0
    for overflow in OVERFLOWS:
        for each in (step, blind):
            assert run(each, batch(0))[2]
        before, blind_before = state(step), state(blind)
        loss, _, finite, used = run(step, batch(1, **overflow))
        assert np.isfinite(loss), overflow
        assert (finite, used) == (False, scale), overflow
        assert changed(before, state(step)) == SCALE_ALONE, overflow
        scale /= 2
        assert state(step)["train.loss_scale"] == scale
        assert run(blind, batch(1, **overflow))[2]
        assert {"fc.weight", "norm.moving_mean"} < changed(blind_before, state(blind)), overflow


def test_the_operators_of_the_chip_pass_the_compiler(tmp_path: Path) -> None:
    """Those of MindSpore itself, which a CPU then refuses: none is merged or left out."""
    step = build_step(FloatStatus(), accumulation_step=2)
    ms.set_context(save_graphs=1, save_graphs_path=str(tmp_path))
    try:
        with pytest.raises(RuntimeError, match="NPU"):
            run(step, batch(0))
    finally:
        ms.set_context(save_graphs=0)
    (graph,) = tmp_path.rglob("*_validate_*.ir")
    found = re.findall(r"NPU(Clear|Get)FloatStatusV2\(", graph.read_text())
    # Around the gradients of a batch, and what the step makes of them.
    assert sorted(found) == ["Clear"] * 3 + ["Get"] * 2


def test_without_an_overflow_the_status_changes_no_bit(chip: Chip) -> None:
    states = []
    for status in (None, FloatStatus()):
        step = build_step(status)
        for number in range(3):
            assert run(step, batch(number))[2]
        states.append(state(step))
    assert changed(*states) == set()


def test_one_forward_between_a_clear_and_a_read(chip: Chip) -> None:
    """It stores 5 tensors; on the way back 4, because the images need no gradient."""
    step = build_step(FloatStatus())
    run(step, batch(0))
    chip.log.clear()
    chip.overflowed = True  # by whatever ran before
    assert run(step, batch(1))[2]
    assert chip.log == ["clear", *["compute"] * 9, "read", "clear"]


def test_the_scale_falls_until_the_gradient_fits_instead_of_growing(chip: Chip) -> None:
    before, after = eight_steps(None), eight_steps(FloatStatus())
    assert [np.log2(row[0]) for row in before] == [17, 17, 18, 18, 19, 19, 20, 20]
    assert [np.log2(row[0]) for row in after] == [17, 16, 15, 15, 16, 15, 15, 16]


def test_an_overflow_in_any_accumulated_batch(chip: Chip) -> None:
    step = build_step(FloatStatus(), accumulation_step=2)
    for place, overflow in itertools.product((0, 1), OVERFLOWS[:2]):
        assert [run(step, batch(number))[2] for number in (0, 1)] == [True, True]
        states = [state(step)]
        for number in range(2):
            outputs = run(step, batch(2 + number, **(overflow if number == place else {})))
            states.append(state(step))
        assert not outputs[2]
        # The statistics of a sound batch before it are kept, as on every device.
        statistics = {"norm.moving_mean", "norm.moving_variance"} if place == 1 else set()
        assert changed(states[0], states[2]) == SCALE_ALONE | statistics, (place, overflow)
        assert changed(states[1], states[2]) == SCALE_ALONE, (place, overflow)
    assert state(step)["train.updates"] == 4


class _OtherRank(nn.Cell):
    """Stands for an AllReduce with a rank that overflows in each step."""

    def construct(self, x: Tensor) -> Tensor:
        return x + 1.0


def test_an_overflow_of_another_rank_skips_the_step_too(chip: Chip) -> None:
    status = FloatStatus()
    status.all_reduce = _OtherRank()
    step = build_step(status)
    before = state(step)
    assert not run(step, batch(0))[2]
    # It has been 0 before.
    assert changed(before, state(step)) == SCALE_ALONE - {"train.finite_steps"}


@pytest.mark.slow
def test_two_ranks_skip_together(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "launch.py"), "--nproc", "2"),
            *("--logs", str(tmp_path / "logs"), "--"),
            *(str(ROOT / "tests" / "saturating_chip.py"), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for rank in (0, 1):
        assert np.load(tmp_path / f"finite_{rank}.npy").tolist() == [1.0, 0.0, 1.0]
    with np.load(tmp_path / "state_0.npz") as ours, np.load(tmp_path / "state_1.npz") as theirs:
        assert changed(dict(ours), dict(theirs)) == set()
        assert ours["train.updates"] == 2
        assert ours["train.loss_scale"] == 512.0


def test_forensics_names_the_gradient_at_the_largest_number(chip: Chip) -> None:
    step = build_step(FloatStatus(), accumulation_step=2)
    good, large, broken = (Batch(*batch(1, **more)) for more in ({}, {"factor": 1e5}, OVERFLOWS[2]))
    before = state(step)
    for one in (good, large):
        run(step, list(one))
    suspect = find_suspect(step, [good, large], 1024.0)
    assert (suspect.batch is large, suspect.calls) == (True, 1)
    assert suspect.finding.overflowed
    assert suspect.finding.parameter == "fc.weight"
    assert changed(before, state(step)) <= SCALE_ALONE | {
        "norm.moving_mean",
        "norm.moving_variance",
    }
    seen = probe(step, broken, scale=1.0, calls=0)
    assert (seen.overflowed, seen.parameter) == (True, None)
    assert np.isfinite(seen.loss)
    assert "before the gradients" in seen.place()


def test_forensics_takes_no_large_gradient_for_an_overflow(chip: Chip) -> None:
    """That of the bias is 65504 = 2 x 6 / 12 x 65504, which float16 holds."""
    step = build_step(FloatStatus())
    for weight in step.optimizer.parameters:
        weight.set_data(Tensor(np.zeros(weight.shape, np.float32)))
    x = np.tile(np.array([[0], [1], [-1], [2], [-2], [0]], np.float32), (1, 3))
    target = np.zeros((6, 2), np.float32)
    target[0, 0] = -6.0
    chip.overflowed = True  # by whatever ran before
    seen = probe(step, Batch(x, target, np.float32(65504.0)), scale=1.0, calls=0)
    assert (seen.overflowed, seen.parameter) == (False, None)
    assert seen.place() == "none, all are finite"


class _Pixels:
    """Two batches of 2 images, in the second of which a pixel is infinite if `is_broken`."""

    class_names, lost, scored, is_multi_label = ("a", "b"), None, None, False

    def __init__(self, is_broken: bool) -> None:
        self.is_broken = is_broken

    def batches(self) -> Iterator[SimpleNamespace]:
        image = np.ones((2, 3), np.float32)
        yield SimpleNamespace(image=image, label=np.array([0, 1]))
        yield SimpleNamespace(
            image=image * (np.inf if self.is_broken else 1.0), label=np.array([0, 1])
        )


def test_the_loss_of_an_evaluation_that_overflowed_is_nan(chip: Chip) -> None:
    net, status = SaturatingNet(), FloatStatus()

    def loss(is_broken: bool, **more: Any) -> float:
        return evaluate(net, _Pixels(is_broken), **more).loss  # type: ignore[arg-type]

    assert np.isfinite(loss(True))
    assert np.isnan(loss(True, float_status=status))
    chip.overflowed = True  # by a training step
    assert loss(False, float_status=status) == loss(False)


@pytest.mark.parametrize(
    ("target", "is_first", "mode", "expected"),
    [
        ("CPU", True, "SATURATION_MODE", False),
        ("GPU", True, None, False),
        ("Ascend", True, None, True),
        ("Ascend", False, None, False),
        ("Ascend", False, "INFNAN_MODE", False),
        ("Ascend", False, "SATURATION_MODE", True),
    ],
)
def test_where_the_status_is_read(
    target: str, is_first: bool, mode: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_is_first_910", lambda: is_first)
    monkeypatch.setattr(compat, "is_for_first_ascend_only", lambda: False)
    monkeypatch.delenv("MS_ASCEND_CHECK_OVERFLOW_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("MS_ASCEND_CHECK_OVERFLOW_MODE", mode)
    run_config = RunConfig(device_target=target)
    assert (create_float_status(run_config) is not None) == expected
    monkeypatch.setattr(compat, "is_for_first_ascend_only", lambda: True)
    assert (create_float_status(run_config) is not None) == (target == "Ascend")


@pytest.mark.parametrize(
    ("soc", "listed", "is_2_0", "expected"),
    [
        ("ascend910", ["910B2"], False, True),
        ("ascend910b", ["910A"], False, False),
        ("ascend910_93", [], False, False),
        ("", ["910A"], False, True),
        ("", ["910B2"], True, False),
        ("", [], False, False),
        ("", [], True, True),
    ],
)
def test_mindspore_tells_the_generation_or_npu_smi_or_the_version(
    soc: str, listed: List[str], is_2_0: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "ascend_soc", lambda: soc)
    monkeypatch.setattr(compat, "is_for_first_ascend_only", lambda: is_2_0)
    monkeypatch.setattr(device, "list_cards", lambda: [Card(name) for name in listed])
    assert device._is_first_910.__wrapped__() == expected


def test_this_machine_tells_no_chip_and_nothing_fails() -> None:
    if ms.get_context("device_target") == "Ascend":
        pytest.skip("an Ascend tells its name")
    assert compat.ascend_soc() == ""
