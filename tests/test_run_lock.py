"""One run at a time in a folder: on this host, from another host, after a kill, by force."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict

import digits_run
import pytest

from src.checkpoints.saved_record import SavedRecord
from src.errors import TrainingFailed, UserError
from src.runs.folder import CheckpointFolder
from src.runs.lock import LOCK, held
from src.runtime import owner
from src.runtime.owner import OwnerFile

HOLD = """
import sys, time
from pathlib import Path
from src.runtime.owner import OwnerFile
assert OwnerFile(Path(sys.argv[1])).take()
print("held", flush=True)
time.sleep(600)
"""


def another_process(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=digits_run.ROOT, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def from_elsewhere(path: Path, **changes: Any) -> None:
    """Makes the file that of a process on another host."""
    content: Dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "place": "elsewhere", **changes}))


def test_a_living_process_of_this_host_is_named_at_once(tmp_path: Path) -> None:
    process = another_process(tmp_path / LOCK)
    try:
        start = time.monotonic()
        with pytest.raises(UserError) as caught, held(tmp_path):
            pass
        assert time.monotonic() - start < 1
        message = str(caught.value)
        assert f"process {process.pid} of " in message
        assert f" on {os.uname().nodename}, since 20" in message
        assert "--take_over" in message
        # Stopped is not dead: it would go on some time.
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="another run writes there"), held(tmp_path):
            pass
    finally:
        process.kill()
    # Killed, and not waited for yet: a zombie writes nothing.
    start = time.monotonic()
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert time.monotonic() - start < 5
    process.communicate()
    assert os.listdir(tmp_path) == []


def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    process = another_process(tmp_path / LOCK)
    try:
        content = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps({**content, "started": content["started"] - 1}))
        with held(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()


def test_on_another_host_only_signs_of_life_count(tmp_path: Path) -> None:
    """Whatever the clocks of the hosts say: the times compared are both the file system's."""
    path = tmp_path / LOCK
    dead = OwnerFile(path)
    assert dead.take()
    dead._is_over.set()  # the process is gone, its file stays
    from_elsewhere(path, host="node7", user="anna", job="4711")
    start = time.monotonic()
    with held(tmp_path, owner_s=2.0):
        assert 1 < time.monotonic() - start < 10

    path.write_text("{}")
    from_elsewhere(path, **vars(owner._this_process("4711")) | {"place": "elsewhere"})
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.5):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"\(job 4711\), since"), held(tmp_path, owner_s=4.0):
            pass
    finally:
        is_over.set()
        thread.join()


def test_without_proc_only_signs_of_life_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_start_of", lambda _: -1)
    first = OwnerFile(tmp_path / LOCK)
    assert first.take()
    first._is_over.set()
    assert not OwnerFile(first.path).take()
    os.utime(first.path, (0, 0))
    second = OwnerFile(first.path)
    assert second.take()
    second.release()


def test_an_owner_shows_that_it_lives(tmp_path: Path) -> None:
    file = OwnerFile(tmp_path / LOCK, owner_s=0.4)
    assert file.take()
    os.utime(file.path, (0, 0))
    deadline = time.monotonic() + 10
    while file.sign_of_life() < time.time() - 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Whoever tidies hidden files away does not end the run, nor open its folder to another one.
    file.path.unlink()
    assert file.confirm()
    assert not OwnerFile(file.path).take()
    file.release()
    assert os.listdir(tmp_path) == []


def test_who_is_taken_over_saves_no_more(tmp_path: Path) -> None:
    with held(tmp_path) as first:
        folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
        folder.is_ours = first.confirm
        folder.save([], SavedRecord(step=1), epoch=1, is_best=False)
        with held(tmp_path, take_over=True) as second:
            assert second.confirm()
            with pytest.raises(TrainingFailed, match="step 2: another run has taken over"):
                folder.save([], SavedRecord(step=2), epoch=2, is_best=False)
            assert not (tmp_path / "epoch_002.ckpt").exists()
        assert not (tmp_path / LOCK).exists()


def test_where_creation_is_not_exclusive_one_of_two_finds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object storage behind FUSE: both create the file, and the second one's stays."""
    first, second = OwnerFile(tmp_path / LOCK), OwnerFile(tmp_path / LOCK)
    assert first.take()
    monkeypatch.setattr(second, "_remove_dead", lambda by_force: (tmp_path / LOCK).unlink())
    assert second.take()
    assert second.confirm()
    assert not first.confirm()
    first.release()
    assert second.confirm()
    second.release()


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path / "outputs" / "run"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), held(tmp_path / "file" / "run"):
        pass


def test_the_second_run_is_refused_and_a_killed_one_continues_at_once(tmp_path: Path) -> None:
    digits, run = tmp_path / "digits", tmp_path / "run"
    often = "--epochs 40 --save_steps 2 --eval_every 0 --log_interval 1".split()
    often += ["--model_args", "{num_layers: 1, n_conv_layers: 1}"]
    first = digits_run.start(digits_run.words(digits, run, *often))
    digits_run.wait_for_step(first, run, 4)
    second = digits_run.start(digits_run.words(digits, run, *often, "--resume", "auto"))
    errors = second.communicate(timeout=100)[1]
    assert second.returncode == 2, errors
    assert f"another run writes there: process {first.pid} of" in errors
    before = digits_run.steps(run)[-1]
    first.kill()
    first.communicate()
    assert (run / LOCK).exists()
    third = digits_run.start(digits_run.words(digits, run, *often, "--resume", "auto"))
    digits_run.wait_for_step(third, run, before + 2)
    third.terminate()
    assert third.wait(timeout=100) == 143
    assert not (run / LOCK).exists()
