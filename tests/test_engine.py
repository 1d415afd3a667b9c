"""The training engine in whole runs: overflow, signals, resuming, changed recipes, full disks."""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import (
    ROOT,
    failure,
    rows,
    start,
    steps,
    wait_for_step,
    without_override,
    words,
)
from mindspore import Tensor

import eval as eval_program
import train as train_program
from src.checkpoints.checkpoint import read_checkpoint
from src.data.dataset import Batch, ImageDataset
from src.models.registry import create_model
from src.runs.records import read_records


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


# Everything that holds state: drop path, dropout, mixing, erasing, averages, accumulation, loss
# scale, two workers; of grey images. 30 steps of 2 x 46 images, 15 an epoch.
EVERYTHING = (
    "--drop_path_rate 0.3 --mix_up 0.4 --cutmix 1.0 --re_prob 0.5 --with_ema --ema_decay 0.9 "
    "--ema_warmup --best_by ema --accumulation_step 2 --batch_size 46 --num_parallel_workers 2 "
    "--loss_scale_window 7 --log_interval 1 --recompute true --class_weights balanced "
    "--balanced_sampling sqrt --in_chans 1"
).split()
STEPS = 30
# Compiled sooner, where the depth is not what is tested.
SHALLOW = ["--model_args", "{num_layers: 1, n_conv_layers: 1}"]


def same_state(run: Path, other: Path) -> None:
    ours, theirs = (read_checkpoint(folder / "last.ckpt").tensors for folder in (run, other))
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor.asnumpy(), theirs[name].asnumpy(), err_msg=name)


