"""The order of samples, and every random generator of the data pipeline.

No global random state is read or written: each generator is a counter-based Philox (Salmon et al.,
"Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) whose position says what it is for:

    key     = (seed, stream)          stream: one of the _*_STREAM tags below
    counter = (block, a, b, c)        block: runs from 0 as numbers are drawn
                                      (a, b, c): what is drawn for, see the three functions

Different streams, or different (a, b, c), never share a number; 2**64 blocks lie between them.
"""

from __future__ import annotations

from typing import Iterator

import numpy as np

from ..errors import UserError

_EPOCH_STREAM = 1
_SAMPLE_STREAM = 2
_BATCH_STREAM = 3

# The index of a key that stands for no image: it fills the last batch of an evaluation.
PADDING = -1

_REPEATED_ROUND = 256


def _generator(seed: int, stream: int, a: int = 0, b: int = 0, c: int = 0) -> np.random.Generator:
    key = np.array((seed, stream), np.uint64)
    counter = np.array((0, a, b, c), np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Generator of the order of one epoch."""
    return _generator(seed, _EPOCH_STREAM, epoch)


def sample_generator(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Generator of one image's augmentation: `index` in the dataset, `repeat` within the epoch."""
    return _generator(seed, _SAMPLE_STREAM, epoch, index, repeat)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Generator of one batch's mixing; `batch` counts the epoch's batches over all ranks."""
    return _generator(seed, _BATCH_STREAM, epoch, batch)


def count_train_steps(
    num_samples: int, *, batch_size: int, world_size: int, repeats: int = 1
) -> int:
    """Full steps in an epoch; what remains of the permutation is dropped.

    With repeated augmentation as many as without, up to timm's rounding: of 256 samples or more,
    whole groups of 256 count. (Of fewer, timm rounds up on each rank, so that the number of ranks
    changes the number of steps; not here.)

    Raises:
        UserError: there is not one full batch for every rank.
    """
    global_batch = batch_size * world_size
    if repeats > 1 and num_samples >= _REPEATED_ROUND:
        num_samples = num_samples // _REPEATED_ROUND * _REPEATED_ROUND
    if num_samples < global_batch:
        raise UserError(
            f"batch_size {batch_size} on {world_size} device(s): one step needs {global_batch} "
            f"images, the training set has {num_samples}; set batch_size to "
            f"{num_samples // world_size} or less"
        )
    return num_samples // global_batch


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Order in which an epoch visits the samples: (num_samples,) int64, a permutation."""
    return epoch_generator(seed, epoch).permutation(num_samples)


def train_keys(
    num_samples: int,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    num_epochs: int,
    rank: int,
    world_size: int,
    repeats: int = 1,
) -> Iterator[np.ndarray]:
    """Keys of the images that one rank sees from `first_step` to the end of the run.

    Step t of an epoch covers the same samples on any number of ranks with the same global batch:
    rank r takes every world_size-th entry of the epoch's order, from r on.

    Repeated augmentation (Hoffer et al., arXiv 1901.09335; DeiT's sampler): each entry of the order
    stands there `repeats` times in a row, so its copies go to different ranks, and an epoch covers
    1/repeats of the images. timm has it in distributed training only; here one rank will do.

    Yields:
        (3,) int64: epoch, index of the image in the dataset, repeat in [0, repeats).
    """
    num_steps = count_train_steps(
        num_samples, batch_size=batch_size, world_size=world_size, repeats=repeats
    )
    first_epoch, skipped_steps = divmod(first_step, num_steps)
    for epoch in range(first_epoch, num_epochs):
        order = epoch_order(num_samples, seed=seed, epoch=epoch)
        mine = range(rank, repeats * num_samples, world_size)
        for entry in mine[skipped_steps * batch_size : num_steps * batch_size]:
            yield np.array((epoch, order[entry // repeats], entry % repeats), np.int64)
        skipped_steps = 0


def count_eval_steps(num_samples: int, *, batch_size: int, world_size: int) -> int:
    """Batches of every rank so that each sample is seen once; the last may hold padding."""
    longest_share = -(-num_samples // world_size)
    return -(-longest_share // batch_size)


def eval_keys(
    num_samples: int, *, batch_size: int, rank: int, world_size: int
) -> Iterator[np.ndarray]:
    """Keys of one rank's share of an evaluation, in the dataset's order, then padding.

    Yields:
        (3,) int64: epoch (always 0), index of the image in the dataset or PADDING, repeat (always
        0); as many on every rank.
    """
    num_steps = count_eval_steps(num_samples, batch_size=batch_size, world_size=world_size)
    mine = range(rank, num_samples, world_size)
    for position in range(num_steps * batch_size):
        index = mine[position] if position < len(mine) else PADDING
        yield np.array((0, index, 0), np.int64)
