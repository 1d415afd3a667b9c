"""From a Config to the loop that trains: its folder, what it continues from, and all it runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from ..args import Config, for_channels, to_yaml
from ..checkpoints.checkpoint import Checkpoint, load_parameters, read_checkpoint
from ..checkpoints.pretrained import start_from_weights
from ..checkpoints.saved_record import SavedRecord
from ..data.class_weights import digest_of_class_weights
from ..data.dataset import ImageDataset
from ..data.sources import check_classes
from ..errors import UserError
from ..models.classifier import Classifier
from ..optim.schedulers import create_lr_schedule
from ..run_length import global_batch
from ..runs.folder import CheckpointFolder, run_folder
from ..runs.own_files import put_aside_metrics
from ..runs.records import Records
from ..runs.tensorboard_events import TensorBoardEvents
from ..runtime.collectives import check_equal_over_ranks
from ..runtime.files import write_whole
from ..runtime.log import log_to_file
from ..runtime.ranks import ALONE, World
from .build import build_eval_net, build_network, build_train_step
from .loop import Trainer
from .resuming import check_same_recipe
from .run_state import RunState

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Where a run keeps its files, and what it continues from."""

    checkpoints: CheckpointFolder
    resumed: Optional[Checkpoint]
    state: RunState
    world: World = ALONE


def build_run(config: Config, world: World = ALONE) -> Run:
    """Looks for the checkpoint to continue from; writes nothing.

    Raises:
        UserError: as of `CheckpointFolder.find_resumed`.
    """
    train = config.train
    checkpoints = CheckpointFolder(
        run_folder(config), save_every=train.save_every, keep_max=train.keep_checkpoint_max
    )
    resumed = checkpoints.find_resumed(train.resume)
    state = RunState.from_record(resumed.record) if resumed else RunState()
    if resumed:
        changes = check_same_recipe(config, resumed, world)
        state.note(changes)
        if any(change.startswith(("best_metric ", "best_by ")) for change in changes):
            state.forget_best()
    check_equal_over_ranks(
        "the step to go on from",
        state.step,
        world,
        remedy="--train_url and --resume must be a folder all hosts share, or a URL; where a host "
        "reads a damaged last.ckpt there, give all of them the same --resume FILE",
    )
    return Run(checkpoints, resumed, state, world)


def open_folder(config: Config, run: Run) -> Records:
    """Creates the run's folder and opens its records.

    Raises:
        UserError: it cannot be written, or a package is missing.
    """
    folder, first_step = run.checkpoints.folder, run.state.step
    try:
        run.checkpoints.create(run.resumed)
        log_to_file(folder / "train.log")
        put_aside_metrics(folder)
        events = None
        if config.train.tensorboard:
            events = TensorBoardEvents(folder / "tensorboard", first_step=first_step)
        records = Records(folder / "metrics.csv", first_step=first_step, events=events)
        # After them: a folder with metrics.csv is a run's, and what else it holds too.
        write_whole(folder / "config.yaml", to_yaml(config, with_origins=True).encode())
        return records
    except OSError as error:
        raise UserError(
            f"train_url {str(folder)!r}: cannot be written ({error}); give another --train_url"
        ) from error


def tell_normalisation(config: Config, checkpoint: Checkpoint) -> None:
    """Says that training normalises images otherwise than the weights learnt them, if it does."""
    there = checkpoint.record.values(str(checkpoint.path), ("mean", "std"))
    here = {key: getattr(config.data, key) for key in there}
    there = {key: for_channels(key, there[key], config.model.in_chans) for key in there}
    if here != there:
        shown = [", ".join(f"{key} {list(v)}" for key, v in side.items()) for side in (there, here)]
        _LOGGER.info("%s learnt images with %s; this training has %s", checkpoint.path, *shown)


def start_from_pretrained(
    config: Config, network: Classifier, class_names: List[str]
) -> SavedRecord:
    """Weights of `pretrained`; the classifier stays fresh where it learnt other classes.

    Returns:
        What the weights say of themselves.

    Raises:
        UserError: weights that do not fit, or do not say which order of the classes they learnt.
    """
    checkpoint = read_checkpoint(Path(config.model.pretrained or ""))
    trained = checkpoint.trained_classes()
    keeps_classifier = checkpoint.record.num_classes == len(class_names)
    if trained.names is None and keeps_classifier:
        check_classes(config, trained, class_names)
    start_from_weights(
        network,
        checkpoint,
        target=f"arch {config.model.arch} with image_size {config.model.image_size}",
        class_names=None if config.train.allow_other_classes else class_names,
    )
    tell_normalisation(config, checkpoint)
    return checkpoint.record


def _start(config: Config, run: Run, network: Classifier, class_names: List[str]) -> None:
    """What a run that does not go on from a checkpoint begins with."""
    if config.model.pretrained:
        weights = start_from_pretrained(config, network, class_names)
        run.state.start_from(weights, Path(config.model.pretrained).name)
    elif config.optim.freeze != "none":
        raise UserError(
            f"freeze {config.optim.freeze}: random weights would stay as they are; give "
            "--pretrained, or --freeze none"
        )


def _check_same_freeze(config: Config, run: Run) -> None:
    """Other weights have moments and averages, which `allow_config_change` cannot bring."""
    there = run.resumed.record.recipe(str(run.resumed.path)) if run.resumed else None
    if run.resumed and there is not None and there.optim.freeze != config.optim.freeze:
        raise UserError(
            f"resume {str(run.resumed.path)!r}: was trained with freeze {there.optim.freeze}, and "
            "other weights have moments and averages; give it as --pretrained with a new "
            "--train_url"
        )


def build_trainer(
    config: Config, run: Run, *, train_set: ImageDataset, val_set: ImageDataset
) -> Trainer:
    """The loop with everything it runs; creates the run's folder once nothing else can fail.

    Raises:
        UserError: weights that do not fit, or none to freeze; a setting that is not available.
    """
    network = build_network(config)
    _check_same_freeze(config, run)
    if not run.resumed:
        _start(config, run, network, train_set.class_names)
    run.state.class_weights = digest_of_class_weights(config.optim.class_weights)
    train_step = build_train_step(
        config,
        network,
        run.world,
        class_names=train_set.class_names,
        images_per_class=train_set.images_per_class,
    )
    if run.resumed:
        load_parameters(train_step.saved_parameters(), run.resumed, target="this recipe")
        _LOGGER.info("resumed from %s at step %d", run.resumed.path, run.state.step)
    check_equal_over_ranks(
        "the sum of all weights",
        sum(float(p.asnumpy().sum(dtype="float64")) for p in network.get_parameters()),
        run.world,
        remedy="the ranks need the same recipe and the same weights",
    )
    records = open_folder(config, run) if run.world.is_main else None
    return Trainer(
        config,
        train_step,
        build_eval_net(config, network),
        train_set=train_set,
        val_set=val_set,
        lr_schedule=create_lr_schedule(
            config.optim,
            epochs=config.train.epochs,
            steps_per_epoch=train_set.steps_per_epoch,
            global_batch=global_batch(config, run.world.size),
        ),
        checkpoints=run.checkpoints,
        records=records,
        state=run.state,
        world=run.world,
    )
