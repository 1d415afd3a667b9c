"""Several ranks train as one does with the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import pytest
from distributed_run import (
    GLOBAL_BATCH,
    STEPS,
    VAL_IMAGES,
    losses,
    msrun,
    rows,
    words,
    write_images,
)

import train as train_program
from src.args import Config, parse_args, to_yaml
from src.errors import UserError
from src.models.layers.drop_path import SeededUniform
from src.tools.checkpoint import Checkpoint, read_checkpoint
from src.tools.collectives import StopVote, check_equal_over_ranks, gather_from_ranks
from src.tools.device import ALONE, RankEnvironment, World, read_rank_environment
from src.trainer.build import check_same_recipe

# A program that runs on each rank: trains, then leaves what this rank holds in memory.
DUMP_WEIGHTS = """
import sys
import numpy as np
sys.path.insert(0, {root!r})
import train
from src.trainer import build
trainers, real = [], build.build_trainer
build.build_trainer = lambda *a, **k: trainers.append(real(*a, **k)) or trainers[0]
code = train.main(sys.argv[2:])
trainer = trainers[0]
held = {{p.name: p.asnumpy() for p in trainer.train_step.saved_parameters()}}
np.savez(f"{{sys.argv[1]}}/rank_{{trainer.world.rank}}.npz", **held)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def one_rank(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    assert train_program.main(words(images, run, GLOBAL_BATCH)) == 0
    return run


def run_ranks(num_ranks: int, images: Path, folder: Path) -> None:
    program = folder / "dump.py"
    program.write_text(DUMP_WEIGHTS.format(root=str(Path(__file__).resolve().parent.parent)))
    arguments = words(images, folder / "run", GLOBAL_BATCH // num_ranks)
    ended = msrun(num_ranks, folder / "logs", str(program), str(folder), *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_equal_one_rank_with_the_same_global_batch(
    num_ranks: int, images: Path, one_rank: Path, tmp_path: Path
) -> None:
    run_ranks(num_ranks, images, tmp_path)
    run = tmp_path / "run"
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
    # Rank 0 alone writes: one line of the log per step, not one per rank.
    assert (run / "train.log").read_text().count(f"step {STEPS}/{STEPS}") == 1
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK_ID": "0", "RANK_SIZE": "1"}, None),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "3", "DEVICE_ID": "2"}, RankEnvironment(3, 2)),
        ({"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "1"}, RankEnvironment(1, None)),
        (
            {"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_RANK": "11"}
            | {"OMPI_COMM_WORLD_LOCAL_RANK": "3"},
            RankEnvironment(16, 3),
        ),
        (
            {"RANK_TABLE_FILE": "/t.json", "RANK_SIZE": "8", "RANK_ID": "5", "DEVICE_ID": "5"},
            RankEnvironment(8, 5),
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
    return Checkpoint(Path("x.ckpt"), {}, {"config": to_yaml(config), "world_size": world_size})


def test_another_number_of_ranks_may_go_on_with_the_same_global_batch() -> None:
    of_six, of_twelve = (parse_args(["--batch_size", str(size)]) for size in (6, 12))
    check_same_recipe(of_twelve, resumed(of_six, world_size=2), World(0, 1))
    check_same_recipe(of_six, resumed(of_twelve, world_size=1), World(1, 2))
    with pytest.raises(UserError, match="--batch_size 3"):
        check_same_recipe(of_six, resumed(of_six, world_size=2), World(0, 4))
    with pytest.raises(UserError, match="batch_size 12 -> 6"):
        check_same_recipe(of_six, resumed(of_twelve, world_size=2), World(0, 2))


def test_one_rank_talks_to_nobody() -> None:
    values = np.array([0.1, np.inf, np.nan])
    np.testing.assert_array_equal(gather_from_ranks(values, ALONE), values[None])
    check_equal_over_ranks("x", 3.0, ALONE, remedy="-")
    vote = StopVote(ALONE)
    assert vote.agreed(None) is None
    assert vote.agreed(15) == 15
