"""The training engine in whole runs: overflow, signals, resuming, changed recipes, full disks."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import numpy as np
import pytest
from digits_run import ROOT, failure, rows, start, steps, wait_for_step, words

import eval as eval_program
import train as train_program
from src.tools.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


# Everything that holds state: drop path, mixing, averages, accumulation, loss scale, two workers.
EVERYTHING = (
    "--drop_path_rate 0.3 --mix_up 0.4 --cutmix 1.0 --with_ema --ema_decay 0.9 --ema_warmup "
    "--accumulation_step 2 --batch_size 32 --amp_level O2 --loss_scale_window 7 --log_interval 1"
).split()


def same_state(run: Path, other: Path) -> None:
    ours, theirs = (read_checkpoint(folder / "last.ckpt").tensors for folder in (run, other))
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor.asnumpy(), theirs[name].asnumpy(), err_msg=name)


@pytest.fixture(scope="module")
def straight(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with everything on, not interrupted."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    assert train_program.main(words(digits, run, *EVERYTHING)) == 0
    return run


def test_sigterm_saves_and_the_run_continues_to_the_same_bits(
    digits: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = words(digits, run, *EVERYTHING, "--resume", "auto")
    process = start(arguments)
    wait_for_step(process, run, 5)
    process.send_signal(signal.SIGTERM)
    messages = process.communicate(timeout=120)[1]
    assert process.returncode == 143, messages
    stopped_at = read_checkpoint(run / "last.ckpt").meta["step"]
    assert f"at step {stopped_at}" in messages
    assert stopped_at == steps(run)[-1] < 22
    finished = start([*arguments, "--save_steps", "7"])
    messages = finished.communicate()[1]
    assert finished.returncode == 0, messages
    same_state(run, straight)
    assert steps(run) == steps(straight) == list(range(1, 45))
    for column in ("loss", "grad_norm", "loss_scale", "top1", "ema_top1", "ema_val_loss"):
        assert [r[column] for r in rows(run)] == [r[column] for r in rows(straight)], column


def test_a_kill_during_the_checkpoint_write_costs_nothing(
    digits: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = words(digits, run, *EVERYTHING, "--resume", "auto", "--save_steps", "6")
    # The second save dies between the write of the temporary file and its rename.
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import train
real, saves = os.replace, []
def replace(source, target):
    saves.append(target) if str(target).endswith("last.ckpt") else None
    if len(saves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
train.main({arguments!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(run / "last.ckpt").meta["step"] == 6
    assert train_program.main(arguments) == 0
    same_state(run, straight)
    assert not list(run.glob(".*tmp*"))


def test_a_disk_that_takes_no_checkpoint_stops_the_run_and_keeps_the_last_one(
    digits: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    limit = 64 * 1024  # enough for the records, too little for a checkpoint
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import train
from src.tools import checkpoint
real, saves = checkpoint.ms.save_checkpoint, []
def save(*arguments, **keywords):
    saves.append(1)
    if len(saves) == 2:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    real(*arguments, **keywords)
checkpoint.ms.save_checkpoint = save
sys.exit(train.main({words(digits, run, "--save_steps", "8")!r}))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "step 16" in errors[0]
    assert str(run) in errors[0]
    assert "Traceback" not in ended.stderr
    assert read_checkpoint(run / "last.ckpt").meta["step"] == 8
    assert [path.name for path in run.glob("*.ckpt")] == ["last.ckpt"]
    assert not list(run.glob(".*tmp*"))


def test_overflows_in_a_row_stop_with_a_report_that_can_be_replayed(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = "--amp_level O2 --is_dynamic_loss_scale false --loss_scale 1e38 --max_overflows 3"
    arguments = words(digits, run, *more.split(), "--log_interval", "1")
    message = failure(capsys, train_program, arguments)
    report = json.loads((run / "overflow.json").read_text())
    parameter = report["first_non_finite_gradient"]
    assert parameter in message
    assert "step 3" in message
    assert report["step"] == 3
    assert report["loss_scale"] == pytest.approx(1e38)
    assert report["lr"] > 0
    weights = read_checkpoint(run / "overflow.ckpt").tensors
    assert int(weights["train.updates"].asnumpy()) == 0

    program, *options = report["replay"].split()[1:]
    replayed = start(options, program)
    output, errors = replayed.communicate()
    assert replayed.returncode == 0, errors
    assert re.fullmatch(rf"step 3  loss .*  first gradient .*: {re.escape(parameter)}\n", output)


def test_a_changed_recipe_is_listed_and_refused(
    digits: Path,
    straight: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = ["--lr", "0.5", "--resume", "auto"]
    message = failure(capsys, train_program, words(digits, straight, *EVERYTHING, *changed))
    assert "base_lr 0.002 -> 0.5" in message
    assert "--allow_config_change" in message
    # What does not change the result may change; and the run is finished already.
    more = ["--resume", "auto", "--num_parallel_workers", "1", "--keep_checkpoint_max", "9"]
    before = (straight / "last.ckpt").read_bytes()
    with caplog.at_level(logging.INFO):
        assert train_program.main(words(digits, straight, *EVERYTHING, *more)) == 0
    assert "nothing is left to do: 44 steps" in caplog.text
    assert (straight / "last.ckpt").read_bytes() == before


def test_eval_of_the_averages_equals_what_training_logged(
    digits: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(*more: str) -> dict:
        arguments = ["--pretrained", str(straight / "last.ckpt"), "--amp_level", "O2", *more]
        assert eval_program.main(words(digits, tmp_path, *arguments)) == 0
        return json.loads((tmp_path / "report.json").read_text())

    last = [row for row in rows(straight) if row["top1"]][-1]
    raw, averaged = evaluate(), evaluate("--ema")
    assert raw["top1"] == float(last["top1"])
    assert averaged["top1"] == float(last["ema_top1"])
    assert averaged["loss"] == pytest.approx(float(last["ema_val_loss"]), rel=1e-5)
    assert (raw["weights"], averaged["weights"]) == ("raw", "ema")
    assert raw["loss"] != averaged["loss"]


def test_best_goes_by_the_averages_when_asked(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = "--with_ema --ema_decay 0.9 --best_by ema".split()
    assert train_program.main(words(digits, run, *more)) == 0
    scores = [float(row["ema_top1"]) for row in rows(run) if row["ema_top1"]]
    meta = read_checkpoint(run / "best.ckpt").meta
    assert meta["best_top1"] == max(scores)
    assert meta["best_epoch"] == scores.index(max(scores)) + 1


@pytest.mark.parametrize(
    ("more", "last_step"),
    [(["--epochs", "0", "--warmup_length", "0"], None), (["--epochs", "2", "--lr", "0"], 44)],
)
def test_runs_at_the_edge(more: List[str], last_step: int, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_program.main(words(digits, run, *more, "--save_every", "0")) == 0
    if last_step is None:
        assert not list(run.glob("*.ckpt"))
        assert rows(run) == []
    else:
        assert read_checkpoint(run / "last.ckpt").meta["step"] == last_step
    assert (run / "curves.png").exists()
