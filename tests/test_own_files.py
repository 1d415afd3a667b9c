"""A user's own files in a run's folder: they stop nothing, and nothing of them is lost."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Dict

import pytest
from test_checkpoint import parameters

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import average_checkpoints

from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.errors import UserError
from src.runs.folder import CheckpointFolder
from src.runs.own_files import epoch_files, put_aside_metrics
from src.runs.records import Records, read_records

# Copies, backups and editors' leavings; a copy under a name that the run will give is among them.
COPIES = (
    "epoch_001_good.ckpt",
    "epoch_1 (copy).ckpt",
    "epoch_1.ckpt",
    "epoch_0003.ckpt",
    "epoch_٠٠١.ckpt",  # \d and int() know other digits too
    "epoch_best.ckpt",
    "epoch_003.ckpt",
    "epoch_001.ckpt~",
    ".epoch_001.ckpt.swp",
    ".last.backup.ckpt",
    ".last.ckpt.before.ckpt",
    "last.ckpt.bak",
    ".DS_Store",
)
FOLDERS = ("epoch_004.ckpt", "epoch_005", ".last.0123abcd.tmp.ckpt", "epoch_x.ckpt")


def add_files(run: Path) -> Dict[str, bytes]:
    """Puts the user's files into the folder; name -> content."""
    for name in COPIES:
        shutil.copy(run / "epoch_001.ckpt", run / name)
    for name in FOLDERS:
        (run / name).mkdir()
        (run / name / "notes.txt").write_text("the user's")
    return {name: (run / name).read_bytes() for name in COPIES}


def save(folder: CheckpointFolder, epoch: int, *, is_best: bool = False) -> None:
    folder.save(parameters(epoch), SavedRecord(step=epoch), epoch=epoch, is_best=is_best)


def test_they_stay_as_they_are_through_saves_and_a_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=2)
    save(folder, 1, is_best=True)
    theirs = add_files(tmp_path)
    (tmp_path / ".best.0123abcd.tmp.ckpt").write_bytes(b"of a killed run")
    with caplog.at_level(logging.WARNING):
        for epoch in (2, 3, 4):
            save(folder, epoch)
    assert (
        caplog.text.count("epoch_003.ckpt: damaged or not written by this run under that name") == 1
    )
    resumed = folder.find_resumed("auto")
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=2)
    folder.create(resumed)
    save(folder, 5, is_best=True)
    save(folder, 6)
    assert {name: (tmp_path / name).read_bytes() for name in COPIES} == theirs
    assert all((tmp_path / name / "notes.txt").exists() for name in FOLDERS)
    assert [path.name for path in epoch_files(tmp_path)] == ["epoch_005.ckpt", "epoch_006.ckpt"]
    assert not (tmp_path / ".best.0123abcd.tmp.ckpt").exists()
    assert read_checkpoint(tmp_path / "best.ckpt").record.step == 5


