"""From a Config to the cells that train and evaluate."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, List, Optional

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ..args import Config
from ..checkpoints.checkpoint import load_parameters, read_checkpoint
from ..data.augment.batch_transform import BatchTransform, EraseBoxes, ImageNormalize
from ..data.class_weights import resolve_class_weights
from ..data.sources import check_classes
from ..errors import UserError
from ..models.layers.activation import write_gelus_as_products
from ..models.layers.drop_path import seed_drop_paths
from ..models.layers.dropout import ArithmeticDropout, SeededDropout, seed_dropouts
from ..models.registry import create_model, least_weights
from ..optim.amp import LossScale, apply_amp, resolve_amp, resolve_loss_scale
from ..optim.clipping import GradientClip
from ..optim.criterion import DistillationLoss, create_criterion
from ..optim.ema import Ema
from ..optim.freezing import freeze
from ..optim.optimizer import create_optimizer
from ..optim.recomputation import recompute_blocks
from ..overrides import without_overrides
from ..runtime.collectives import MeanOverRanks
from ..runtime.float_status import create_float_status
from ..runtime.memory import check_room
from ..runtime.ranks import ALONE, World
from .evaluate import EvalNet
from .train_one_step import (
    AnyNetWithLoss,
    DistilledNetWithLoss,
    NetWithLoss,
    TrainOneStep,
)

# Keywords of `create_model` that are keys of a recipe themselves.
_KEYS = {
    "name": "arch",
    "pretrained": "pretrained",
    "num_classes": "num_classes",
    "img_size": "image_size",
    "in_chans": "in_chans",
    "drop_path_rate": "drop_path_rate",
    "nonlinearity": "nonlinearity",
    "distilled_training": "distillation_type",
}


def check_model(config: Config, *, has_classes: bool = True) -> None:
    """Refuses what no network for these images can be built by.

    Args:
        has_classes: the network has a classifier.

    Raises:
        UserError: sizes left open, or keywords in `model_args` that have a key of their own.
    """
    model = config.model
    sources = {"num_classes": "the data", "image_size": "the architecture"}
    for key, source in sources.items():
        if getattr(model, key) == 0 and (has_classes or key != "num_classes"):
            raise UserError(
                f"{key} 0: stands for that of {source}, which is not known here; set it"
            )
    for keyword, value in model.model_args.items():
        # Recipes from before there was that key may say 3.
        if keyword in _KEYS and (keyword, value) != ("in_chans", model.in_chans):
            key = _KEYS[keyword]
            raise UserError(f"model_args {keyword!r}: has a key of its own; give --{key}")
    sizes = {
        "img_size": model.image_size,
        "num_classes": model.num_classes,
        "in_chans": model.in_chans,
    }
    keywords = {key: value for key, value in model.model_args.items() if key not in sizes}
    check_room(
        4 * least_weights(model.arch, **sizes, **keywords),
        f"weights of arch {model.arch} with model_args {keywords}, num_classes {model.num_classes} "
        f"and image_size {model.image_size}",
        "give smaller ones",
    )


def build_network(config: Config) -> nn.Cell:
    """The network of the recipe, freshly initialised, under its mixed precision.

    Raises:
        UserError: as of `check_model` and `create_model`.
    """
    check_model(config)
    keywords = dict(config.model.model_args)
    if config.optim.distillation_type != "none":
        keywords["distilled_training"] = True
    return _under_precision(
        config,
        config.model.arch,
        drop_path_rate=config.model.drop_path_rate,
        nonlinearity=config.model.nonlinearity,
        **keywords,
    )


def build_backbone(config: Config) -> nn.Cell:
    """As `build_network`, without classifier: what it gives are pooled features.

    Raises:
        UserError: as of `build_network`.
    """
    check_model(config, has_classes=False)
    keywords = {**config.model.model_args, "nonlinearity": config.model.nonlinearity}
    return _under_precision(config, config.model.arch, num_classes=0, **keywords)


def _under_precision(config: Config, arch: str, **keywords: Any) -> nn.Cell:
    level, dtype = resolve_amp(config)
    # What may be put in a cell's place is for float32: it would pass the casts by.
    with contextlib.nullcontext() if level == "O0" else without_overrides():
        sizes = {"img_size": config.model.image_size, "in_chans": config.model.in_chans}
        classes = {"num_classes": config.model.num_classes}
        network = create_model(arch, **{**classes, **keywords, **sizes})
    apply_amp(network, level, dtype=dtype, keep_bn_fp32=config.train.keep_bn_fp32)
    return network


def _create_erase(config: Config) -> Optional[EraseBoxes]:
    data = config.data
    if data.re_prob == 0:
        return None
    return EraseBoxes(
        config.model.image_size,
        max_count=data.re_count,
        mode=data.re_mode,
        channels=config.model.in_chans,
    )


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
        is_multi_label=data.label_separator is not None,
        erase=_create_erase(config),
    )


def build_train_step(
    config: Config,
    network: nn.Cell,
    world: World = ALONE,
    *,
    class_names: Optional[List[str]] = None,
    images_per_class: Optional[List[int]] = None,
) -> TrainOneStep:
    """Transform, network, loss, optimizer, loss scale and averages as one cell.

    Args:
        class_names: of the data; None: a teacher's are not compared with them.
        images_per_class: of the data, which `class_weights` needs.

    Raises:
        UserError: as of `freeze`, `recompute_blocks` and `build_net_with_loss`.
    """
    train, data = config.train, config.data
    frozen = freeze(network, config.optim.freeze)
    _choose_what_is_kept(config, network)
    calls = Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False)
    place = {"batch_size": data.batch_size, "rank": world.rank, "world_size": world.size}
    seed_drop_paths(network, seed=train.seed, step=calls, **place)
    if train.seeded_dropout:
        form = ArithmeticDropout if config.run.device_target == "Ascend" else SeededDropout
        seed_dropouts(network, seed=train.seed, step=calls, form=form, **place)
    ema = None
    if train.with_ema:
        changing = frozen.left_of(list(network.get_parameters()))
        ema = Ema(changing, decay=train.ema_decay, warmup=train.ema_warmup)
    return TrainOneStep(
        build_net_with_loss(
            config,
            build_batch_transform(config),
            network,
            class_names,
            images_per_class=images_per_class,
        ),
        create_optimizer(config.optim, network),
        build_loss_scale(config),
        calls=calls,
        clip=build_clip(config, network),
        ema=ema,
        accumulation_step=train.accumulation_step,
        mean_over_ranks=MeanOverRanks(world) if world.size > 1 else None,
        float_status=create_float_status(config.run, world),
        frozen=frozen,
    )


def _choose_what_is_kept(config: Config, network: nn.Cell) -> None:
    """For the gradient."""
    if config.run.device_target == "CPU":
        write_gelus_as_products(network)
    if config.train.recompute:
        recompute_blocks(network, config.run.mode)


def build_net_with_loss(
    config: Config,
    transform: nn.Cell,
    network: nn.Cell,
    class_names: Optional[List[str]] = None,
    *,
    images_per_class: Optional[List[int]] = None,
) -> AnyNetWithLoss:
    """Network and loss, with the recipe's teacher when it distils.

    Raises:
        UserError: the teacher's checkpoint does not fit its architecture or the classes, or as of
            `resolve_class_weights`.
    """
    optim = config.optim
    weights = resolve_class_weights(optim.class_weights, class_names, images_per_class)
    criterion = create_criterion(optim, weights)
    if optim.distillation_type == "none":
        return NetWithLoss(transform, network, criterion)
    assert optim.teacher_arch is not None
    assert optim.teacher_pretrained is not None
    teacher = _under_precision(config, optim.teacher_arch, drop_path_rate=0.0)
    weights = read_checkpoint(Path(optim.teacher_pretrained))
    if class_names is not None:
        check_classes(config, weights.trained_classes("teacher_pretrained"), class_names)
    target = f"teacher_arch {optim.teacher_arch} with num_classes {config.model.num_classes}"
    load_parameters(teacher.get_parameters(), weights, target=target)
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
    """The scale of the recipe where it is needed; elsewhere it stays 1."""
    rule = resolve_loss_scale(config)
    return LossScale(
        rule.value,
        dynamic=rule.dynamic,
        factor=config.train.loss_scale_factor,
        window=rule.window,
    )


def build_normalize(config: Config) -> ImageNormalize:
    """The recipe's normalisation of uint8 images."""
    return ImageNormalize(mean=config.data.mean, std=config.data.std)


def build_eval_net(config: Config, network: nn.Cell) -> EvalNet:
    """Normalisation and network, for uint8 images."""
    return EvalNet(build_normalize(config), network)
