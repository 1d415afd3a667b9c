"""train.py and eval.py end to end, on the digits that come with the repository."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import mindspore as ms
import numpy as np
import pytest
from digits_run import ROOT, STEPS_PER_EPOCH, failure, rows, start, steps, wait_for_step, words

import eval as eval_program
import train as train_program
from src.args import from_yaml_text
from src.checkpoints.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    assert train_program.main(words(digits, run, "--save_every", "1")) == 0
    return run


def test_a_run_leaves_what_the_readme_says(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    files = {"last.ckpt", "best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt"}
    records = {"metrics.csv", "config.yaml", "train.log", "report.html", "README.md"}
    assert names == {*files, *records}
    losses = [float(row["loss"]) for row in rows(trained) if row["loss"]]
    assert losses[-1] < losses[0] - 0.1


def test_eval_reports_exactly_what_training_logged(
    digits: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = max((row for row in rows(trained) if row["top1"]), key=lambda row: float(row["top1"]))
    pretrained = str(trained / "best.ckpt")
    # A batch that does not divide 360: the last one is partial.
    arguments = words(digits, trained, "--pretrained", pretrained, "--batch_size", "50")
    assert eval_program.main(arguments) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert f"top-1 {float(best['top1']):.3f} %" in line
    assert "images 360" in line
    report = json.loads((trained / "eval_best_digits_val.json").read_text())
    assert (report["images"], report["top1"]) == (360, float(best["top1"]))
    assert report["top5"] == float(best["top5"])
    assert report["loss"] == pytest.approx(float(best["val_loss"]), rel=1e-5)


def test_the_resolved_config_is_beside_and_inside_every_checkpoint(
    digits: Path, trained: Path
) -> None:
    beside = from_yaml_text((trained / "config.yaml").read_text(), "config.yaml")
    assert beside.train.epochs == 2
    assert beside.data.data_url == str(digits)
    for path in trained.glob("*.ckpt"):
        record = read_checkpoint(path).record
        assert record.recipe("checkpoint") == beside
        assert record.versions is not None
        assert record.versions["mindspore"] == ms.__version__


def test_plain_mindspore_reads_the_network(trained: Path) -> None:
    tensors = ms.load_checkpoint(str(trained / "last.ckpt"))
    assert tensors["classifier.fc.weight"].shape == (10, 128)


@pytest.mark.slow  # test_engine.py kills a run twice, once while it saves
def test_a_killed_run_resumes_to_the_same_bits(digits: Path, tmp_path: Path) -> None:
    frequent = ["--log_interval", "1", "--drop_path_rate", "0.3"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert train_program.main(words(digits, straight, *frequent)) == 0

    arguments = words(digits, killed, *frequent, "--resume", "auto")
    process = start(arguments)
    wait_for_step(process, killed, STEPS_PER_EPOCH + 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_checkpoint(killed / "last.ckpt").record.step == STEPS_PER_EPOCH
    finished = start(arguments)
    messages = finished.communicate()[1]
    assert finished.returncode == 0, messages
    assert f"at step {STEPS_PER_EPOCH}" in messages

    ours, theirs = (read_checkpoint(run / "last.ckpt").tensors for run in (killed, straight))
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor.asnumpy(), theirs[name].asnumpy(), err_msg=name)
    assert steps(killed) == steps(straight) == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    for column in ("loss", "lr", "grad_norm", "top1", "val_loss"):
        assert [r[column] for r in rows(killed)] == [r[column] for r in rows(straight)], column


def test_a_second_run_does_not_overwrite_the_first(
    digits: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "last.ckpt").read_bytes()
    message = failure(capsys, train_program, words(digits, trained))
    assert "--resume auto" in message
    assert str(trained) in message
    assert (trained / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--arch", "cct_4_3x2_32"], ["cct_2_3x2_32", "cct_4_3x2_32"]),
        (
            ["--model_args", "{num_layers: 3}"],
            ["12 missing", "classifier.blocks.2", "of another shape"],
        ),
        (["--image_size", "32"], ["positional_emb", "(1, 64, 128)", "(1, 256, 128)"]),
        (["--arch", "cct_2_3x2"], ["did you mean", "cct_2_3x2_32"]),
    ],
)
def test_eval_refuses_what_does_not_fit(
    digits: Path,
    trained: Path,
    more: List[str],
    said: List[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = words(digits, trained, "--pretrained", str(trained / "best.ckpt"), *more)
    message = failure(capsys, eval_program, arguments)
    assert all(word in message for word in said), message


def test_eval_refuses_another_number_of_classes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / split / name / "0.png")
    more = ["--set", "ImageNet", "--num_classes", "2", "--pretrained", str(trained / "last.ckpt")]
    message = failure(capsys, eval_program, words(tmp_path, trained, *more))
    assert "10 classes" in message
    assert "num_classes 2" in message


@pytest.mark.parametrize("kind", ["missing", "truncated", "text", "empty", "folder"])
def test_eval_refuses_a_file_that_is_no_checkpoint(
    kind: str, digits: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ckpt"
    whole = (trained / "last.ckpt").read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "text": b"weights\n" * 50, "empty": b""}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    message = failure(capsys, eval_program, words(digits, trained, "--pretrained", str(path)))
    assert str(path) in message


def test_eval_needs_a_checkpoint(
    digits: Path, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "--pretrained" in failure(capsys, eval_program, words(digits, trained))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--auto_augment", "rand-m9-msdt0.5-inc1"], "did you mean 'mstd'?"),
        (["--amp_level", "O1", "--amp_dtype", "bfloat16"], "bfloat16"),
        (["--resume", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--pretrained", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--num_classes", "11"], "num_classes"),
        (["--batch_size", "2000"], "batch_size"),
    ],
)
def test_train_refuses_before_it_writes(
    more: List[str], said: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert said in failure(capsys, train_program, words(digits, run, *more))
    assert not run.exists()


def test_a_program_says_an_error_in_one_line_and_shows_more_with_debug(tmp_path: Path) -> None:
    # Without a compiler, auto would have something to say as well.
    command = [sys.executable, str(ROOT / "eval.py"), "--pretrained", str(tmp_path / "no.ckpt")]
    command += ["--cpu_kernels", "off"]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert re.fullmatch(r"error: checkpoint '.*no.ckpt': no such file.*\n", plain.stderr)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=tmp_path)
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow  # test_amp.py compares the levels step by step
def test_o2_trains(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "o2"
    assert train_program.main(words(digits, run, "--amp_level", "O2", "--epochs", "2")) == 0
    scales = {float(row["loss_scale"]) for row in rows(run) if row["loss_scale"]}
    assert scales == {65536.0}
    record = read_checkpoint(run / "last.ckpt").record
    assert record.step == 2 * STEPS_PER_EPOCH