def test_what_replaces_a_file_of_the_run_meanwhile_is_the_users(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
    save(folder, 1, is_best=True)
    (tmp_path / "best.ckpt").unlink()
    save_checkpoint(tmp_path / "best.ckpt", parameters(9), {"source": "the user"})
    save_checkpoint(tmp_path / "epoch_001.ckpt", parameters(9), {"source": "the user"})
    save(folder, 2, is_best=True)
    for name in ("best.ckpt", "epoch_001.ckpt"):
        assert read_checkpoint(tmp_path / name).record.source == "the user"
    (tmp_path / "best.ckpt").unlink()
    shutil.copy(tmp_path / "last.ckpt", tmp_path / "kept.ckpt")  # its record lists best.ckpt
    (tmp_path / "best.ckpt").symlink_to("kept.ckpt")
    save(folder, 3, is_best=True)
    assert (tmp_path / "best.ckpt").is_symlink()


def test_where_capitals_do_not_count_a_copy_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `Best.ckpt` is found as best.ckpt, and listed as it is called."""
    folder = CheckpointFolder(tmp_path, save_every=0, keep_max=1)
    save(folder, 1, is_best=True)
    names = [name.replace("best", "Best") for name in os.listdir(tmp_path)]
    monkeypatch.setattr("src.runs.own_files.os.listdir", lambda _: names)
    save(folder, 2, is_best=True)
    assert read_checkpoint(tmp_path / "best.ckpt").record.step == 1


def test_a_copied_folder_is_the_runs_still(tmp_path: Path) -> None:
    """As one brought back from a storage: other times, other inodes."""
    folder = CheckpointFolder(tmp_path / "a", save_every=1, keep_max=1)
    folder.create()
    save(folder, 1, is_best=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    save(CheckpointFolder(tmp_path / "b", save_every=1, keep_max=1), 2, is_best=True)
    assert sorted(os.listdir(tmp_path / "b")) == ["best.ckpt", "epoch_002.ckpt", "last.ckpt"]
    assert read_checkpoint(tmp_path / "b" / "best.ckpt").record.step == 2


def test_a_resumed_run_leaves_no_draft(tmp_path: Path) -> None:
    """Its checkpoint has all its names already: renaming a link onto another does nothing."""
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=2)
    folder.create()
    save(folder, 1, is_best=True)
    names = sorted(os.listdir(tmp_path))
    folder.create(folder.find_resumed("auto"))
    assert sorted(os.listdir(tmp_path)) == names


def test_only_the_runs_epochs_are_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CheckpointFolder(tmp_path / "run", save_every=1, keep_max=3)
    folder.create()
    for epoch in (1, 2):
        save(folder, epoch)
    add_files(tmp_path / "run")
    output = tmp_path / "mean.ckpt"
    assert average_checkpoints.main([str(tmp_path / "run"), "--output", str(output)]) == 0
    assert "mean of 2 checkpoints" in capsys.readouterr().out
    assert read_checkpoint(output).tensors["fc.bias"].asnumpy().tolist() == [1.5, 1.5]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "report.html", "best.ckpt"])
def test_a_new_run_writes_over_nothing_of_the_users(name: str, tmp_path: Path) -> None:
    """As a recipe beside which its run is to lie: --config work/config.yaml --train_url work."""
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
    (tmp_path / name).write_text("the user's\n")
    with pytest.raises(UserError, match=rf"would write over {name}, which is none of a run's"):
        folder.find_resumed("auto")
    (tmp_path / name).unlink()
    assert folder.find_resumed("auto") is None


def test_a_run_killed_before_its_first_save_starts_again(tmp_path: Path) -> None:
    Records(tmp_path / "metrics.csv", first_step=0).close()
    (tmp_path / "config.yaml").touch()
    assert CheckpointFolder(tmp_path, save_every=1, keep_max=1).find_resumed(None) is None


def test_a_run_is_not_written_over_from_another_folder(tmp_path: Path) -> None:
    here, there = (
        CheckpointFolder(tmp_path / name, save_every=1, keep_max=2) for name in ("here", "there")
    )
    for folder in (here, there):
        folder.create()
        save(folder, 1)
        save(folder, 2)
    with pytest.raises(UserError, match=r"here' holds a run already \(last.ckpt\)"):
        here.find_resumed(str(tmp_path / "there" / "epoch_001.ckpt"))
    back = here.find_resumed(f"{tmp_path}/there/../here/epoch_001.ckpt")
    assert back is not None
    assert back.record.step == 1


@pytest.mark.parametrize(
    "text",
    [
        "step;epoch;loss\n1;0,5;0,25\n",  # a spreadsheet, in Europe
        "step,epoch,loss,my notes\n1,0.5,0.25,good\n",
        "step,epoch,loss\n1.0,0.5,0.25\n",
        "step,epoch\n1,0.5,7,8\n",
        "",
    ],
)
def test_metrics_that_cannot_be_continued_are_kept_aside(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "metrics_2.csv").write_text("an earlier one")
    put_aside_metrics(tmp_path)
    Records(path, first_step=5).close()
    assert read_records(path) == []
    assert (tmp_path / "metrics_3.csv").read_text(encoding="utf-8") == text
    assert "now metrics_3.csv" in caplog.text
    put_aside_metrics(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["metrics.csv", "metrics_2.csv", "metrics_3.csv"]
