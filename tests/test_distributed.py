"""Several ranks train as one does with the same global batch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
from digits_run import wait_for_step
from distributed_run import (
    GLOBAL_BATCH,
    STEPS,
    VAL_IMAGES,
    environment,
    losses,
    ranks_command,
    rows,
    words,
    write_images,
)
from test_launch import environ_of, living

import train as train_program
from src.args import Config, parse_args, to_yaml
from src.checkpoints.checkpoint import Checkpoint, read_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.errors import UserError
from src.models.layers.random_draws import SeededUniform
from src.runtime.collectives import StopVote, check_equal_over_ranks, gather_from_ranks
from src.runtime.ranks import ALONE, RankEnvironment, World, read_rank_environment
from src.trainer.resuming import check_same_recipe

# Python reads this file when it starts. What each rank holds, and which cells it has compiled a
# graph of, is written when its trainer concludes.
DUMP_STATE = """
import os
from importlib.machinery import SourceFileLoader

real = SourceFileLoader.exec_module

def exec_module(self, module):
    real(self, module)
    if module.__name__ == "src.trainer.loop":
        from mindspore.nn.cell import _cell_graph_executor
        executor = type(_cell_graph_executor)
        compile_graph, compiled = executor.compile, []
        def count(self, cell, *inputs, **options):
            phase, is_new = compile_graph(self, cell, *inputs, **options)
            compiled.extend([type(cell).__name__] * is_new)
            return phase, is_new
        executor.compile = count
        conclude = module.Trainer.conclude
        def dump(self):
            held = {p.name: p.asnumpy() for p in self.train_step.saved_parameters()}
            path = f"{os.environ['DUMP_TO']}/rank_{self.world.rank}"
            module.np.savez(f"{path}.npz", **held)
            with open(f"{path}.compiled", "w") as file:
                file.write(" ".join(sorted(compiled)))
            conclude(self)
        module.Trainer.conclude = dump

