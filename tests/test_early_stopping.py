"""`best_metric`, `early_stop_epochs`: the best epoch, and runs that end before their schedule."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, Iterator, List

import numpy as np
import pytest
from digits_run import rows, words

import train as train_program
from src.args import Config, parse_args, replace
from src.checkpoints.checkpoint import read_checkpoint
from src.configs.parser import section_keys
from src.data.dataset import Batch
from src.runs.scores import SCORES
from src.settings.train import TrainConfig
from src.trainer.loop import Trainer
from src.trainer.metrics import EvalResult
from src.trainer.multi_label import MultiLabelResult
from src.trainer.run import build_run
from src.trainer.run_state import RunState

# Of four epochs. Each score is the best in another one.
EPOCHS = [
    EvalResult(60.0, 90.0, 1.0, 50, macro_recall=50.0),
    EvalResult(70.0, 90.0, 0.9, 50, macro_recall=40.0),
    EvalResult(70.0, 90.0, 0.8, 50, macro_recall=60.0),
    EvalResult(65.0, 90.0, 0.7, 50, macro_recall=60.0),
]


class Killed(BaseException):
    """Nothing catches it."""


def test_every_choice_is_a_score_of_evaluation() -> None:
    assert list(SCORES) == list(section_keys(TrainConfig)["best_metric"].choices)
    several = {field.name for field in fields(MultiLabelResult)}
    assert set(SCORES) <= set(vars(EPOCHS[0])) | several
    assert several >= set(SCORES) - {"top1"}


def test_what_has_no_score_is_not_the_best() -> None:
    """A checkpoint says its best score, and NaN is no number of JSON."""
    state = RunState()
    assert not state.note_scores(EvalResult(60.0, 90.0, 1.0, 50), 1, "macro_recall")
    assert state.best("macro_recall") is None
    assert state.note_scores(EPOCHS[0], 2, "macro_recall")
    assert not state.note_scores(EvalResult(60.0, 90.0, 1.0, 50), 3, "macro_recall")
    assert (state.best("macro_recall"), state.best_epoch) == (50.0, 2)


def test_epochs_are_counted_anew_where_they_have_another_length() -> None:
    config = replace(Config(), early_stop_epochs=5)
    state = RunState(step=1000, best_epoch=10)
    assert not state.has_stopped(config, 100)
    state.renumber_epochs(100, 50)
    assert state.best_epoch == 20
    assert not state.has_stopped(config, 50)
    state.step = 1250
    assert state.has_stopped(config, 50)
    state.renumber_epochs(None, 7)
    assert state.best_epoch == 20


def test_a_run_at_the_end_of_its_schedule_has_not_stopped_early() -> None:
    config = replace(Config(), early_stop_epochs=5)
    run = SimpleNamespace(
        config=config,
        state=RunState(step=1500, best_epoch=10),
        train_set=SimpleNamespace(steps_per_epoch=100),
    )
    for steps, has_stopped in ((1500, False), (1600, True)):
        run.lr_schedule = np.zeros(steps)
        assert Trainer._has_stopped(run) == has_stopped  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "are_best", "top1"),
    [
        ("top1", [True, True, False, False], 70.0),
        ("macro_recall", [True, False, True, False], 70.0),
        ("loss", [True, True, True, True], 65.0),
    ],
)
def test_the_best_epoch_is_the_first_of_the_best(
    metric: str, are_best: List[bool], top1: float
) -> None:
    state = RunState()
    found = [state.note_scores(result, n, metric) for n, result in enumerate(EPOCHS, 1)]
    assert found == are_best
    last = max(n for n, is_best in enumerate(are_best, 1) if is_best)
    assert (state.best_epoch, state.best_top1) == (last, top1)
    assert state.best(metric) == getattr(EPOCHS[last - 1], metric)
    # An older version's checkpoint knows of top-1 alone, and a later one of what decides.
    assert (state.best_score is None) == (metric == "top1")


@pytest.mark.parametrize(
    ("keys", "stopped"),
    [
        ({"early_stop_epochs": 2}, [5, 6, 7]),
        ({"early_stop_epochs": 2, "eval_every": 3}, [6]),
        ({"early_stop_epochs": 0}, []),
        ({"early_stop_epochs": 5}, []),
    ],
)
def test_a_run_stops_after_so_many_epochs_without_a_better_one(
    keys: Dict[str, int], stopped: List[int]
) -> None:
    """The best is epoch 3 of 7, of ten steps each. Where nothing is evaluated nothing ends."""
    config, ended = replace(Config(), **keys), []
    for step in range(71):
        state = RunState(step=step, best_top1=50.0, best_epoch=min(step // 10, 3))
        ended += [step / 10] if state.has_stopped(config, 10) else []
    assert ended == stopped


@pytest.mark.slow  # test_freezing.py has a run that is killed
def test_a_run_that_is_killed_stops_where_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a rate of 0 no epoch is better than the first; steps are 5 an epoch."""
    run, real = tmp_path / "run", Trainer.one_step
    given = "--epochs 9 --lr 0 --min_lr 0 --warmup_length 0 --batch_size 256 --best_metric loss"
    more = "--early_stop_epochs 2 --save_steps 2 --save_every 0 --resume auto"
    arguments = words(tmp_path / "digits", run, *given.split(), *more.split())

    def one_step(trainer: Trainer, batches: Iterator[Batch]) -> None:
        if trainer.state.step == 13:
            raise Killed
        real(trainer, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "one_step", one_step)
        with pytest.raises(Killed):
            train_program.main(arguments)
    before = read_checkpoint(run / "last.ckpt").record
    assert (before.step, before.best_epoch) == (12, 1)
    caplog.set_level("INFO")
    assert train_program.main(arguments) == 0
    after = read_checkpoint(run / "last.ckpt").record
    assert (after.step, after.best_epoch, after.best_score) == (15, 1, before.best_score)
    assert before.best_score == float(next(r["val_loss"] for r in rows(run) if r["val_loss"]))
    assert read_checkpoint(run / "best.ckpt").record.step == 5
    said = "stopped early: no better score in 2 epochs (early_stop_epochs) than loss "
    assert said in (run / "train.log").read_text()
    assert "stopped early" in (run / "report.html").read_text()
    caplog.clear()
    assert train_program.main(arguments) == 0
    assert f"this run has {said}" in caplog.text
    assert read_checkpoint(run / "last.ckpt").record.step == 15
    changed = replace(parse_args(arguments), best_metric="top1", allow_config_change=True)
    assert build_run(changed).state.best("top1") is None  # another score starts anew
