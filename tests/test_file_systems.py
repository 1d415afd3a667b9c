"""What a run does on file systems that lack an operation or fail: docs/troubleshooting.md.

The calls fail inside the C library (`failing_calls.c`, preloaded), as they do on such mounts, so
what MindSpore and Python do themselves is met as well.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
from PIL import Image

from src.runs.lock import LOCK, held
from src.runtime.entry import CommandParser, run_command
from src.storage.remote_files import RemoteFile

ROOT = Path(__file__).resolve().parent.parent

# The row of the documentation -> calls that fail, and their errors. A run goes on.
WITHOUT = {
    "flushing a folder": f"fsync_folder={errno.EINVAL}",
    "flushing a file": f"fsync={errno.ENOSYS} fsync_folder={errno.ENOTSUP}",
    "hard links": f"link={errno.EPERM}",
    "renaming over a file": f"rename_over={errno.EEXIST}",
    "modes": f"chmod={errno.EPERM}",
    "symbolic links, mmap": f"symlink={errno.EPERM} mmap={errno.ENODEV}",
    "all of these": (
        f"fsync={errno.EINVAL} fsync_folder={errno.EINVAL} link={errno.ENOTSUP} "
        f"rename_over={errno.EEXIST} chmod={errno.EPERM} symlink={errno.EPERM} mmap={errno.ENODEV}"
    ),
}
# A run ends, and says what helps; the last checkpoint is whole.
BROKEN = {
    "a full disk": (f"write={errno.ENOSPC}", "make room"),
    "no file so large": (f"write={errno.EFBIG}", "raise `ulimit -f`, or move the folder"),
    "a quota": (f"write={errno.EDQUOT}", "your quota is used up: make room, or ask for more"),
    "read-only now": (f"open_write={errno.EROFS}", "the file system has failed"),
    "a failing disk": (f"fsync={errno.EIO}", "the file system has failed"),
    "stale handles": (f"open_write={errno.ESTALE}", "the file system has failed"),
    "no rights": (f"open_write={errno.EACCES}", "give yourself the right to write there"),
}

SAVES = """
import json, os, sys
from pathlib import Path
from mindspore import Parameter, Tensor
import numpy as np
from src.checkpoints.checkpoint import read_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.runs.folder import CheckpointFolder
from src.runs.lock import held

def row(folder, plan, once, first=2):
    def save(epoch):
        parameters = [Parameter(Tensor(np.full(9, epoch, np.float32)), name="weight")]
        checkpoints.save(parameters, SavedRecord(step=epoch), epoch=epoch, is_best=epoch == 2)
    checkpoints = CheckpointFolder(folder, save_every=1, keep_max=1)
    said = "-"
    with held(folder):
        try:
            for epoch in (1, 2, 3):
                if epoch == first:
                    os.environ.update({"FAIL": plan, **({"FAIL_ONCE": "1"} if once else {})})
                save(epoch)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.environ["FAIL"] = ""
    left = {p.name: read_checkpoint(p).record.step for p in sorted(folder.glob("*.ckpt"))}
    hidden = [p.name for p in folder.glob(".*") if p.name != ".run.lock"]
    return {"said": said, "left": left, "hidden": hidden}

