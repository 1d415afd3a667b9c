"""From a Config to the cells that train and evaluate, and to the loop that runs them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from src.args import Config, to_yaml
from src.data.augment.batch_transform import BatchTransform, ImageNormalize
from src.data.imagenet import ImageDataset
from src.errors import UserError
from src.models.layers.drop_path import seed_drop_paths
from src.models.registry import create_model
from src.tools.amp import LossScale, apply_amp
from src.tools.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    load_parameters,
    read_checkpoint,
    run_folder,
)
from src.tools.criterion import SoftTargetCrossEntropy
from src.tools.optimizer import create_optimizer
from src.tools.records import Records
from src.tools.schedulers import create_lr_schedule
from src.trainer.evaluate import EvalNet
from src.trainer.loop import RunState, Trainer
from src.trainer.train_one_step import NetWithLoss, TrainOneStep

_LOGGER = logging.getLogger(__name__)


def build_network(config: Config) -> nn.Cell:
    """The network of the recipe, freshly initialised, under its mixed precision."""
    network = create_model(
        config.model.arch,
        num_classes=config.model.num_classes,
        img_size=config.model.image_size,
        drop_path_rate=config.model.drop_path_rate,
        nonlinearity=config.model.nonlinearity,
        **config.model.model_args,
    )
    apply_amp(network, config.train.amp_level, keep_bn_fp32=config.train.keep_bn_fp32)
    return network


def load_network(network: nn.Cell, checkpoint: Checkpoint, config: Config) -> None:
    """Sets all weights from the file.

    Raises:
        UserError: it holds another architecture, another number of classes or other shapes.
    """
    target = f"arch {config.model.arch} with num_classes {config.model.num_classes}"
    for key in ("arch", "num_classes"):
        here, there = getattr(config.model, key), checkpoint.meta.get(key)
        if there is not None and here != there:
            raise UserError(
                f"checkpoint {checkpoint.describe()} does not fit {target}: {key} is {there!r} in "
                f"the file and {here!r} here; give --{key} {there} or another checkpoint"
            )
    load_parameters(network.get_parameters(), checkpoint, target=target)


def build_train_step(config: Config, network: nn.Cell) -> TrainOneStep:
    """Transform, network, loss, optimizer and loss scale as one cell."""
    train, data = config.train, config.data
    if train.with_ema:
        raise UserError("with_ema True: not available yet; set with_ema: False")
    mixed = train.amp_level != "O0"
    loss_scale = LossScale(
        train.loss_scale if mixed else 1.0,
        dynamic=train.is_dynamic_loss_scale and mixed,
        factor=train.loss_scale_factor,
        window=train.loss_scale_window,
    )
    transform = BatchTransform(
        data.batch_size,
        config.model.image_size,
        num_classes=config.model.num_classes,
        mean=data.mean,
        std=data.std,
        label_smoothing=data.label_smoothing,
    )
    step = Parameter(Tensor(0, ms.int32), name="train.step", requires_grad=False)
    seed_drop_paths(network, seed=train.seed, step=step, batch_size=data.batch_size)
    return TrainOneStep(
        NetWithLoss(transform, network, SoftTargetCrossEntropy()),
        create_optimizer(config.optim, network),
        loss_scale,
        step=step,
        clip_norm=config.optim.clip_global_norm_value,
    )


def build_eval_net(config: Config, network: nn.Cell) -> EvalNet:
    """Normalisation and network, for uint8 images."""
    return EvalNet(ImageNormalize(mean=config.data.mean, std=config.data.std), network)


@dataclass(frozen=True)
class Run:
    """Where a run keeps its files, and what it continues from."""

    checkpoints: CheckpointFolder
    resumed: Optional[Checkpoint]
    state: RunState


def build_run(config: Config) -> Run:
    """Looks for the checkpoint to continue from; writes nothing.

    Raises:
        UserError: as of `CheckpointFolder.find_resumed`.
    """
    train = config.train
    checkpoints = CheckpointFolder(
        run_folder(config), save_every=train.save_every, keep_max=train.keep_checkpoint_max
    )
    resumed = checkpoints.find_resumed(train.resume)
    return Run(checkpoints, resumed, RunState.from_meta(resumed.meta) if resumed else RunState())


def build_trainer(
    config: Config, run: Run, *, train_set: ImageDataset, val_set: ImageDataset
) -> Trainer:
    """The loop with everything it runs; creates the run's folder once nothing else can fail.

    Raises:
        UserError: weights that do not fit, a setting that is not available.
    """
    network = build_network(config)
    if config.model.pretrained and not run.resumed:
        load_network(network, read_checkpoint(Path(config.model.pretrained)), config)
    train_step = build_train_step(config, network)
    if run.resumed:
        load_parameters(train_step.get_parameters(), run.resumed, target="this recipe")
        _LOGGER.info("resumed from %s at step %d", run.resumed.path, run.state.step)
    folder = run.checkpoints.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config, with_origins=True), encoding="utf-8")
    return Trainer(
        config,
        train_step,
        build_eval_net(config, network),
        train_set=train_set,
        val_set=val_set,
        lr_schedule=create_lr_schedule(
            config.optim, epochs=config.train.epochs, steps_per_epoch=train_set.steps_per_epoch
        ),
        checkpoints=run.checkpoints,
        records=Records(folder / "metrics.csv", first_step=run.state.step),
        state=run.state,
    )
