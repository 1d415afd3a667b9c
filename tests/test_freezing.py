"""`freeze`: what keeps its values and computes as in evaluation, in steps and in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, Iterator, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure, rows, words
from mindspore import Tensor, nn

import eval as eval_program
import train as train_program
from src.args import Config, parse_args, replace
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.data.dataset import Batch
from src.models.registry import create_model
from src.optim.freezing import freeze
from src.trainer.build import build_network, build_train_step
from src.trainer.loop import Trainer
from src.trainer.train_one_step import TrainOneStep

# Two layers, in which everything is random that can be.
RANDOM = replace(
    Config(),
    arch="cct_2_3x2_32",
    image_size=16,
    num_classes=10,
    batch_size=8,
    drop_path_rate=0.5,
    model_args={"n_conv_layers": 1, "dropout": 0.3, "attention_dropout": 0.3},
)


class Killed(BaseException):
    """Nothing catches it."""


def names_of(cell: nn.Cell) -> List[str]:
    return [parameter.name for parameter in cell.trainable_params()]


@pytest.mark.parametrize(
    ("what", "trained"),
    [
        ("backbone", ["head.fc.weight", "head.fc.bias"]),
        ("5", ["head.norm.gamma", "head.norm.beta", "head.fc.weight", "head.fc.bias"]),
    ],
)
def test_groups_and_the_backbone(what: str, trained: List[str]) -> None:
    """With so few blocks a ConvNeXt has 6 layer groups; the last norm is in the head's."""
    sizes = {"depths": (1, 1, 3, 1), "dims": (8, 8, 8, 8)}
    network = create_model("convnext_tiny", img_size=32, num_classes=3, **sizes)
    everything = {parameter.name for parameter in network.get_parameters()}
    frozen = freeze(network, what)
    assert names_of(network) == trained
    assert {parameter.name for parameter in frozen.parameters} == everything - set(trained)
    assert network.frozen_features == "all"


def losses(step: TrainOneStep, calls: int) -> List[float]:
    """Of the same batch at a rate of 0, so that what differs was drawn."""
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    mix = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (8, 1))
    batch = [Tensor(array) for array in (images, np.arange(8, dtype=np.int32), mix)]
    return [float(step(*batch, Tensor(0.0, ms.float32))[0].asnumpy()) for _ in range(calls)]


def test_nothing_is_drawn_between_frozen_layers() -> None:
    config = replace(RANDOM, freeze="backbone")
    step = build_train_step(config, build_network(config)).set_train(False).set_train(True)
    found = losses(step, 3)
    assert len(set(found)) == 1, found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    """Weights without classifier for the network of `words`."""
    network = build_network(parse_args([*words(folder, folder), "--num_classes", "10"]))
    kept = [p for p in network.get_parameters() if not p.name.startswith("classifier.fc.")]
    save_checkpoint(folder / "weights.ckpt", kept, {"arch": "cct_2_3x2_32", "num_classes": 0})
    return folder / "weights.ckpt"


def arguments(run: Path, weights: Path, *more: str) -> List[str]:
    given = (
        "--freeze 2 --with_ema --ema_decay 0.9 --drop_path_rate 0.3 --batch_size 96 "
        "--epochs 1 --warmup_length 0 --num_parallel_workers 2 --save_steps 4 --log_interval 1 "
        "--save_every 0 --resume auto"
    )
    return words(run.parent / "digits", run, *given.split(), "--pretrained", str(weights), *more)


@pytest.fixture(scope="module")
def straight(folder: Path, weights: Path) -> Path:
    """A run of 14 steps that was not interrupted."""
    run = folder / "straight"
    assert train_program.main(arguments(run, weights)) == 0
    return run


def arrays(path: Path) -> Dict[str, np.ndarray]:
    return {name: tensor.asnumpy() for name, tensor in read_checkpoint(path).tensors.items()}


def test_a_run_changes_what_is_not_frozen_and_says_so(straight: Path, weights: Path) -> None:
    before, after = arrays(weights), arrays(straight / "last.ckpt")
    first_block = ("tokenizer.", "classifier.positional_emb", "classifier.blocks.0.")
    for name, value in before.items():
        assert np.array_equal(after[name], value) == name.startswith(first_block), name
        # Neither moments nor averages of what stays.
        kept = {n for n in after if n.startswith("train.") and n.endswith(f".{name}")}
        assert len(kept) == (0 if name.startswith(first_block) else 3), (name, kept)
    log = (straight / "train.log").read_text()
    assert "freeze 2: 100,875 of the parameters are trained" in log


def test_an_interrupted_run_goes_on_to_the_same_bits(
    straight: Path, weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends within a step, as by SIGKILL, when step 8 was saved last."""
    real = Trainer.one_step

    def one_step(trainer: Trainer, batches: Iterator[Batch]) -> None:
        if trainer.state.step == 10:
            raise Killed
        real(trainer, batches)

    run = folder / "again"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "one_step", one_step)
        with pytest.raises(Killed):
            train_program.main(arguments(run, weights))
    assert read_checkpoint(run / "last.ckpt").record.step == 8
    assert train_program.main(arguments(run, weights)) == 0
    ours, theirs = arrays(run / "last.ckpt"), arrays(straight / "last.ckpt")
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    for column in ("loss", "grad_norm", "top1", "ema_top1"):
        assert [r[column] for r in rows(run)] == [r[column] for r in rows(straight)], column


def test_a_run_goes_on_with_what_it_froze(
    straight: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = arguments(straight, weights, "--allow_config_change", "--freeze", "none")
    said = failure(capsys, train_program, other)
    assert "was trained with freeze 2, and other weights have moments and averages" in said


def test_the_averages_are_evaluated_with_the_frozen_weights(straight: Path, tmp_path: Path) -> None:
    path = str(straight / "last.ckpt")
    options = ["--pretrained", path, "--ema", "--data_url", str(straight.parent / "digits")]
    assert eval_program.main([*options, "--train_url", str(tmp_path)]) == 0
    (found,) = tmp_path.glob("eval_last_ema*.json")
    logged = [row["ema_top1"] for row in rows(straight) if row["ema_top1"]]
    assert json.loads(found.read_text())["top1"] == float(logged[-1])


def test_what_cannot_be_frozen_is_refused(
    weights: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "refused"
    given = arguments(run, weights)
    said = failure(capsys, train_program, [*given, "--freeze", "4"])
    assert "freeze 4: the network has 4 layer groups" in said
    assert "give a number up to 3, or backbone" in said
    where = given.index("--pretrained")
    said = failure(capsys, train_program, given[:where] + given[where + 2 :])
    assert "freeze 2: random weights would stay as they are; give --pretrained" in said
    assert not run.exists()
