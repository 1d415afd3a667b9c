"""From a Config to the cells that train and evaluate, and to the loop that runs them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from src.args import Config, from_yaml_text, to_yaml
from src.data.augment.batch_transform import BatchTransform, EraseBoxes, ImageNormalize
from src.data.imagenet import ImageDataset
from src.errors import UserError
from src.kernels import selection
from src.models.layers.drop_path import seed_drop_paths
from src.models.layers.dropout import seed_dropouts
from src.models.registry import create_model
from src.tools.amp import LossScale, apply_amp, resolve_amp
from src.tools.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    load_parameters,
    read_checkpoint,
    run_folder,
)
from src.tools.clipping import GradientClip
from src.tools.collectives import MeanOverRanks, check_equal_over_ranks
from src.tools.criterion import DistillationLoss, create_criterion
from src.tools.device import ALONE, World
from src.tools.log import log_to_file
from src.tools.optimizer import create_optimizer
from src.tools.pretrained import start_from_file
from src.tools.records import Records
from src.tools.schedulers import create_lr_schedule
from src.tools.tensorboard_events import TensorBoardEvents
from src.trainer.ema import Ema
from src.trainer.evaluate import EvalNet
from src.trainer.loop import RunState, Trainer
from src.trainer.train_one_step import (
    AnyNetWithLoss,
    DistilledNetWithLoss,
    NetWithLoss,
    TrainOneStep,
)

_LOGGER = logging.getLogger(__name__)


def build_network(config: Config) -> nn.Cell:
    """The network of the recipe, freshly initialised, under its mixed precision."""
    keywords = dict(config.model.model_args)
    if config.optim.distillation_type != "none":
        keywords["distilled_training"] = True
    level, dtype = resolve_amp(config)
    # The kernels are for float32: under mixed precision they would pass its casts by.
    with contextlib.nullcontext() if level == "O0" else selection.using(selection.OFF):
        network = create_model(
            config.model.arch,
            num_classes=config.model.num_classes,
            img_size=config.model.image_size,
            drop_path_rate=config.model.drop_path_rate,
            nonlinearity=config.model.nonlinearity,
            **keywords,
        )
    apply_amp(network, level, dtype=dtype, keep_bn_fp32=config.train.keep_bn_fp32)
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


def _create_erase(config: Config) -> Optional[EraseBoxes]:
    data = config.data
    if data.re_prob == 0:
        return None
    return EraseBoxes(config.model.image_size, max_count=data.re_count, mode=data.re_mode)


def build_batch_transform(config: Config) -> BatchTransform:
    """What the device does with a training batch before the network sees it."""
    data = config.data
    return BatchTransform(
        data.batch_size,
        config.model.image_size,
        num_classes=config.model.num_classes,
        mean=data.mean,
        std=data.std,
        label_smoothing=data.label_smoothing,
        erase=_create_erase(config),
    )


def build_train_step(config: Config, network: nn.Cell, world: World = ALONE) -> TrainOneStep:
    """Transform, network, loss, optimizer, loss scale and averages as one cell."""
    train, data = config.train, config.data
    calls = Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False)
    place = {"batch_size": data.batch_size, "rank": world.rank, "world_size": world.size}
    seed_drop_paths(network, seed=train.seed, step=calls, **place)
    if train.seeded_dropout:
        seed_dropouts(network, seed=train.seed, step=calls, **place)
    ema = None
    if train.with_ema:
        ema = Ema(list(network.get_parameters()), decay=train.ema_decay, warmup=train.ema_warmup)
    return TrainOneStep(
        build_net_with_loss(config, build_batch_transform(config), network),
        create_optimizer(config.optim, network),
        build_loss_scale(config),
        calls=calls,
        clip=build_clip(config, network),
        ema=ema,
        accumulation_step=train.accumulation_step,
        mean_over_ranks=MeanOverRanks(world) if world.size > 1 else None,
    )


def build_net_with_loss(config: Config, transform: nn.Cell, network: nn.Cell) -> AnyNetWithLoss:
    """Network and loss, with the recipe's teacher when it distils.

    Raises:
        UserError: the teacher's checkpoint does not fit its architecture or the classes.
    """
    optim = config.optim
    criterion = create_criterion(optim)
    if optim.distillation_type == "none":
        return NetWithLoss(transform, network, criterion)
    assert optim.teacher_arch is not None
    assert optim.teacher_pretrained is not None
    teacher = create_model(
        optim.teacher_arch,
        num_classes=config.model.num_classes,
        img_size=config.model.image_size,
        drop_path_rate=0.0,
    )
    weights = read_checkpoint(Path(optim.teacher_pretrained))
    target = f"teacher_arch {optim.teacher_arch} with num_classes {config.model.num_classes}"
    load_parameters(teacher.get_parameters(), weights, target=target)
    level, dtype = resolve_amp(config)
    apply_amp(teacher, level, dtype=dtype, keep_bn_fp32=config.train.keep_bn_fp32)
    distillation = DistillationLoss(
        criterion,
        kind=optim.distillation_type,
        alpha=optim.distillation_alpha,
        tau=optim.distillation_tau,
    )
    return DistilledNetWithLoss(transform, network, distillation, teacher=teacher)


def build_clip(config: Config, network: nn.Cell) -> Optional[GradientClip]:
    """The clipping of the recipe, if any."""
    limit = config.optim.clip_global_norm_value
    if limit is None:
        return None
    return GradientClip(config.optim.clip_mode, limit, network.trainable_params())


def build_loss_scale(config: Config) -> LossScale:
    """The scale of the recipe in float16; elsewhere the range needs none, and it stays 1."""
    level, dtype = resolve_amp(config)
    is_needed = level != "O0" and dtype == "float16"
    return LossScale(
        config.train.loss_scale if is_needed else 1.0,
        dynamic=config.train.is_dynamic_loss_scale and is_needed,
        factor=config.train.loss_scale_factor,
        window=config.train.loss_scale_window,
    )


def build_eval_net(config: Config, network: nn.Cell) -> EvalNet:
    """Normalisation and network, for uint8 images."""
    return EvalNet(ImageNormalize(mean=config.data.mean, std=config.data.std), network)


# Keys that change where or how long a run works, but not what it computes.
_FREE_KEYS = frozenset(
    "train_url resume allow_config_change data_url num_parallel_workers python_multiprocessing "
    "device_target device_id "
    "save_every save_steps keep_checkpoint_max eval_every log_interval max_overflows pretrained "
    "ema debug cpu_kernels dry_run profile tensorboard run_modelarts cache_dir "
    "obs_endpoint".split()
)


def check_same_recipe(config: Config, resumed: Checkpoint, world: World = ALONE) -> None:
    """Refuses to continue a run under a recipe that would compute something else.

    Another number of ranks is no other recipe while all ranks together have the same batch.

    Raises:
        UserError: listing every key that differs, with both values.
    """
    there = from_yaml_text(resumed.meta["config"], str(resumed.path)).flat()
    batches = there["batch_size"] * resumed.meta.get("world_size", 1)
    is_same_batch = batches == config.data.batch_size * world.size
    if not is_same_batch and there["batch_size"] == config.data.batch_size:
        raise UserError(
            f"resume {str(resumed.path)!r}: batch_size {config.data.batch_size} on {world.size} "
            f"rank(s) is another global batch than {batches}, the run's; give --batch_size "
            f"{max(1, batches // world.size)}, or --allow_config_change"
        )
    changed = [
        f"{key} {there[key]!r} -> {here!r}"
        for key, here in config.flat().items()
        if key not in _FREE_KEYS
        and there[key] != here
        and not (key == "batch_size" and is_same_batch)
    ]
    if changed:
        raise UserError(
            f"resume {str(resumed.path)!r}: the recipe has changed ({'; '.join(changed)}); give "
            "the old values, or --allow_config_change"
        )


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
    if resumed and not train.allow_config_change:
        check_same_recipe(config, resumed, world)
    state = RunState.from_meta(resumed.meta) if resumed else RunState()
    check_equal_over_ranks(
        "the step to go on from",
        state.step,
        world,
        remedy="--train_url and --resume must be a folder all hosts share, or a URL",
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
        (folder / "config.yaml").write_text(to_yaml(config, with_origins=True), encoding="utf-8")
        events = None
        if config.train.tensorboard:
            events = TensorBoardEvents(folder / "tensorboard", first_step=first_step)
        return Records(folder / "metrics.csv", first_step=first_step, events=events)
    except OSError as error:
        raise UserError(
            f"train_url {str(folder)!r}: cannot be written ({error}); give another --train_url"
        ) from error


def build_trainer(
    config: Config, run: Run, *, train_set: ImageDataset, val_set: ImageDataset
) -> Trainer:
    """The loop with everything it runs; creates the run's folder once nothing else can fail.

    Raises:
        UserError: weights that do not fit, a setting that is not available.
    """
    network = build_network(config)
    if config.model.pretrained and not run.resumed:
        target = f"arch {config.model.arch} with image_size {config.model.image_size}"
        start_from_file(network, Path(config.model.pretrained), target=target)
    train_step = build_train_step(config, network, run.world)
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
            global_batch=config.data.batch_size * config.train.accumulation_step * run.world.size,
        ),
        checkpoints=run.checkpoints,
        records=records,
        state=run.state,
        world=run.world,
    )
