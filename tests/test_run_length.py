"""The length of a run: one number for schedule, batches, mixing and evaluation."""

from __future__ import annotations

import ast
import itertools
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from digits_run import ROOT, failure, rows, steps, words

import train as train_program
from src.args import parse_args
from src.checkpoints.checkpoint import read_checkpoint
from src.data.dataset import ImageDataset, first_batch
from src.data.imagenet import create_dataset
from src.errors import UserError
from src.optim.schedulers import create_lr_schedule
from src.run_length import run_length
from src.trainer.loop import Trainer

# timm's sampler takes 1,280 of the 1,437 digits in an epoch: 20 steps of 64.
STEPS_PER_EPOCH = 20
SMALL = "{num_layers: 1, n_conv_layers: 1}"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_schedule_batches_and_mixing_are_equally_long(
    digits: Path, tmp_path: Path, world_size: int, repeats: int, accumulation: int
) -> None:
    more = f"--repeated_aug {repeats} --accumulation_step {accumulation} --cooldown_epochs 1"
    sizes = "--batch_size 30 --warmup_length 1 --warmup_mode prefix"
    config = parse_args(words(digits, tmp_path, *more.split(), *sizes.split()))
    length = run_length(config, 1437, world_size=world_size)
    schedule = create_lr_schedule(
        config.optim, epochs=config.train.epochs, steps_per_epoch=length.steps_per_epoch
    )
    assert len(schedule) == length.num_steps == 4 * length.steps_per_epoch
    # In the middle of an epoch, at the start of the last one, and at the end.
    for first in (length.steps_per_epoch // 2 + 1, 3 * length.steps_per_epoch, length.num_steps):
        for rank in range(world_size):
            dataset = create_dataset(config, True, rank, world_size, start_step=first)
            keys, mixes = list(dataset.keys()), list(dataset._mixes())
            assert len(keys) == 30 * len(mixes)
            assert len(mixes) == accumulation * (length.num_steps - first)


@pytest.mark.slow  # the keys of its steps are compared above
def test_a_whole_run_with_repeats_that_stops_amid_an_epoch(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, more = tmp_path / "run", ["--repeated_aug", "3", "--warmup_length", "0"]
    more += ["--log_interval", "1", "--resume", "auto", "--save_steps", "7", "--model_args", SMALL]
    more += ["--mixup_off_epoch", "1", "--mix_up", "0.8", "--re_prob", "0.5"]
    one_step = Trainer.one_step

    def stop_at_9(trainer: Trainer, batches: Iterator[Any]) -> None:
        if trainer.state.step == 9:
            raise KeyboardInterrupt
        one_step(trainer, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "one_step", stop_at_9)
        assert train_program.main(words(digits, run, *more)) == 130
    assert read_checkpoint(run / "last.ckpt").record.step == 7
    assert train_program.main(words(digits, run, *more)) == 0
    assert steps(run) == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    evaluated = [(int(row["step"]), float(row["epoch"])) for row in rows(run) if row["top1"]]
    assert evaluated == [(STEPS_PER_EPOCH, 1.0), (2 * STEPS_PER_EPOCH, 2.0)]
    assert read_checkpoint(run / "last.ckpt").record.step == 2 * STEPS_PER_EPOCH


def test_images_that_end_before_the_schedule_are_an_error_with_the_step(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    batches = ImageDataset.batches
    monkeypatch.setattr(
        ImageDataset, "batches", lambda self: (b for b in itertools.islice(batches(self), 3))
    )
    arguments = words(digits, tmp_path / "run", "--model_args", SMALL)
    said = failure(capsys, train_program, arguments)
    assert "step 4: the images ended before the schedule's 44 steps" in said


def test_a_run_without_steps_has_no_batch_to_show(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], load: Callable[[str], Any]
) -> None:
    none = ["--epochs", "0", "--warmup_length", "0"]
    with pytest.raises(UserError, match=r"no step is left .* give more --epochs"):
        first_batch(create_dataset(parse_args(words(digits, tmp_path, *none)), True))
    for program in ("scripts/preview_augment.py", "benchmarks/run.py"):
        assert "give" in failure(capsys, load(program), words(digits, tmp_path, *none))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A program by its path."""

    def module(path: str) -> Any:
        import importlib.util

        spec = importlib.util.spec_from_file_location(Path(path).stem + "_program", ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, found)
        spec.loader.exec_module(found)
        return found

    return module


def product() -> List[Path]:
    folders = ("", "scripts", "ascend310_infer")
    found = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    return sorted([*found, *(ROOT / "src").rglob("*.py")])


def test_nothing_ends_in_a_bare_stop_iteration() -> None:
    """Each `next` of a stream has its second argument: what holds where nothing is left."""
    bare = []
    for path in product():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_next = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "next"
            # A search or an `iter(...)` written in place is no stream that somebody else ends.
            if (
                is_next
                and len(node.args) < 2
                and isinstance(node.args[0], (ast.Name, ast.Attribute))
            ):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert bare == []
