"""The first lines of a run: what trains on what, and how."""

from __future__ import annotations

import platform
from typing import List, Tuple

import mindspore as ms
import numpy as np
from mindspore import nn

from ..args import Config, recipes_amp_level
from ..data.dataset import ImageDataset
from ..data.sampler import class_shares
from ..models.registry import count_macs
from ..optim.amp import precision_table, resolve_amp, resolve_loss_scale
from ..overrides import is_override
from ..run_length import global_batch
from ..runtime.device import describe_device


def describe_run(
    config: Config,
    network: nn.Cell,
    datasets: Tuple[ImageDataset, ImageDataset],
    lr_schedule: np.ndarray,
    *,
    world_size: int,
) -> List[str]:
    """Lines about network, device, data, batch and learning rate, and precision.

    Args:
        datasets: of training and validation.
    """
    train_set, val_set = datasets
    model, optim = config.model, config.optim
    parameters = sum(parameter.size for parameter in network.get_parameters())
    macs = count_macs(
        model.arch,
        img_size=model.image_size,
        num_classes=model.num_classes,
        **model.model_args,
    )
    level, dtype = resolve_amp(config)
    lines = [
        f"{model.arch}: {parameters:,} parameters, {macs / 1e9:.3g} GMACs for an image of "
        f"{model.image_size}x{model.image_size}, {model.num_classes} classes",
        *_about_freezing(config, network),
        f"{_device(config, network)}, {config.run.mode} mode; MindSpore {ms.__version__}, NumPy "
        f"{np.__version__}, Python {platform.python_version()}",
        f"{train_set.num_samples} training and {val_set.num_samples} validation images; steps of "
        f"{global_batch(config, world_size)} images "
        f"({_factors(config, world_size)}), "
        f"{train_set.steps_per_epoch} an epoch, {len(lr_schedule)} in all ({_epochs(config)})",
        *_about_repeats(config),
        *_about_balance(config, train_set),
        f"{optim.optimizer}, {optim.lr_scheduler}: peak lr {max(lr_schedule, default=0.0):g} "
        f"({_origin_of_lr(config)})",
        f"amp_level {level}" + (f", half precision {dtype}" if level != "O0" else ""),
        *about_the_level(config),
        *about_the_loss_scale(config),
    ]
    return [*lines, *(precision_table(network).splitlines() if level != "O0" else [])]


def about_the_level(config: Config) -> List[str]:
    """A line on a CPU whose recipe or command line asks for half precision."""
    said, level = recipes_amp_level(config), resolve_amp(config)[0]
    cost = "takes longer and more memory than float32 on a CPU"
    if said:
        return [f"the recipe's amp_level {said} {cost}; --amp_level {said} has it all the same"]
    if config.run.device_target == "CPU" and level != "O0":
        return [
            f"amp_level {level} {cost}, and leaves the network's kernels out; --amp_level O0 does "
            "neither"
        ]
    return []


def about_the_loss_scale(config: Config) -> List[str]:
    """A line where the loss is scaled, none elsewhere."""
    rule = resolve_loss_scale(config)
    if not rule.dynamic and rule.value == 1.0:
        return []
    growth = f"times {config.train.loss_scale_factor:g} after {rule.window} finite steps"
    scale = f"loss scale {rule.value:g}, {growth if rule.dynamic else 'fixed'}"
    if resolve_amp(config)[0] != "O0":
        return [scale]
    return [f"convolutions compute in float16 on this chip at amp_level O0 too: {scale}"]


def _device(config: Config, network: nn.Cell) -> str:
    has_kernels = any(is_override(cell) for _, cell in network.cells_and_names())
    return describe_device(config.run, network_has_kernels=has_kernels)


def _epochs(config: Config) -> str:
    """`2 epochs and 10 of cooldown`: the parts that `schedule_epochs` adds up."""
    optim, epochs = config.optim, config.train.epochs
    parts = [f"{optim.lr_cycles} cycles of {epochs} epochs" if optim.lr_cycles > 1 else ""]
    parts[0] = parts[0] or f"{epochs} epoch{'' if epochs == 1 else 's'}"
    if optim.warmup_mode == "prefix" and optim.warmup_length:
        parts.insert(0, f"{optim.warmup_length} of warmup")
    if optim.cooldown_epochs:
        parts.append(f"{optim.cooldown_epochs} of cooldown")
    return " and ".join(parts)


def _about_freezing(config: Config, network: nn.Cell) -> List[str]:
    if config.optim.freeze == "none":
        return []
    trained = sum(parameter.size for parameter in network.trainable_params())
    return [f"freeze {config.optim.freeze}: {trained:,} of the parameters are trained"]


def _about_repeats(config: Config) -> List[str]:
    repeats = config.data.repeated_aug
    if repeats == 1:
        return []
    return [f"repeated_aug {repeats}: an epoch takes one image in {repeats}, {repeats} times each"]


def _about_balance(config: Config, train_set: ImageDataset) -> List[str]:
    balance = config.data.balanced_sampling
    if balance == "none":
        return []
    images = np.array(train_set.images_per_class)
    images = images[images > 0]
    drawn = train_set.num_samples * class_shares(images, balance)
    return [
        f"balanced_sampling {balance}: classes have {images.min()} to {images.max()} images, of "
        f"which an epoch takes {drawn.min():.0f} to {drawn.max():.0f}"
        + ("; class_weights corrects rare classes once more" if config.optim.class_weights else "")
    ]


def _factors(config: Config, world_size: int) -> str:
    factors = [f"batch_size {config.data.batch_size}"]
    factors.append(f"accumulation {config.train.accumulation_step}")
    if world_size > 1:
        factors.append(f"{world_size} ranks")
    return " x ".join(factors)


def _origin_of_lr(config: Config) -> str:
    optim = config.optim
    if optim.lr_base_batch is None:
        return f"base_lr {optim.base_lr:g}, not scaled by the batch"
    return f"base_lr {optim.base_lr:g} is for a batch of {optim.lr_base_batch}, and scaled"
