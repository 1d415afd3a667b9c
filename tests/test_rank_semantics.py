"""What two ranks compute with accumulated gradients and with BatchNorm; two hosts by msrun."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

import numpy as np
import pytest
from distributed_run import GLOBAL_BATCH, STEPS, losses, words, write_images
from test_distributed import train_on

import train as train_program

ROOT = Path(__file__).resolve().parent.parent

CONVMIXER = [
    *("--arch", "convmixer_768_32", "--drop_path_rate", "0"),
    *("--model_args", "{dim: 16, depth: 2, kernel_size: 3, patch_size: 4}"),
    # One step of plain gradient descent: the weights' change is the gradient.
    *("--optimizer", "momentum", "--momentum", "0", "--weight_decay", "0", "--base_lr", "0.1"),
    *("--clip_global_norm_value", "null"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def held_by(rank: int, folder: Path) -> Dict[str, np.ndarray]:
    """What a rank of `train_on` had in memory at its end."""
    with np.load(folder / f"rank_{rank}.npz") as held:
        return dict(held)


@pytest.mark.slow
def test_accumulation_on_two_ranks_equals_one_rank(images: Path, tmp_path: Path) -> None:
    more = ["--accumulation_step", "2", "--epochs", "2"]
    alone = tmp_path / "alone"
    assert train_program.main(words(images, alone, GLOBAL_BATCH, *more)) == 0
    run = train_on(2, images, tmp_path, *more)
    assert len(losses(run)) == len(losses(alone)) == STEPS
    np.testing.assert_allclose(losses(run), losses(alone), rtol=0, atol=1e-5)
    from src.checkpoints.checkpoint import read_checkpoint

    first, second = held_by(0, tmp_path), held_by(1, tmp_path)
    for name, tensor in read_checkpoint(alone / "last.ckpt").tensors.items():
        np.testing.assert_allclose(first[name], tensor.asnumpy(), atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def one_step_alone(arguments: List[str], rank: int) -> Dict[str, np.ndarray]:
    """One step on what `rank` of 2 sees, with no other rank: what the network holds then."""
    import mindspore as ms
    from mindspore import Tensor

    from src.args import parse_args
    from src.data.imagenet import create_dataset
    from src.trainer.build import build_network, build_train_step

    config = parse_args(arguments)
    batch = next(create_dataset(config, True, rank, 2).batches())
    ms.set_seed(config.train.seed)
    network = build_network(config)
    step = build_train_step(config, network)
    step.set_train(True)
    step(*(Tensor(array) for array in batch), Tensor(0.1, ms.float32))
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


@pytest.mark.slow
def test_batchnorm_sees_its_ranks_batch_and_shares_its_statistics(
    images: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    for split, count in (("train", GLOBAL_BATCH), ("val", 4)):
        for path in sorted((images / split).rglob("*.png"))[:: STEPS if split == "train" else 30]:
            target = few / path.relative_to(images)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        assert len(list((few / split).rglob("*.png"))) == count
    constant = [*CONVMIXER, "--lr_scheduler", "constant_lr"]
    run = train_on(2, few, tmp_path, *constant)
    assert len(losses(run)) == 1
    ranks = [held_by(rank, tmp_path) for rank in (0, 1)]
    given = words(few, tmp_path / "unused", GLOBAL_BATCH // 2, *constant)
    alone = [one_step_alone(given, rank) for rank in (0, 1)]
    statistics = [name for name in alone[0] if name.endswith(("moving_mean", "moving_variance"))]
    assert len(statistics) == 2 * 5
    for name in statistics:
        # Not SyncBN: the ranks saw different batches.
        assert np.abs(alone[0][name] - alone[1][name]).max() > 1e-3, name
    for name, mine in alone[0].items():
        mean = (mine.astype(np.float64) + alone[1][name]) / 2
        np.testing.assert_allclose(ranks[0][name], mean, atol=2e-6, err_msg=name)
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name], err_msg=name)


@contextlib.contextmanager
def two_hosts() -> Iterator[List[str]]:
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2."""
    names = [f"host{i}-{os.getpid()}" for i in (0, 1)]
    cable = [f"v{i}-{os.getpid()}"[:15] for i in (0, 1)]

    def ip(*arguments: str) -> int:
        return subprocess.run(["ip", *arguments], capture_output=True).returncode

    if shutil.which("ip") is None or ip("netns", "add", names[0]):
        pytest.skip("network namespaces are not permitted here, or there is no iproute2")
    try:
        failed = ip("netns", "add", names[1])
        failed |= ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for i in (0, 1):
            failed |= ip("link", "set", cable[i], "netns", names[i])
            failed |= ip("-n", names[i], "addr", "add", f"10.77.0.{i + 1}/24", "dev", cable[i])
            failed |= ip("-n", names[i], "link", "set", cable[i], "up")
            failed |= ip("-n", names[i], "link", "set", "lo", "up")
        if failed:
            pytest.skip("a cable between network namespaces is not permitted here")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
def test_two_hosts_train_together_by_msrun(images: Path, tmp_path: Path) -> None:
    alone, run = tmp_path / "alone", tmp_path / "run"
    short = ["--log_interval", "1"]
    assert train_program.main(words(images, alone, GLOBAL_BATCH, *short)) == 0
    with two_hosts() as hosts:
        processes = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", host, sys.executable, f"{ROOT}/scripts/launch.py"),
                    *("--launcher", "msrun", "--nnodes", "2", "--node_rank", str(i)),
                    *("--master_addr", "10.77.0.1", "--logs", str(tmp_path / f"logs{i}")),
                    *("--", f"{ROOT}/train.py", *words(images, run, GLOBAL_BATCH // 2, *short)),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=tmp_path,
            )
            for i, host in enumerate(hosts)
        ]
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "rank 0 of 2" in (run / "train.log").read_text()
    np.testing.assert_allclose(losses(run), losses(alone), rtol=0, atol=1e-5)