root, rows = Path(sys.argv[1]), json.loads(sys.argv[2])
outcomes = {name: row(root / name.replace(" ", "_"), *plan) for name, plan in rows.items()}
(root / "outcomes.json").write_text(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, on Linux")
    library = tmp_path_factory.mktemp("preloaded") / "failing_calls.so"
    source = ROOT / "tests" / "failing_calls.c"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([compiler, *options, "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def outcomes(failing_calls: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    """Row -> what three saves said and left, with the calls failing from the second on."""
    root = tmp_path_factory.mktemp("mount")
    rows: Dict[str, Tuple[Any, ...]] = {name: (plan, False) for name, plan in WITHOUT.items()}
    rows.update({name: (plan, False) for name, (plan, _) in BROKEN.items()})
    rows.update({f"{name} at first": (plan, False, 1) for name, (plan, _) in BROKEN.items()})
    rows["a stale handle, once"] = (f"open_write={errno.ESTALE}", True)  # the last: it stays set
    environment = {**os.environ, "LD_PRELOAD": str(failing_calls), "FAIL_UNDER": str(root)}
    command = [sys.executable, "-c", SAVES, str(root), json.dumps(rows)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: Dict[str, Any] = json.loads((root / "outcomes.json").read_text())
    return found


@pytest.mark.parametrize("row", [*WITHOUT, "a stale handle, once"])
def test_without_it_a_run_goes_on(row: str, outcomes: Dict[str, Any]) -> None:
    saved = {"best.ckpt": 2, "epoch_003.ckpt": 3, "last.ckpt": 3}
    assert outcomes[row] == {"said": "-", "left": saved, "hidden": []}


@pytest.mark.parametrize("row", BROKEN)
def test_what_fails_ends_the_run_with_the_last_checkpoint_whole(
    row: str, outcomes: Dict[str, Any]
) -> None:
    said = outcomes[row]["said"]
    assert said.startswith("TrainingFailed: step 2: ")
    assert "last.ckpt is whole: " in said
    assert f"{BROKEN[row][1]}" in said
    assert said.endswith("then continue with --resume auto")
    assert outcomes[row]["left"] == {"epoch_001.ckpt": 1, "last.ckpt": 1}
    assert outcomes[row]["hidden"] == []


@pytest.mark.parametrize("row", BROKEN)
def test_what_fails_at_the_first_save_speaks_of_no_checkpoint(
    row: str, outcomes: Dict[str, Any]
) -> None:
    outcome = outcomes[f"{row} at first"]
    assert outcome["said"].startswith("TrainingFailed: step 1: ")
    assert "no checkpoint has been saved yet: " in outcome["said"]
    assert "whole" not in outcome["said"]
    assert BROKEN[row][1] in outcome["said"]
    assert outcome["said"].endswith(", then start again")
    assert (outcome["left"], outcome["hidden"]) == ({}, [])


@pytest.mark.parametrize("temporary", ["elsewhere", "mount"])
def test_packing_where_nothing_can_be_flushed(
    temporary: str, failing_calls: Path, tmp_path: Path
) -> None:
    """SQLite, which writes MindRecord's index, ends there with `disk I/O error`."""
    for name in ("data/train/cat", "data/val/cat", "elsewhere", "mount"):
        (tmp_path / name).mkdir(parents=True)
    for split in ("train", "val"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / "data" / split / "cat" / "1.png")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(failing_calls),
        "FAIL_UNDER": str(tmp_path / "mount"),
        "FAIL": f"fsync={errno.EINVAL} fsync_folder={errno.EINVAL} rename_over={errno.EEXIST}",
        "TMPDIR": str(tmp_path / temporary),
    }
    out = tmp_path / "mount" / "packed"
    command = [sys.executable, str(ROOT / "scripts" / "pack_dataset.py")]
    command += ["--data_url", str(tmp_path / "data"), "--output", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if temporary == "mount":
        assert done.returncode == 2
        assert "set TMPDIR to a folder of a disk" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    shard = next(out.rglob("*.mindrecord"))
    manifest = json.loads((shard.parent / "manifest.json").read_text())
    assert manifest["shards"][0]["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
    assert not [*out.rglob("unfinished"), *(tmp_path / "elsewhere").glob("pack_*")]


def test_times_of_two_seconds_are_enough(tmp_path: Path) -> None:
    """As FAT keeps them: of a staged copy, and of the lock."""
    path = tmp_path / "a"
    path.write_bytes(b"12")
    remote = RemoteFile(2, 1_700_000_001.75)
    os.utime(path, (0, 1_700_000_000.0))
    assert remote.is_at(path)
    assert not remote._replace(modified=1_700_000_002.25).is_at(path)
    assert not remote._replace(modified=1_700_000_001.0).is_at(path)
    os.utime(path, (0, 1_700_000_001.25))
    assert not remote.is_at(path)
    with held(tmp_path) as lock:
        os.utime(tmp_path / LOCK, (0, 1_700_000_000.0))
        assert lock.confirm()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_the_disk_does_not_take_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MindSpore's own, in the folder for temporary files."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    handler = logging.FileHandler("/dev/full")

    def work(_: object) -> None:
        logging.getLogger("framework").warning("deprecated")

    logging.getLogger("framework").addHandler(handler)
    try:
        assert run_command(work, CommandParser("test"), []) == 0
    finally:
        logging.getLogger("framework").removeHandler(handler)
        handler.stream = None
    assert "Traceback" not in capsys.readouterr().err


def test_the_documentation_lists_them_all() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert {*WITHOUT, *BROKEN} - {"all of these"} <= rows


def test_no_two_names_of_a_run_differ_in_capitals_only(outcomes: Dict[str, Any]) -> None:
    names = {name for outcome in outcomes.values() for name in outcome["left"]}
    names |= {"config.yaml", "metrics.csv", "report.html", "README.md", "train.log", LOCK}
    assert len({name.lower() for name in names}) == len(names)
