"""What a run that goes on must share with the run before: its recipe and its data."""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Optional

from ..args import Config
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.saved_record import SavedRecord
from ..configs.parser import keys_marked, to_flow
from ..data.class_weights import digest_of_class_weights
from ..data.dataset import ImageDataset
from ..errors import UserError, some_of
from ..optim.schedulers import create_lr_schedule
from ..run_length import global_batch, schedule_epochs
from ..runtime.ranks import ALONE, World

_LOGGER = logging.getLogger(__name__)


def describe_data(train_set: ImageDataset) -> Dict[str, Any]:
    """What a checkpoint records of the data it was trained on."""
    return {
        "class_names": train_set.class_names,
        "images_per_class": train_set.images_per_class,
        "steps_per_epoch": train_set.steps_per_epoch,
    }


def check_same_recipe(config: Config, resumed: Checkpoint, world: World = ALONE) -> List[str]:
    """Refuses to continue a run under a recipe that would compute something else.

    Another number of ranks is no other recipe while all ranks together have the same batch. With
    `allow_config_change` the changes are logged instead.

    Returns:
        The changes that are allowed, `key before -> now`.

    Raises:
        UserError: listing every key that differs, with both values.
    """
    there = _trained_by(resumed).flat()
    batches = there["batch_size"] * resumed.record.world_size
    is_same_batch = batches == config.data.batch_size * world.size
    is_allowed = config.train.allow_config_change
    if not (is_same_batch or is_allowed) and there["batch_size"] == config.data.batch_size:
        raise UserError(
            f"resume {str(resumed.path)!r}: batch_size {config.data.batch_size} on {world.size} "
            f"rank(s) is another global batch than {batches}, the run's; give --batch_size "
            f"{max(1, batches // world.size)}, or --allow_config_change"
        )
    free = keys_marked(Config, "free")
    if resumed.record.class_names is not None:
        free.append("num_classes")  # `create_dataset` says which classes came and went
    changed = [
        f"{key} {to_flow(there[key])} -> {to_flow(here)}"
        for key, here in config.flat().items()
        if key not in free and there[key] != here and not (key == "batch_size" and is_same_batch)
    ]
    _refuse("recipe", changed, resumed, "the old values", is_allowed)
    return changed


def check_same_data(
    config: Config, resumed: Checkpoint, train_set: ImageDataset, world: World = ALONE
) -> List[str]:
    """Refuses to continue a run on other images: epochs and rates would not be where they were.

    With `allow_config_change` the changes are logged instead; and, whatever moved it, where in the
    schedule the run goes on. The classes' names are checked by whoever opens the data.

    Returns:
        The changes that are allowed.

    Raises:
        UserError: saying which numbers changed.
    """
    found = _changes_of_data(resumed.record, train_set)
    if found is None:
        _LOGGER.info(
            "resume: %s does not say how many images it was trained on, so that is not compared",
            resumed.path,
        )
    is_allowed, changed = config.train.allow_config_change, found or []
    given = config.optim.class_weights
    digests = {resumed.record.class_weights, digest_of_class_weights(given)}
    if None not in digests and len(digests) > 1:
        changed.append(f"the weights in class_weights {given!r}")
    _refuse("data", changed, resumed, "the data of before", is_allowed)
    before = resumed.record.steps_per_epoch
    if not is_allowed or before is None:
        return changed
    step = resumed.record.step or 0
    trained = _trained_by(resumed)
    places = (
        _place(trained, step, before, resumed.record.world_size),
        _place(config, step, train_set.steps_per_epoch, world.size),
    )
    if places[0] != places[1]:
        _LOGGER.warning("step %d was %s, and is now %s", step, *places)
    return changed


def _trained_by(resumed: Checkpoint) -> Config:
    recipe = resumed.record.recipe(str(resumed.path))
    if recipe is None:
        raise UserError(
            f"resume {str(resumed.path)!r}: does not say the recipe of its run; use it as "
            "--pretrained"
        )
    return recipe


def _refuse(what: str, changed: List[str], resumed: Checkpoint, old: str, is_allowed: bool) -> None:
    """Says that something has changed: as an error, or where that is allowed in the log."""
    if not changed:
        return
    said = f"the {what} has changed ({'; '.join(changed)})"
    if not is_allowed:
        raise UserError(
            f"resume {str(resumed.path)!r}: {said}; give {old}, or --allow_config_change"
        )
    _LOGGER.warning("allow_config_change: %s", said)


def _changes_of_data(record: SavedRecord, train_set: ImageDataset) -> Optional[List[str]]:
    """`what before -> now` of each number; None: the checkpoint, an older one, has none."""
    images = record.images_per_class
    if images is None:
        return None
    changes = []
    now = train_set.images_per_class
    if images != now:
        classes = [
            f"{name} {there} -> {here}"
            for name, there, here in zip(train_set.class_names, images, now)
            if there != here
        ]
        changes.append(f"images {sum(images)} -> {sum(now)}: {some_of(classes)}")
    before, steps = record.steps_per_epoch, train_set.steps_per_epoch
    if before != steps:
        changes.append(f"steps per epoch {before} -> {steps}")
    return changes


def _place(config: Config, step: int, steps_per_epoch: int, world_size: int) -> str:
    """Where the next step stands in the schedule of a recipe."""
    rates = create_lr_schedule(
        config.optim,
        epochs=config.train.epochs,
        steps_per_epoch=steps_per_epoch,
        global_batch=global_batch(config, world_size),
    )
    epochs = schedule_epochs(config.optim, config.train.epochs)
    done = f"{step / steps_per_epoch:.4g} of {epochs} epochs"
    return f"{done}, lr {rates[step]:.3g}" if step < len(rates) else f"{done}, its end"
