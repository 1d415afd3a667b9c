"""Repeating steps of a run from one of its checkpoints, and comparing what comes of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ..args import Config
from ..checkpoints.examined import Difference, Examined, differences, salvage
from ..data.image_sums import find_changed, from_text
from ..data.imagenet import create_dataset
from ..errors import some_of
from ..run_length import global_batch
from ..runs.evidence import Evidence, Plan, Row
from ..runs.folder import CheckpointFolder
from ..runs.records import read_records
from .loop import Trainer
from .resuming import check_same_data
from .run import Run, build_run, build_trainer

# Of rows of training, as text: one program writes a number in one way.
_COMPARED = ("loss", "lr", "grad_norm", "loss_scale")
_NAMED = 10


class Repetition(NamedTuple):
    """What came of some steps.

    Attributes:
        rows: of the metrics.csv that the repetition wrote.
        apart: step -> where each checkpoint that the run has of it differs from the repeated state.
    """

    rows: List[Row]
    apart: Dict[int, List[Tuple[Examined, List[Difference]]]]
    trainer: Trainer


def repeat(config: Config, evidence: Evidence, plan: Plan, folder: Path) -> Repetition:
    """Trains the steps of a plan again.

    Args:
        config: the recipe of the checkpoint to start from, with `resume` set to it.
        folder: an empty one for what the repetition writes.

    Raises:
        UserError: the data is not that of the run, or cannot be read.
    """
    trainer = _build(config, folder)
    logged = {int(row["step"]) for row in evidence.rows if row.get("loss")}
    starts = {_start_of(row) for row in evidence.digests().values()}
    apart: Dict[int, List[Tuple[Examined, List[Difference]]]] = {}
    batches = trainer.train_set.batches()
    trainer.train_step.set_train(True)
    try:
        with trainer.display:
            for step in range(trainer.state.step + 1, plan.steps[-1] + 1):
                trainer.one_step(batches)
                if step in logged:
                    trainer.log()
                if step in evidence.digests():
                    trainer.save(epoch=None, is_best=False, images=trainer.images_seen())
                    apart[step] = [(c, _differences(trainer, c)) for c in evidence.at(step)]
                elif step in starts:
                    trainer.train_set.image_sums.take()
    finally:
        batches.close()  # type: ignore[attr-defined]
        trainer.close_records()
    return Repetition(read_records(folder / "metrics.csv"), apart, trainer)


def _build(config: Config, folder: Path) -> Trainer:
    started = build_run(config)
    checkpoints = CheckpointFolder(folder, save_every=0, keep_max=1)
    run = Run(checkpoints, started.resumed, started.state)
    assert run.resumed is not None
    trained, start = run.resumed.trained_classes("resume"), run.state.step
    train_set = create_dataset(config, True, start_step=start, trained=trained)
    check_same_data(config, run.resumed, train_set)
    val_set = create_dataset(config, False)
    return build_trainer(config, run, train_set=train_set, val_set=val_set)


def _differences(trainer: Trainer, checkpoint: Examined) -> List[Difference]:
    due = {p.name: p.asnumpy() for p in trainer.train_step.saved_parameters()}
    return differences(salvage(checkpoint.path), due)


def _start_of(row: Row) -> int:
    """The step from which the images of a row with a digest are summed; -1: it has no sums."""
    return int(row["images"].partition(":")[0]) if row.get("images") else -1


class Verdict(NamedTuple):
    """What a repetition shows.

    Attributes:
        findings: what is not as the run says.
        notes: what else there is to say.
    """

    findings: List[str]
    notes: List[str]


def judge(
    evidence: Evidence, plan: Plan, repetition: Repetition, *, tolerance: float = 0.0
) -> Verdict:
    """Compares a repetition with the run.

    Args:
        tolerance: weights may be apart by this part of the largest number of their tensor.
    """
    images, findings, notes = [], [], []
    repeated = {int(row["step"]): row for row in repetition.rows if row.get("weights")}
    for step in plan.steps:
        row, again = evidence.digests()[step], repeated[step]
        images += _about_images(repetition.trainer, row, again)
        if row.get("images") == again["images"]:
            since = _start_of(row) + 1
            notes.append(f"images of steps {since} to {step}: the same, by their files and labels")
        files = repetition.apart[step]
        if again["weights"] == row["weights"]:
            notes.append(f"step {step}: weights {row['weights']}, the same digest")
            findings += [_changed_file(c, apart) for c, apart in files if apart or c.damage]
        elif any(again["weights"] == c.weights for c, _ in files):
            names = ", ".join(str(c) for c, _ in files)
            findings.append(
                f"metrics.csv: its digest of step {step} is {row['weights']}; {names} and the "
                f"repetition have {again['weights']}, so that row was changed"
            )
        else:
            said, distance = _how_far(step, files)
            (notes if distance <= tolerance else findings).append(said)
    other = _first_other_row(evidence, plan, repetition)
    if other:
        (findings if findings or not tolerance else notes).append(other)
    return Verdict([*images, *findings], notes)


def _changed_file(checkpoint: Examined, apart: List[Difference]) -> str:
    if not apart:
        return (
            f"{checkpoint}: all its tensors are those that were saved; what changed is its record, "
            "or what it says of their names and dims"
        )
    places = [f"{d.first} ({d.differing} of {d.size} numbers differ)" for d in apart]
    shown = some_of(places, 3, "; ")
    return f"{checkpoint}: changed since it was saved, in {len(apart)} tensor(s): {shown}"


def _how_far(step: int, files: List[Tuple[Examined, List[Difference]]]) -> Tuple[str, float]:
    """A line, and the largest difference; infinity where there is nothing to compare with."""
    said = f"step {step}: other weights than the run's"
    for checkpoint, apart in files:
        if checkpoint.damage or not apart:
            continue
        worst = max(apart, key=lambda difference: difference.relative)
        return (
            f"{said}: of {checkpoint} {len(apart)} tensors differ, by up to {worst.relative:.3g} "
            f"of the largest number of {worst.name}"
        ), worst.relative
    return (
        f"{said}; the run keeps no whole checkpoint of that step, so how far apart they are is not "
        "known (train with --save_every 1)"
    ), math.inf


def _first_other_row(evidence: Evidence, plan: Plan, repetition: Repetition) -> Optional[str]:
    """Where a row of training first differs."""
    repeated = {int(row["step"]): row for row in repetition.rows if row.get("loss")}
    before = plan.start.step or 0
    for row in evidence.rows:
        step = int(row["step"])
        if step not in repeated or not row.get("loss"):
            continue
        for column in _COMPARED:
            if row[column] != repeated[step][column]:
                return (
                    f"rows: the first that differs is step {step}, {column} {row[column]} in "
                    f"metrics.csv and {repeated[step][column]} repeated; up to step {before} all "
                    "agree"
                )
        before = step
    return None


def _about_images(trainer: Trainer, row: Row, again: Row) -> List[str]:
    """Which images were others between two saves."""
    if not row.get("images") or row["images"] == again["images"]:
        return []
    (first, then), (mine, now) = (entry["images"].split(":") for entry in (row, again))
    if int(first) < int(mine):
        return []  # the steps before are not repeated
    step = int(row["step"])
    size = global_batch(trainer.config, trainer.world.size)
    sums = [np.asarray(from_text(text)) for text in (then, now)]
    changed = find_changed(sums[0], sums[1], (int(first) * size, step * size))
    said = f"images of steps {int(first) + 1} to {step}"
    if not changed.positions:
        return [
            f"{said}: more are others than can be told apart (another data_url, or versions of "
            "Pillow and NumPy?)"
        ]
    names = _names(trainer, changed.positions, size)
    rest = "" if changed.are_all else ", and others"
    is_one = len(names) == 1
    return [
        f"{said}: {len(names)} {'is' if is_one else 'are'} not what the run saw{rest}: "
        f"{some_of(names, _NAMED)}"
    ]


def _names(trainer: Trainer, positions: List[int], size: int) -> List[str]:
    """`<class>/<image> (step N)` of positions in the run."""
    dataset = trainer.train_set
    start = dataset.first_position
    keys = itertools.islice(dataset.keys(), positions[-1] - start + 1)
    wanted = {position - start for position in positions}
    found = [(number, key) for number, key in enumerate(keys) if number in wanted]
    return [
        f"{dataset.file_name(key.sample)} (step {(start + number) // size + 1})"
        for number, key in found
    ]