@pytest.fixture(scope="module")
def straight(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with everything on, not interrupted."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    assert train_program.main(words(digits, run, *EVERYTHING, "--tensorboard")) == 0
    return run


def same_rows(run: Path, other: Path) -> None:
    assert steps(run) == steps(other) == list(range(1, STEPS + 1))
    for column in ("loss", "lr", "grad_norm", "loss_scale", "top1", "ema_top1", "ema_val_loss"):
        assert [r[column] for r in rows(run)] == [r[column] for r in rows(other)], column
    digests = [read_records(folder / "metrics.csv")[-1]["weights"] for folder in (run, other)]
    assert digests[0] == digests[1] != ""


def test_the_straight_run_used_what_it_claims(straight: Path) -> None:
    tensors = read_checkpoint(straight / "last.ckpt").tensors
    assert tensors["tokenizer.conv_layers.0.0.weight"].shape[1] == 1
    assert int(tensors["train.calls"].asnumpy()) == 2 * STEPS
    assert int(tensors["train.ema_updates"].asnumpy()) == STEPS
    # Nothing that only draws is part of the state.
    assert not [name for name in tensors if name.endswith(".step") or "drop" in name]


def test_sigterm_saves_and_the_run_continues_to_the_same_bits(
    digits: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = words(digits, run, *EVERYTHING, "--resume", "auto")
    process = start(arguments)
    wait_for_step(process, run, 5)
    process.send_signal(signal.SIGTERM)
    messages = process.communicate(timeout=300)[1]
    assert process.returncode == 143, messages
    stopped_at = read_checkpoint(run / "last.ckpt").record.step
    assert f"at step {stopped_at}" in messages
    assert stopped_at == steps(run)[-1] < STEPS
    assert train_program.main(arguments) == 0
    same_state(run, straight)
    same_rows(run, straight)


def wait_for_line(process: subprocess.Popen, run: Path, line: str) -> None:
    """Returns when the run's train.log has `line`; fails the test when the run ends before."""
    log, deadline = run / "train.log", time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and line in log.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"{line!r} was not logged: {process.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_names_itself_in_the_exit_code(
    number: signal.Signals, digits: Path, tmp_path: Path
) -> None:
    """Ctrl-C after two steps, when MindSpore has replaced its handler; SIGTERM before the first."""
    run = tmp_path / "run"
    process = start(words(digits, run, *SHALLOW, "--log_interval", "1"))
    if number == signal.SIGINT:
        wait_for_step(process, run, 2)
    else:
        wait_for_line(process, run, "the first step includes the compilation")
    process.send_signal(number)
    messages = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + number, messages
    assert read_checkpoint(run / "last.ckpt").record.step == steps(run)[-1] < STEPS
    assert f"signal {number:d}: saved" in messages
    assert "Traceback" not in messages


# Dies between the write of the temporary file and its rename.
KILLED_WHILE_SAVING = """
import os, signal, sys
sys.path.insert(0, {root!r})
import train
real, saves = os.replace, []
def replace(source, target):
    saves.append(target) if str(target).endswith("last.ckpt") else None
    if len(saves) == {save}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
train.main({arguments!r})
"""


def killed_at(step: int, digits: Path, run: Path, arguments: List[str]) -> None:
    process = start(arguments)
    wait_for_step(process, run, step)
    process.kill()
    process.communicate()


@pytest.mark.slow  # test_run_lock.py kills a run and goes on too
def test_kills_cost_nothing(digits: Path, straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = words(digits, run, *EVERYTHING, "--resume", "auto", "--save_steps", "4")
    step = int(np.random.default_rng().integers(2, 12))
    print("killed after step", step)
    killed_at(step, digits, run, arguments)
    program = KILLED_WHILE_SAVING.format(root=str(ROOT), save=2, arguments=arguments)
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(run / "last.ckpt").record.step < STEPS
    assert list(run.glob(".*tmp*"))
    process = start(arguments)
    wait_for_step(process, run, 22)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    assert train_program.main(arguments) == 0
    same_state(run, straight)
    same_rows(run, straight)
    assert not list(run.glob(".*tmp*"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_random_kills_cost_nothing(digits: Path, straight: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng()
    for number in range(20):
        run = tmp_path / str(number)
        arguments = words(digits, run, *EVERYTHING, "--resume", "auto", "--save_steps", "3")
        step = int(rng.integers(1, STEPS))
        print("killed after step", step)
        killed_at(step, digits, run, arguments)
        assert train_program.main(arguments) == 0
        same_state(run, straight)
        same_rows(run, straight)


def stopped_by_its_folder(process: subprocess.Popen, run: Path) -> int:
    """Step of the last checkpoint of a run that must have ended with one clear error."""
    messages = process.communicate(timeout=300)[1]
    assert process.returncode == 1, messages
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, messages
    assert str(run) in errors[0]
    assert "continue with --resume auto" in errors[0]
    assert "Traceback" not in messages
    assert "Logging error" not in messages
    assert [path.name for path in run.glob("*.ckpt")] == ["last.ckpt"]
    return read_checkpoint(run / "last.ckpt").record.step


SAVES_OFTEN = [
    *SHALLOW,
    *"--epochs 40 --save_steps 2 --save_every 0 --eval_every 0 --log_interval 1".split(),
]


@pytest.mark.parametrize("limit", [64 * 1024, 512])
def test_a_disk_that_takes_no_more_stops_the_run_and_keeps_the_last_one(
    limit: int, digits: Path, tmp_path: Path
) -> None:
    """First the checkpoint does not fit, then metrics.csv and train.log neither."""
    run = tmp_path / "run"
    process = start(words(digits, run, *SAVES_OFTEN))
    wait_for_step(process, run, 3)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    assert stopped_by_its_folder(process, run) >= 2
    assert not list(run.glob(".*tmp*"))


def test_a_folder_that_becomes_read_only_stops_the_run(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    digits.parent.chmod(0o755)
    try:
        process = start(words(digits, run, *SAVES_OFTEN), before=without_override)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("root, and its right to write everywhere cannot be dropped here")
    try:
        wait_for_step(process, run, 3)
        run.chmod(0o555)
        assert stopped_by_its_folder(process, run) >= 2
    finally:
        process.kill()
        run.chmod(0o755)


def test_twenty_overflows_stop_with_a_report_that_can_be_replayed(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From step 4 on the first of both batches of each step is infinite."""
    real = ImageDataset.batches

    def batches(dataset: ImageDataset) -> Iterator[Batch]:
        for number, batch in enumerate(real(dataset)):
            if batch.mix is not None and number >= 6 and number % 2 == 0:
                batch.mix[3, 0] = np.inf
            yield batch

    monkeypatch.setattr(ImageDataset, "batches", batches)
    run = tmp_path / "run"
    more = "--amp_level O2 --loss_scale 65536 --max_overflows 20 --log_interval 6 --batch_size 8"
    arguments = words(digits, run, *EVERYTHING, *SHALLOW, *more.split())
    message = failure(capsys, train_program, arguments)
    report = json.loads((run / "overflow.json").read_text())
    parameter = report["first_non_finite_gradient"]
    assert f"first in {parameter}" in message
    assert "step 23: the gradient was not finite 20 times in a row" in message
    assert report["step"] == 23
    assert report["loss_scale"] == 1.0  # halved 16 times, and no further
    assert report["lr"] > 0
    tensors = read_checkpoint(run / "overflow.ckpt").tensors
    assert int(tensors["train.updates"].asnumpy()) == 3
    assert all(np.isfinite(tensor.asnumpy()).all() for tensor in tensors.values())

    program, *options = report["replay"].split()[1:]
    replayed = start(options, program)
    output, errors = replayed.communicate()
    assert replayed.returncode == 0, errors
    assert re.fullmatch(rf"step 23  loss .*  first gradient .*: {re.escape(parameter)}\n", output)


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
    assert "nothing is left to do: 30 steps" in caplog.text
    assert (straight / "last.ckpt").read_bytes() == before


def test_eval_of_the_averages_equals_what_training_logged(
    digits: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(*more: str) -> dict:
        arguments = ["--pretrained", str(straight / "last.ckpt"), *more]
        assert eval_program.main(words(digits, tmp_path, *arguments)) == 0
        name = "eval_last_ema" if "--ema" in more else "eval_last"
        return json.loads((tmp_path / f"{name}_digits_val.json").read_text())

    last = [row for row in rows(straight) if row["top1"]][-1]
    raw, averaged = evaluate(), evaluate("--ema")
    assert raw["top1"] == float(last["top1"])
    assert averaged["top1"] == float(last["ema_top1"])
    assert averaged["loss"] == pytest.approx(float(last["ema_val_loss"]), rel=1e-5)
    assert (raw["weights"], averaged["weights"]) == ("raw", "ema")
    assert raw["loss"] != averaged["loss"]


def test_best_goes_by_the_averages_when_asked(straight: Path) -> None:
    scores = [float(row["ema_top1"]) for row in rows(straight) if row["ema_top1"]]
    record = read_checkpoint(straight / "best.ckpt").record
    assert record.best_top1 == max(scores)
    assert max(scores) not in [float(row["top1"]) for row in rows(straight) if row["top1"]]
    assert record.best_epoch == scores.index(max(scores)) + 1


def test_no_epochs_leave_no_checkpoint(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = "--epochs 0 --warmup_length 0".split()
    assert train_program.main(words(digits, run, *more)) == 0
    assert not list(run.glob("*.ckpt"))
    assert rows(run) == []
    assert "nothing was recorded" in (run / "report.html").read_text()


def test_a_rate_of_0_changes_no_weight_and_the_hours_are_estimated(
    digits: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = "--batch_size 44 --lr 0 --min_lr 0 --warmup_length 0 --save_every 1".split()
    assert train_program.main(words(digits, run, *SHALLOW, *more)) == 0
    first, last = (read_checkpoint(run / name) for name in ("epoch_001.ckpt", "last.ckpt"))
    assert (last.record.step, int(last.tensors["train.updates"].asnumpy())) == (64, 64)
    weights = [name for name in last.tensors if not name.startswith("train.")]
    assert weights
    for name in weights:
        values = (checkpoint.tensors[name].asnumpy() for checkpoint in (first, last))
        np.testing.assert_array_equal(*values, err_msg=name)
    # The first 10 steps hold the compilation.
    found = re.findall(
        r"estimate after 50 steps: \S+ s each, 0\.0\d hours for the 4 left", log(run)
    )
    assert len(found) == 1, log(run)


def log(run: Path) -> str:
    return (run / "train.log").read_text()


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_evaluation_that_is_not_finite_ends_the_run_before_it_is_saved(
    epoch: int, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rates of 0 up to `epoch`, and of 1e30 in it."""
    run = tmp_path / "run"
    warmup = f"--warmup_lr 0 --warmup_length {epoch - 1} --lr 1e30 --lr_per_epoch true"
    more = f"{warmup} --epochs 3 --max_overflows 999 --save_every 1 --lr_scheduler constant_lr"
    arguments = words(digits, run, *SHALLOW, "--batch_size", "200", *more.split())
    message = failure(capsys, train_program, arguments)
    assert f"epoch {epoch}: the validation loss is not finite" in message
    saved = sorted(path.name for path in run.glob("*.ckpt"))
    if epoch == 1:
        assert saved == []
        assert "nothing is saved" in message
    else:
        assert saved == ["best.ckpt", "epoch_001.ckpt", "last.ckpt"]
        assert f"{run / 'last.ckpt'} holds the last state before" in message
        tensors = read_checkpoint(run / "last.ckpt").tensors
        assert all(np.isfinite(tensor.asnumpy()).all() for tensor in tensors.values())
    assert not np.isfinite(float(rows(run)[-1]["val_loss"]))


@pytest.mark.parametrize("kind", ["hard", pytest.param("soft", marks=pytest.mark.slow)])
def test_a_student_learns_what_its_teacher_says(kind: str, digits: Path, tmp_path: Path) -> None:
    """The teacher calls everything a 3; the labels have no weight."""
    teacher, run = tmp_path / "teacher.ckpt", tmp_path / "run"
    network = create_model("cct_2_3x2_32", num_classes=10, img_size=16)
    weight, bias = network.trainable_params()[-2:]
    weight.set_data(Tensor(np.zeros(weight.shape, np.float32)))
    bias.set_data(Tensor(np.eye(10, dtype=np.float32)[3] * 9))
    ms.save_checkpoint(network, str(teacher))
    more = [
        *("--arch", "deit_tiny_distilled_patch16_224", "--drop_path_rate", "0", "--lr", "0.003"),
        *("--model_args", "{embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}"),
        *("--distillation_type", kind, "--distillation_alpha", "1", "--distillation_tau", "2"),
        *("--teacher_arch", "cct_2_3x2_32", "--teacher_pretrained", str(teacher)),
        *("--save_every", "0"),
    ]
    assert train_program.main(words(digits, run, *more)) == 0
    threes = len(list((digits / "val" / "3").iterdir())) / 360
    assert float(rows(run)[-1]["top1"]) == pytest.approx(100 * threes)
    assert sorted(path.name for path in run.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    # Nothing of the teacher is kept.
    names = read_checkpoint(run / "last.ckpt").tensors
    assert not [name for name in names if name.startswith("teacher") or "tokenizer" in name]


def test_one_class_trains(tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 6), ("val", 3)):
        (tmp_path / "data" / split / "only").mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", (16, 16), (number * 30,) * 3)
            picture.save(tmp_path / "data" / split / "only" / f"{number}.png")
    run = tmp_path / "run"
    more = "--set ImageNet --num_classes 1 --batch_size 2 --mix_up 0 --save_every 0".split()
    assert train_program.main(words(tmp_path / "data", run, *more)) == 0
    assert {float(row["top1"]) for row in rows(run) if row["top1"]} == {100.0}
    assert {float(row["loss"]) for row in rows(run) if row["loss"]} == {0.0}


def test_the_header_the_pictures_and_the_events(straight: Path) -> None:
    log = (straight / "train.log").read_text()
    for part in (
        *("cct_2_3x2_32: 209,419 parameters", "GMACs for an image of 16x16", "CPU (", "MindSpore"),
        *("steps of 92 images (batch_size 46 x accumulation 2), 15 an epoch, 30 in all",),
        *("peak lr", "base_lr 0.002, not scaled by the batch", "amp_level O0"),
    ):
        assert part in log, part
    page = (straight / "report.html").read_text()
    assert "<li>cct_2_3x2_32: 209,419 parameters" in page
    best = max(float(row["ema_top1"]) for row in rows(straight) if row["ema_top1"])
    assert f"<dt>best top-1</dt><dd>{best:.3f} %" in page
    assert "<td>command line</td>" in page


def test_tensorboard_reads_what_metrics_csv_holds(straight: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(straight / "tensorboard")).Reload()
    for column in ("loss", "lr", "grad_norm", "top1", "ema_top1"):
        expected = [(int(r["step"]), float(r[column])) for r in rows(straight) if r[column]]
        found = [(event.step, event.value) for event in events.Scalars(column)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        np.testing.assert_allclose([v for _, v in found], [v for _, v in expected], rtol=1e-6)


def test_dry_run_and_profile(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        assert train_program.main(words(digits, run, *EVERYTHING, *SHALLOW, "--dry_run")) == 0
    assert "it reads back equal; peak memory" in caplog.text
    assert not run.exists()
    assert train_program.main(words(digits, run, *EVERYTHING, *SHALLOW, "--profile", "2")) == 0
    report = json.loads((run / "profile" / "profile.json").read_text())
    for part in ("data wait", "step", "log", "save"):
        assert report[part]["median_s"] > 0
    assert report["framework_trace"] == "written" or "does not work" in report["framework_trace"]
    assert [path.name for path in run.iterdir()] == ["profile"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dry_run", "--epochs", "0", "--warmup_length", "0"], "epochs 0: 0 steps are left"),
        (["--dry_run", "--batch_size", "2000"], "batch_size 2000"),
        (["--dry_run", "--pretrained", "nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_dry_run_ends_with_the_first_problem(
    more: List[str], said: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert said in failure(capsys, train_program, words(digits, run, *more))
    assert not run.exists()