SourceFileLoader.exec_module = exec_module
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def one_rank(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    assert train_program.main(words(images, run, GLOBAL_BATCH)) == 0
    return run


def train_on(num_ranks: int, images: Path, folder: Path, *more: str) -> Path:
    """The run's folder; each rank leaves its tensors in rank_N.npz, and rank_N.compiled."""
    run = folder / "run"
    arguments = words(images, run, GLOBAL_BATCH // num_ranks, *more)
    (folder / "sitecustomize.py").write_text(DUMP_STATE)
    environ = environment(folder, PYTHONPATH=str(folder), DUMP_TO=str(folder))
    command = ranks_command(num_ranks, folder, arguments)
    ended = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return run


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_equal_one_rank_with_the_same_global_batch(
    num_ranks: int, images: Path, one_rank: Path, tmp_path: Path
) -> None:
    run = train_on(num_ranks, images, tmp_path)
    assert len(losses(run)) == STEPS
    np.testing.assert_allclose(losses(run), losses(one_rank), rtol=0, atol=1e-5)
    for column in ("val_loss", "top1", "top5"):
        ours, theirs = (float(rows(folder)[-1][column]) for folder in (run, one_rank))
        assert ours == pytest.approx(theirs, abs=1e-4 if column == "val_loss" else 1e-9)
    assert f"({VAL_IMAGES} images)" in (run / "train.log").read_text()

    saved, alone = (read_checkpoint(folder / "last.ckpt").tensors for folder in (run, one_rank))
    assert list(saved) == list(alone)
    weights = {name: tensor.asnumpy() for name, tensor in saved.items()}
    for name, tensor in alone.items():
        np.testing.assert_allclose(weights[name], tensor.asnumpy(), atol=1e-4, err_msg=name)
    for rank in range(num_ranks):
        with np.load(tmp_path / f"rank_{rank}.npz") as held:
            assert set(held.files) == set(weights)
            for name in held.files:
                np.testing.assert_array_equal(held[name], weights[name], err_msg=f"{rank} {name}")
        # 20 lines of the log and 20 votes are messages of the lock's shape, which was compiled
        # before this counts; the scores are of another, and so are the sums of images of a save.
        compiled = (tmp_path / f"rank_{rank}.compiled").read_text()
        assert compiled == "EvalNet TrainOneStep _Sum _Sum"
    # Rank 0 alone writes: one line of the log per step, not one per rank.
    assert (run / "train.log").read_text().count(f"step {STEPS}/{STEPS}") == 1
    for rank in range(num_ranks):
        log = (tmp_path / "logs" / f"rank_{rank}.log").read_text()
        for part in ("parameters,", f"step {STEPS}/{STEPS}", "epoch 1: val"):
            assert (part in log) == (rank == 0), (rank, part)
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK_ID": "0", "RANK_SIZE": "1"}, None),
        (
            {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "3", "DEVICE_ID": "2"},
            RankEnvironment(3, None, 2),
        ),
        ({"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "1"}, RankEnvironment(1, None, None)),
        (
            {"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_RANK": "11"}
            | {"OMPI_COMM_WORLD_LOCAL_RANK": "3"},
            RankEnvironment(16, 11, 3),
        ),
        (
            {"RANK_TABLE_FILE": "/t.json", "RANK_SIZE": "8", "RANK_ID": "5", "DEVICE_ID": "5"},
            RankEnvironment(8, 5, 5),
        ),
    ],
)
def test_the_environment_of_each_launcher(
    environ: Dict[str, str], expected: RankEnvironment
) -> None:
    assert read_rank_environment(environ) == expected


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MS_ROLE": "MS_WORKER"}, "MS_WORKER_NUM ''"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK ''"),
        ({"RANK_SIZE": "8", "RANK_ID": "1"}, "RANK_TABLE_FILE"),
        ({"RANK_SIZE": "eight"}, "RANK_SIZE 'eight'"),
        ({"RANK_SIZE": "8", "RANK_TABLE_FILE": "/t.json"}, "RANK_ID ''"),
        ({"RANK_SIZE": "8", "RANK_TABLE_FILE": "/t.json", "RANK_ID": "8"}, "below RANK_SIZE 8"),
    ],
)
def test_a_launcher_that_forgot_something(environ: Dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_rank_environment(environ)


def test_drop_path_draws_by_the_position_in_the_global_batch() -> None:
    import mindspore as ms
    from mindspore import Parameter, Tensor

    step = Parameter(Tensor(3, ms.int32))
    whole = SeededUniform(7, step, 2, 12)(12).asnumpy()
    for size in (2, 3):
        for rank in range(size):
            share = SeededUniform(7, step, 2, 12 // size, rank=rank, world_size=size)
            np.testing.assert_array_equal(share(12 // size).asnumpy(), whole[rank::size])


def resumed(config: Config, *, world_size: int) -> Checkpoint:
    return Checkpoint(
        Path("x.ckpt"), {}, SavedRecord(config=to_yaml(config), world_size=world_size)
    )


def test_another_number_of_ranks_may_go_on_with_the_same_global_batch() -> None:
    of_six, of_twelve = (parse_args(["--batch_size", str(size)]) for size in (6, 12))
    check_same_recipe(of_twelve, resumed(of_six, world_size=2), World(0, 1))
    check_same_recipe(of_six, resumed(of_twelve, world_size=1), World(1, 2))
    with pytest.raises(UserError, match="--batch_size 3"):
        check_same_recipe(of_six, resumed(of_six, world_size=2), World(0, 4))
    with pytest.raises(UserError, match="batch_size 12 -> 6"):
        check_same_recipe(of_six, resumed(of_twelve, world_size=2), World(0, 2))


def test_a_changed_recipe_is_told_in_words_of_the_command_line() -> None:
    before, now = parse_args([]), parse_args(["--loss_scale", "8", "--with_ema", "true"])
    with pytest.raises(UserError, match=r"loss_scale null -> 8\.0; with_ema false -> true"):
        check_same_recipe(now, resumed(before, world_size=1))


def test_one_rank_talks_to_nobody() -> None:
    values = np.array([0.1, np.inf, np.nan])
    np.testing.assert_array_equal(gather_from_ranks(values, ALONE), values[None])
    check_equal_over_ranks("x", 3.0, ALONE, remedy="-")
    vote = StopVote(ALONE)
    assert vote.agreed(None) is None
    assert vote.agreed(15) == 15


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_it_goes_on_to_the_same_bits(
    images: Path, one_rank: Path, tmp_path: Path
) -> None:
    straight = tmp_path / "straight"
    straight.mkdir()
    whole = read_checkpoint(train_on(2, images, straight) / "last.ckpt").tensors
    run, killed = tmp_path / "run", tmp_path / "killed"
    killed.mkdir()
    arguments = words(images, run, GLOBAL_BATCH // 2, "--save_steps", "3", "--resume", "auto")
    process = subprocess.Popen(
        ranks_command(2, killed, arguments),
        env=environment(killed),
        cwd=killed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(process, run, 8)
    victim = next(pid for pid in living(killed) if b"RANK_ID=1" in environ_of(pid))
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - start < 30
    assert process.returncode == 128 + signal.SIGKILL
    assert "rank 1 was killed by signal 9" in errors
    assert living(killed) == []
    assert read_checkpoint(run / "last.ckpt").record.step in (6, 9)
    copy = tmp_path / "on_one"
    shutil.copytree(run, copy)

    ended = subprocess.run(ranks_command(2, killed, arguments), env=environment(killed), cwd=killed)
    assert ended.returncode == 0
    held = read_checkpoint(run / "last.ckpt").tensors
    for name, tensor in whole.items():
        np.testing.assert_array_equal(held[name].asnumpy(), tensor.asnumpy(), err_msg=name)
    # On one rank with the same global batch: the same images in the same order.
    assert train_program.main(words(images, copy, GLOBAL_BATCH, "--resume", "auto")) == 0
    np.testing.assert_allclose(losses(copy), losses(one_rank), rtol=0, atol=1e-5)


def stopped_run(images: Path, folder: Path, seconds: float, **options: str) -> subprocess.Popen:
    """A run on 2 ranks, of which rank 1 is stopped after step 4 for so long."""
    arguments = words(images, folder / "run", GLOBAL_BATCH // 2, "--save_steps", "3")
    process = subprocess.Popen(
        ranks_command(2, folder, arguments),
        env=environment(folder, **options),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(process, folder / "run", 4)
    stopped = next(pid for pid in living(folder) if b"RANK_ID=1" in environ_of(pid))
    os.kill(stopped, signal.SIGSTOP)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    if process.poll() is None:
        os.kill(stopped, signal.SIGCONT)
    return process


@pytest.mark.slow
def test_a_rank_that_is_stopped_for_a_while_is_waited_for(
    images: Path, one_rank: Path, tmp_path: Path
) -> None:
    process = stopped_run(images, tmp_path, 40)  # MindSpore's own limit is 30
    assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == 0
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(one_rank), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_rank_that_is_stopped_for_too_long_is_named(images: Path, tmp_path: Path) -> None:
    options = f"--logs {tmp_path / 'logs'} --rank_timeout 12 --grace 2"
    process = stopped_run(images, tmp_path, 120, LAUNCH_OPTIONS=options)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: rank 1 was silent for more than 12 s (--rank_timeout), so all")
    assert f"{tmp_path / 'run' / 'last.ckpt'} of " in errors
    assert len(errors.splitlines()) == 1
    assert "[CRITICAL]" not in printed
    assert "Traceback" not in printed
    assert living(tmp_path) == []


@pytest.mark.slow
def test_sigterm_saves_once_and_all_ranks_end(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = words(images, run, GLOBAL_BATCH // 2, "--accumulation_step", "2")
    process = subprocess.Popen(
        ranks_command(2, tmp_path, [*arguments, "--epochs", "9"]),
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(process, run, 4)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "all ranks have ended after signal 15" in errors
    step = read_checkpoint(run / "last.ckpt").record.step
    assert f"at step {step}" in (tmp_path / "logs" / "rank_0.log").read_text()
