"""metrics.csv, train.log and the estimate, where things go wrong."""

from __future__ import annotations

import errno
import logging
import os
import resource
from pathlib import Path

import pytest

from src.checkpoints.checkpoint import read_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.errors import TrainingFailed
from src.runs.folder import CheckpointFolder
from src.runs.progress import Pace
from src.runs.records import Records, read_records
from src.runtime.log import log_to_file


def test_a_torn_last_line_and_later_steps_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    records = Records(path, first_step=0)
    for step in (1, 2, 3):
        records.write(step=step, epoch=0.5, loss=0.25)
    records.write(step=3, epoch=1, ema_top5=98.25)
    records.close()
    path.write_text(path.read_text()[:-3])
    assert [row["step"] for row in read_records(path)] == ["1", "2", "3"]
    Records(path, first_step=2).close()
    assert [row["step"] for row in read_records(path)] == ["1", "2"]
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_limit_of_the_shell_is_named(tmp_path: Path) -> None:
    """POSIX, write(): EFBIG beyond RLIMIT_FSIZE, and a signal that Python ignores."""
    path = tmp_path / "metrics.csv"
    records = Records(path, first_step=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, before[1]))
    try:
        with pytest.raises(TrainingFailed, match=r"File too large\); no .* yet: raise `ulimit -f`"):
            records.write(step=1, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    records.close()
    assert [row["step"] for row in read_records(path)] == ["1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_full_disk_ends_the_records_with_one_line(
    has_checkpoint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "no checkpoint has been saved yet: make room, then start again"
    if has_checkpoint:
        (tmp_path / "last.ckpt").touch()
        said = "last.ckpt is whole: make room, then continue with --resume auto"
    records = Records(tmp_path / "metrics.csv", first_step=0)
    records._file.close()
    records._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    due = rf"step 4: /dev/full cannot be written \(No space left on device\); {said}"
    with pytest.raises(TrainingFailed, match=due):
        records.write(step=4, loss=1.0)
    records.close()

    log = tmp_path / "train.log"
    log.symlink_to("/dev/full")
    log_to_file(log)
    logging.getLogger("test").warning("one")
    logging.getLogger("test").warning("two")
    assert not [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    assert "Traceback" not in capsys.readouterr().err


class Locked:
    """A file that takes half a row, as one that another program has locked."""

    name = "metrics.csv"

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: bytes) -> int:
        with self.path.open("ab") as file:
            file.write(data[:5])
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def close(self) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_rows_wait_while_a_spreadsheet_has_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    records = Records(path, first_step=0)
    records.write(step=1, loss=1.0)
    records._file.close()
    records._file = Locked(path)  # type: ignore[assignment]
    records.write(step=2, loss=2.0)
    assert [row["step"] for row in read_records(path)] == ["1"]
    assert caplog.text.count("Permission denied; its rows wait") == 1
    records.write(step=3, loss=3.0)
    assert [row["step"] for row in read_records(path)] == ["1", "2", "3"]
    records.write(step=4, loss=4.0)
    records.close()
    assert [(r["step"], r["loss"]) for r in read_records(path)] == [
        (str(step), f"{step}.0") for step in (1, 2, 3, 4)
    ]


def test_rows_wait_no_longer_than_the_file_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    records = Records(path, first_step=0)
    records._file.close()
    records._file = Locked(path)  # type: ignore[assignment]
    records.write(step=1, loss=1.0)
    path.write_text("of another run\n")
    records.write(step=2, loss=2.0)
    records.close()
    assert path.read_text() == "of another run\n"


def test_the_estimate_comes_once_and_leaves_the_first_interval_out() -> None:
    pace = Pace(50)
    assert pace.add(10, 99.0, left=1000) is None
    assert [pace.add(10, 2.0, left=1000) for _ in range(4)] == [None] * 4
    message = pace.add(10, 4.0, left=3600)
    assert message == (
        "estimate after 50 steps: 2.4 s each, 2.40 hours for the 3600 left, without evaluations"
    )
    assert pace.add(100, 2.0, left=10) is None


def test_names_a_killed_process_did_not_give_are_given_on_resuming(tmp_path: Path) -> None:
    """Killed after the rename of last.ckpt, before the links of best.ckpt and the epoch."""
    from test_checkpoint import parameters

    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
    folder.save(parameters(1), SavedRecord(step=5), epoch=1, is_best=True)
    first = (tmp_path / "epoch_001.ckpt").read_bytes()
    folder.save(parameters(2), SavedRecord(step=10), epoch=2, is_best=True)
    (tmp_path / "epoch_001.ckpt").write_bytes(first)
    (tmp_path / "epoch_002.ckpt").unlink()
    (tmp_path / "best.ckpt").unlink()  # a link to last.ckpt: written through, it would be cut too
    (tmp_path / "best.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:10])
    resumed = folder.find_resumed("auto")
    CheckpointFolder(tmp_path, save_every=1, keep_max=1).create(resumed)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.ckpt", "epoch_002.ckpt", "last.ckpt"]
    assert read_checkpoint(tmp_path / "best.ckpt").record.step == 10
