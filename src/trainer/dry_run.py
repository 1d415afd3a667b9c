"""Trying a recipe, and timing its parts: a few real steps in a temporary folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from mindspore import Tensor

from ..args import Config
from ..checkpoints.checkpoint import load_parameters, read_checkpoint
from ..data.dataset import ImageDataset, first_batch
from ..errors import TrainingFailed, UserError
from ..runs.folder import CheckpointFolder, run_folder
from ..runtime.device import peak_memory_gib, trace_steps
from ..runtime.files import check_output_folder
from .loop import Trainer
from .memory_estimate import check_step_fits
from .run import Run, build_trainer

_LOGGER = logging.getLogger(__name__)

Datasets = Tuple[ImageDataset, ImageDataset]


def dry_run(config: Config, run: Run, datasets: Datasets, *, steps: int = 2) -> None:
    """Builds everything, runs `steps` steps and an evaluation batch, saves and reads back.

    The run's own folder is not touched.

    Raises:
        UserError, TrainingFailed: the first problem; a step that will not fit, before it is tried.
    """
    check_output_folder("train_url", run_folder(config))
    check_step_fits(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _build_in(Path(folder), config, run, datasets)
        batches = trainer.train_set.batches()
        times = [_seconds(lambda: _one_step(trainer, batches)) for _ in range(steps)]
        evaluation = _seconds(lambda: _evaluate_batch(trainer))
        saving = _seconds(lambda: trainer.save(epoch=None, is_best=False))
        size = trainer.checkpoints.last.stat().st_size / 2**20
        _check_read_back(trainer)
        trainer.close_records()
        release_log()
    _LOGGER.info(
        "dry run: steps took %s s (the first with compilation), an evaluation batch %.3g s (with "
        "compilation), a checkpoint of %.1f MiB %.3g s; it reads back equal; peak memory %.2f GiB",
        ", ".join(f"{seconds:.3g}" for seconds in times),
        evaluation,
        size,
        saving,
        peak_memory_gib(config.run),
    )


def profile(config: Config, run: Run, datasets: Datasets) -> None:
    """Times `config.train.profile` steps part by part; writes `profile/` in the run's folder.

    Each step is waited for, so that its time is its own; a run that overlaps data, device and host
    is faster than the sum.
    """
    folder = run_folder(config) / "profile"
    with tempfile.TemporaryDirectory() as temporary:
        trainer = _build_in(Path(temporary), config, run, datasets)
        batches = trainer.train_set.batches()
        _one_step(trainer, batches)  # compiles
        parts: Dict[str, List[float]] = {"data wait": [], "step": [], "log": [], "save": []}
        folder.mkdir(parents=True, exist_ok=True)
        trace = trace_steps(folder)
        with trace:
            for _ in range(config.train.profile):
                trainer.clock.restart()
                whole = _seconds(lambda: _one_step(trainer, batches))
                parts["data wait"].append(trainer.clock.waited)
                parts["step"].append(whole - trainer.clock.waited)
                parts["log"].append(_seconds(trainer.log))
        parts["save"].append(_seconds(lambda: trainer.save(epoch=None, is_best=False)))
        trainer.close_records()
        release_log()
    report: Dict[str, Any] = {
        name: {"median_s": float(np.median(seconds)), "times": len(seconds)}
        for name, seconds in parts.items()
    }
    report["framework_trace"] = trace.verdict
    (folder / "profile.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name in parts:
        median = report[name]["median_s"]
        _LOGGER.info("%-10s %9.4f s, median of %d", name, median, report[name]["times"])
    _LOGGER.info("framework's own profile: %s; in %s", trace.verdict, folder)


def _build_in(folder: Path, config: Config, run: Run, datasets: Datasets) -> Trainer:
    if run.world.size > 1:
        raise UserError(
            f"dry_run, profile: {run.world.size} processes; they try a recipe with one, started "
            "without the launcher"
        )
    checkpoints = CheckpointFolder(folder, save_every=0, keep_max=1)
    train_set, val_set = datasets
    trainer = build_trainer(
        config,
        dataclasses.replace(run, checkpoints=checkpoints),
        train_set=train_set,
        val_set=val_set,
    )
    wanted = max(2, config.train.profile + 1)
    left = len(trainer.lr_schedule) - trainer.state.step
    if left < wanted:
        raise UserError(
            f"epochs {config.train.epochs}: {left} steps are left of the run, {wanted} are needed "
            "to try it; give more --epochs"
        )
    trainer.announce()
    trainer.train_step.set_train(True)
    return trainer


def release_log() -> None:
    """Closes the train.log of a temporary folder before that goes."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _one_step(trainer: Trainer, batches: Any) -> None:
    trainer.one_step(batches)
    loss = trainer.read_outputs()
    if not math.isfinite(loss):
        raise TrainingFailed(f"step {trainer.state.step}: the loss is {loss}")


def _evaluate_batch(trainer: Trainer) -> None:
    batch = first_batch(trainer.val_set)
    trainer.eval_net.set_train(False)
    logits = trainer.eval_net(Tensor(batch.image)).asnumpy()
    trainer.train_step.set_train(True)
    if not np.isfinite(logits).all():
        raise TrainingFailed("evaluation: the logits are not finite")


def _check_read_back(trainer: Trainer) -> None:
    parameters = trainer.train_step.saved_parameters()
    before = {parameter.name: parameter.asnumpy().copy() for parameter in parameters}
    load_parameters(parameters, read_checkpoint(trainer.checkpoints.last), target="this recipe")
    for parameter in parameters:
        if not np.array_equal(parameter.asnumpy(), before[parameter.name], equal_nan=True):
            raise TrainingFailed(f"checkpoint: {parameter.name} reads back changed")
