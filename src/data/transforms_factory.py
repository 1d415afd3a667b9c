"""From a recipe to the transforms of its images, in training and in evaluation."""

from __future__ import annotations

import logging
from typing import List, Optional

from ..args import Config, DataConfig
from .augment.mixup import Mixing
from .augment.random_erasing import RandomErasing
from .augment.transforms import ResizeCenterCrop, Transform, create_train_transforms

_LOGGER = logging.getLogger(__name__)


def create_transforms(config: Config) -> List[Transform]:
    """The recipe's training transforms, in order; random erasing comes after them."""
    data = config.data
    return create_train_transforms(
        config.model.image_size,
        scale=data.scale,
        ratio=data.ratio,
        interpolation=data.interpolation,
        crop_padding=data.crop_padding,
        hflip=data.hflip,
        vflip=data.vflip,
        auto_augment=data.auto_augment,
        color_jitter=data.color_jitter if _jitters(data) else (),
        color_jitter_prob=data.color_jitter_prob,
        grayscale_prob=data.grayscale_prob,
        gaussian_blur_prob=data.gaussian_blur_prob,
        mean=data.mean,
    )


def create_erasing(config: Config) -> Optional[RandomErasing]:
    """The recipe's random erasing, if any."""
    data = config.data
    if data.re_prob == 0:
        return None
    return RandomErasing(config.model.image_size, data.re_prob, data.re_mode, data.re_count)


def create_mixing(config: Config, epoch: int) -> Mixing:
    """The recipe's Mixup and CutMix in an epoch, counted from 0."""
    data = config.data
    if 0 < data.mixup_off_epoch <= epoch:
        return Mixing()
    return Mixing(
        mix_up=data.mix_up,
        cutmix=data.cutmix,
        cutmix_minmax=data.cutmix_minmax,
        correct_lam=data.correct_lam,
        mixup_prob=data.mixup_prob,
        switch_prob=data.switch_prob,
        mixup_mode=data.mixup_mode,
    )


def create_eval_transform(config: Config) -> ResizeCenterCrop:
    """What evaluation, prediction and the inputs of the C++ program do with an image."""
    data = config.data
    return ResizeCenterCrop(
        config.model.image_size, data.crop_pct, data.interpolation, data.crop_mode
    )


def _jitters(data: DataConfig) -> bool:
    if not data.color_jitter or data.auto_augment is None:
        return bool(data.color_jitter)
    # timm's rule: the policies change colours themselves; 3-Augment expects the jitter.
    is_on = data.force_color_jitter or "3a" in data.auto_augment
    if not is_on:
        _LOGGER.info(
            "color_jitter %s is off beside auto_augment %s; force_color_jitter: True turns it on",
            list(data.color_jitter),
            data.auto_augment,
        )
    return is_on
