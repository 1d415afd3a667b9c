"""From a recipe to its batches: a source, the order of its samples, and what becomes of each.

A batch goes through the files in this order: sources (images), sampler (keys of samples), samples
(one row: read, transform), workers (all rows), dataset (the batch that the training loop takes).
"""

from __future__ import annotations

import itertools
from typing import Iterator, Optional

import numpy as np

from ..args import Config
from ..run_length import run_length
from . import sampler
from .augment.mixup import draw_mix
from .classes import TrainedClasses
from .dataset import ImageDataset
from .samples import EvalSample, TrainSample
from .sources import Source, open_source
from .transforms_factory import (
    create_erasing,
    create_eval_transform,
    create_mixing,
    create_transforms,
)


def create_dataset(
    config: Config,
    training: bool,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    *,
    trained: Optional[TrainedClasses] = None,
) -> ImageDataset:
    """Open the split that training or evaluation reads.

    Args:
        config: sections model, data, and for training optim and train.
        training: shuffled and augmented; else every image once, in order.
        rank: of this process, in [0, world_size).
        world_size: processes that share the split.
        start_step: training goes on after this many steps of the run; they are not decoded.
        trained: what the weights that meet this data know of their classes.

    Raises:
        UserError: the data, its classes, its size or a setting does not fit.
    """
    source = open_source(config, training, trained)
    if training:
        return _create_train_dataset(config, source, rank, world_size, start_step)
    return create_pass(config, source, rank, world_size)


def _create_train_dataset(
    config: Config, source: Source, rank: int, world_size: int, start_step: int
) -> ImageDataset:
    # A step reads as many batches as accumulate into it, and the images of one that much larger.
    batches_per_step = config.train.accumulation_step
    length = run_length(config, len(source), world_size=world_size)

    def keys() -> Iterator[sampler.Key]:
        return sampler.train_keys(
            len(source),
            length,
            batch_size=config.data.batch_size * batches_per_step,
            seed=config.train.seed,
            first_step=start_step,
            rank=rank,
            world_size=world_size,
            repeats=config.data.repeated_aug,
            labels=source.labels,
            balance=config.data.balanced_sampling,
        )

    def mixes() -> Iterator[np.ndarray]:
        for step in range(start_step, length.num_steps):
            epoch, position = divmod(step, length.steps_per_epoch)
            for batch in range(position * batches_per_step, (position + 1) * batches_per_step):
                # Numbered over all ranks: each rank mixes its own batch in its own way.
                yield _draw_batch_mix(config, epoch, batch * world_size + rank)

    return ImageDataset(
        source,
        config,
        steps_per_epoch=length.steps_per_epoch,
        batches_per_epoch=length.steps_per_epoch * batches_per_step,
        first_batch=start_step * batches_per_step,
        keys=keys,
        mixes=mixes,
        fill=_create_train_sample(config, source),
        has_boxes=config.data.re_prob > 0,
        rank=rank,
        world_size=world_size,
    )


def _draw_batch_mix(config: Config, epoch: int, batch: int) -> np.ndarray:
    rng = sampler.batch_generator(config.train.seed, epoch, batch)
    return draw_mix(
        create_mixing(config, epoch), config.data.batch_size, config.model.image_size, rng=rng
    )


def _create_train_sample(config: Config, source: Source) -> TrainSample:
    splits = config.data.re_split
    return TrainSample(
        source,
        create_transforms(config),
        create_erasing(config),
        seed=config.train.seed,
        skips_bad=config.data.on_bad_image == "skip",
        num_whole=config.data.batch_size // splits if splits > 1 else 0,
        balance=config.data.balanced_sampling,
    )


def create_pass(config: Config, source: Source, rank: int = 0, world_size: int = 1) -> ImageDataset:
    """Every image of a source once, in order, as evaluation makes it.

    The other arguments are those of `create_dataset`.
    """
    data = config.data
    num_steps = sampler.count_eval_steps(
        len(source), batch_size=data.batch_size, world_size=world_size
    )
    return ImageDataset(
        source,
        config,
        steps_per_epoch=num_steps,
        batches_per_epoch=num_steps,
        first_batch=0,
        keys=lambda: sampler.eval_keys(
            len(source), batch_size=data.batch_size, rank=rank, world_size=world_size
        ),
        mixes=lambda: itertools.repeat(None),
        fill=EvalSample(
            source, create_eval_transform(config), skips_bad=data.on_bad_image == "skip"
        ),
        has_boxes=False,
        rank=rank,
        world_size=world_size,
    )
