"""A run whose checkpoints are damaged: what it goes on from, and what each program says."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from digits_run import ROOT, failure, rows, words
from distributed_run import GLOBAL_BATCH, STEPS, environment, ranks_command, write_images
from distributed_run import words as distributed_words
from test_checkpoint import parameters

import eval as eval_program
import train as train_program
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.checkpoints.tensor_file import DamagedCheckpoint, is_whole
from src.errors import UserError
from src.runs.folder import CheckpointFolder
from src.storage.uploads import RunMirror

sys.path.insert(0, str(ROOT / "scripts"))

import average_checkpoints


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES: Dict[str, Callable[[bytes], bytes]] = {
    "one bit of a weight": lambda content: flip(content, len(content) - 90),
    "one bit of the record": lambda content: flip(content, 60),
    "one bit of the digest": lambda content: flip(content, len(content) - 1),
    "its second half": lambda content: content[: len(content) // 2],
    "zeros at its end": lambda content: content[:-40] + bytes(40),
    "nothing in it": lambda content: b"",
    "something else": lambda content: b"<html>" * 100,
}


def damage(path: Path, how: str = "one bit of a weight") -> None:
    """Replaces the file, and no other name of it."""
    content = DAMAGES[how](path.read_bytes())
    path.unlink()
    path.write_bytes(content)


def a_run(folder: Path, epochs: int = 3) -> CheckpointFolder:
    """last.ckpt, epoch_001 to 003 of four steps each, and best.ckpt of the first."""
    folder.mkdir(exist_ok=True)
    checkpoints = CheckpointFolder(folder, save_every=1, keep_max=5)
    for epoch in range(1, epochs + 1):
        record = SavedRecord(step=4 * epoch, steps_per_epoch=4)
        checkpoints.save(parameters(epoch), record, epoch=epoch, is_best=epoch == 1)
    return checkpoints


@pytest.mark.parametrize("how", DAMAGES)
def test_auto_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    checkpoints = a_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,epoch\n10,2.5\n13,3.25\n")
    for name in ("last.ckpt", "epoch_003.ckpt"):
        damage(tmp_path / name, how)
    # A user's own, and further: no file of this run.
    save_checkpoint(tmp_path / "mine.ckpt", parameters(9), {"step": 99, "names": []})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    found = checkpoints.find_resumed("auto")
    assert found is not None
    assert (found.path, found.record.step) == (tmp_path / "epoch_002.ckpt", 8)
    (said,) = [record.getMessage() for record in caplog.records if "damaged" in record.message]
    assert said.startswith(f"resume auto: {tmp_path}/last.ckpt is damaged (")
    assert (
        "going on from epoch_002.ckpt, the newest whole checkpoint of this run, of step 8" in said
    )
    assert said.endswith(": 5 steps (1.25 epochs) before the last row of metrics.csv")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_next_save_mends_the_folder_and_prunes_no_whole_one(tmp_path: Path) -> None:
    a_run(tmp_path)
    for name in ("last.ckpt", "epoch_003.ckpt"):
        damage(tmp_path / name, "something else")
    checkpoints = CheckpointFolder(tmp_path, save_every=1, keep_max=2)
    checkpoints.create(checkpoints.find_resumed("auto"))
    assert not is_whole(tmp_path / "last.ckpt")
    checkpoints.save(parameters(3), SavedRecord(step=12), epoch=3, is_best=False)
    assert is_whole(tmp_path / "last.ckpt")
    assert is_whole(tmp_path / "epoch_002.ckpt")
    found = checkpoints.find_resumed("auto")
    assert found is not None
    assert found.path.name == "last.ckpt"


def test_without_a_whole_one_auto_is_refused(tmp_path: Path) -> None:
    checkpoints = a_run(tmp_path, epochs=1)
    for path in tmp_path.glob("*.ckpt"):
        damage(path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        DamagedCheckpoint, match=r"last\.ckpt': damaged .*; copy it again; no other checkpoint of a"
    ):
        checkpoints.find_resumed("auto")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_refused_and_another_named(tmp_path: Path, how: str) -> None:
    checkpoints = a_run(tmp_path)
    damage(tmp_path / "last.ckpt", how)
    damage(tmp_path / "epoch_003.ckpt")
    with pytest.raises(UserError) as caught:
        checkpoints.find_resumed(str(tmp_path / "last.ckpt"))
    named = tmp_path / "epoch_002.ckpt"
    assert f"'{tmp_path}/last.ckpt': damaged (" in str(caught.value)
    assert str(caught.value).endswith(f"or give {named}, the newest whole one beside it (step 8)")
    assert "\n" not in str(caught.value)
    found = checkpoints.find_resumed(str(named))
    assert found is not None
    assert found.record.step == 8


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (eval_program, ["--pretrained", "{}"]),
        (train_program, ["--set", "Digits", "--data_url", "digits", "--pretrained", "{}"]),
        (average_checkpoints, ["{}", "run/best.ckpt", "--output", "mean.ckpt"]),
        (average_checkpoints, ["run", "--output", "mean.ckpt"]),
    ],
)
def test_programs_refuse_it_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: object,
    words: List[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(Path("run"))
    damage(Path("run/epoch_002.ckpt"), "something else")
    message = failure(capsys, program, [word.format("run/epoch_002.ckpt") for word in words])
    assert message.startswith("error: checkpoint 'run/epoch_002.ckpt': damaged (")
    assert not Path("mean.ckpt").exists()


def test_a_url_gets_no_damaged_file_and_gives_a_whole_one(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    a_run(tmp_path / "here", epochs=1)

    def mirrored() -> RunMirror:
        return RunMirror(tmp_path / "here", "memory://damaged/run", is_whole=is_whole)

    mirrored().send()
    whole = (tmp_path / "here/last.ckpt").read_bytes()
    damage(tmp_path / "here/last.ckpt", "its second half")
    mirror = mirrored()
    mirror.send()
    assert list(mirror.failed) == ["last.ckpt"]
    assert "damaged" in mirror.failed["last.ckpt"]
    mirrored().bring_back()
    assert (tmp_path / "here/last.ckpt").read_bytes() == whole


@pytest.mark.slow
def test_a_run_that_fell_back_ends_with_the_same_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    arguments = words(tmp_path / "digits", run, "--save_every", "1")
    assert train_program.main(arguments) == 0
    shutil.copytree(run, tmp_path / "straight")
    damage(run / "last.ckpt")
    damage(run / "epoch_002.ckpt")
    damage(run / "best.ckpt")
    with caplog.at_level(logging.INFO):
        assert train_program.main([*arguments, "--resume", "auto"]) == 0
    assert "going on from epoch_001.ckpt" in caplog.text
    tensors = read_checkpoint(tmp_path / "straight/last.ckpt").tensors
    for name, tensor in read_checkpoint(run / "last.ckpt").tensors.items():
        assert tensor.asnumpy().tobytes() == tensors[name].asnumpy().tobytes(), name
    losses = [[row["loss"] for row in rows(path)] for path in (run, tmp_path / "straight")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_all_ranks_fall_back_to_the_same_one(tmp_path: Path) -> None:
    images, run = write_images(tmp_path / "images"), tmp_path / "run"
    more = ("--epochs", "2", "--save_every", "1", "--resume", "auto")
    arguments = distributed_words(images, run, GLOBAL_BATCH // 2, *more)
    command, variables = ranks_command(2, tmp_path, arguments), environment(tmp_path)
    subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, check=True)
    for name in ("last.ckpt", "epoch_002.ckpt", "best.ckpt"):
        damage(run / name)
    shutil.rmtree(tmp_path / "logs")
    subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, check=True)
    for rank in range(2):
        log = (tmp_path / "logs" / f"rank_{rank}.log").read_text()
        assert "damaged" in log
        assert f"of step {STEPS}: {STEPS} steps (1 epochs) before the last row" in log
    assert read_checkpoint(run / "last.ckpt").record.step == 2 * STEPS
