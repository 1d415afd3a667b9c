"""The order of samples, and every random generator of the data pipeline.

No global random state is read or written: each generator is a counter-based Philox (Salmon et al.,
"Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) whose position says what it is for:

    key     = (seed, stream)          stream: one of the _*_STREAM tags below
    counter = (block, a, b, c)        block: runs from 0 as numbers are drawn
                                      (a, b, c): what is drawn for, see the three functions

Different streams, or different (a, b, c), never share a number; 2**64 blocks lie between them.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Iterator, NamedTuple, Optional

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from ..run_length import RunLength

_EPOCH_STREAM = 1
_SAMPLE_STREAM = 2
_BATCH_STREAM = 3

# The index of a key that stands for no image: it fills the last batch of an evaluation.
PADDING = -1


class Key(NamedTuple):
    """What one sample of a run is made from; all its random numbers follow from it and the seed.

    Attributes:
        epoch: from 0; 0 in evaluation.
        sample: index of the image in the dataset, or PADDING.
        repeat: which of the image's copies in the epoch, from 0.
    """

    epoch: int
    sample: int
    repeat: int


class _ReadyKey(ISeedSequence):
    """A key in the place of a seed.

    Beside `key=`, NumPy seeds a sequence that nobody uses from the system's randomness first: three
    times as long under the interpreter's lock, which is released five times meanwhile.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._key = np.array((seed, stream), np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        return self._key


# NumPy's types admit no other class than its own, its code every `ISeedSequence`.
_ready_key: Callable[[int, int], Any] = functools.lru_cache(_ReadyKey)


def _generator(seed: int, stream: int, a: int = 0, b: int = 0, c: int = 0) -> np.random.Generator:
    counter = (int(c) << 192) | (int(b) << 128) | (int(a) << 64)
    return np.random.Generator(np.random.Philox(_ready_key(seed, stream), counter=counter))


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Generator of the order of one epoch."""
    return _generator(seed, _EPOCH_STREAM, epoch)


def sample_generator(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Generator of one image's augmentation: `index` in the dataset, `repeat` within the epoch."""
    return _generator(seed, _SAMPLE_STREAM, epoch, index, repeat)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Generator of one batch's mixing; `batch` counts the epoch's batches over all ranks."""
    return _generator(seed, _BATCH_STREAM, epoch, batch)


class Order(NamedTuple):
    """In which order an epoch visits the samples.

    Attributes:
        sample: (N,) int64, indices.
        copy: (N,) int64, how often the sample is in the order before, or in another place: no two
            entries have both the same.
    """

    sample: np.ndarray
    copy: np.ndarray


def class_shares(images_per_class: np.ndarray, balance: str) -> np.ndarray:
    """Share of an epoch that each class has: (K,) float64, 0 for classes without images.

    In proportion to n ** q of its images n (Kang et al., arXiv 1910.09217, equation 1).

    Args:
        balance: none, q = 1; sqrt, q = 1/2; full, q = 0.
    """
    images = np.asarray(images_per_class, np.float64)
    power = {"none": 1.0, "sqrt": 0.5, "full": 0.0}[balance]
    weights = np.where(images > 0, images**power, 0.0)
    return weights / math.fsum(weights)


def balanced_order(labels: np.ndarray, balance: str, *, seed: int, epoch: int) -> Order:
    """As many entries as samples, of which each class has its share, rounded up or down.

    Within a class every sample is there equally often, up to one: which ones have one more is drawn
    anew in each epoch.

    Args:
        labels: (N,) of all samples.
        balance: sqrt or full, see `class_shares`.
    """
    rng = epoch_generator(seed, epoch)
    images = np.bincount(labels)
    ends = np.floor(len(labels) * np.cumsum(class_shares(images, balance)) + rng.random())
    ends = np.minimum(ends, len(labels))
    ends[-1] = len(labels)
    due = np.diff(ends.astype(np.int64), prepend=0)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(images)[:-1])
    samples, copies = [], []
    for members, count in zip(by_class, due):
        if len(members):
            drawn = np.resize(rng.permutation(members), count)  # again and again, in this order
            samples.append(drawn)
            copies.append(np.arange(count) // len(members))
    shuffled = rng.permutation(len(labels))
    return Order(np.concatenate(samples)[shuffled], np.concatenate(copies)[shuffled])


def order_of_epoch(
    num_samples: int, *, seed: int, epoch: int, labels: Optional[np.ndarray], balance: str
) -> Order:
    """`balanced_order`, or of balance none `epoch_order`, which needs no labels."""
    if balance != "none" and labels is not None:
        return balanced_order(labels, balance, seed=seed, epoch=epoch)
    order = epoch_order(num_samples, seed=seed, epoch=epoch)
    return Order(order, np.zeros_like(order))


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Order in which an epoch visits the samples: (num_samples,) int64, a permutation."""
    return epoch_generator(seed, epoch).permutation(num_samples)


def train_keys(
    num_samples: int,
    length: RunLength,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    rank: int,
    world_size: int,
    repeats: int = 1,
    labels: Optional[np.ndarray] = None,
    balance: str = "none",
) -> Iterator[Key]:
    """Keys of the images that one rank sees from `first_step` to the end of the run.

    Step t of an epoch covers the same samples on any number of ranks with the same global batch:
    rank r takes every world_size-th entry of the epoch's order, from r on.

    Repeated augmentation (Hoffer et al., arXiv 1901.09335; DeiT's sampler): each entry of the order
    stands there `repeats` times in a row, so its copies go to different ranks, and an epoch covers
    1/repeats of the images. timm has it in distributed training only; here one rank will do.

    Args:
        batch_size: images that a rank sees in a step.
        labels, balance: as of `order_of_epoch`.
    """
    first_epoch, skipped_steps = divmod(first_step, length.steps_per_epoch)
    for epoch in range(first_epoch, length.num_epochs):
        order = order_of_epoch(num_samples, seed=seed, epoch=epoch, labels=labels, balance=balance)
        mine = range(rank, repeats * num_samples, world_size)
        for entry in mine[skipped_steps * batch_size : length.steps_per_epoch * batch_size]:
            place, repeat = divmod(entry, repeats)
            yield Key(epoch, int(order.sample[place]), int(order.copy[place]) * repeats + repeat)
        skipped_steps = 0


def count_eval_steps(num_samples: int, *, batch_size: int, world_size: int) -> int:
    """Batches of every rank so that each sample is seen once; the last may hold padding."""
    longest_share = -(-num_samples // world_size)
    return -(-longest_share // batch_size)


def eval_keys(num_samples: int, *, batch_size: int, rank: int, world_size: int) -> Iterator[Key]:
    """Keys of one rank's share of an evaluation, in the dataset's order, then padding.

    Every rank gets as many.
    """
    num_steps = count_eval_steps(num_samples, batch_size=batch_size, world_size=world_size)
    mine = range(rank, num_samples, world_size)
    for position in range(num_steps * batch_size):
        yield Key(0, mine[position] if position < len(mine) else PADDING, 0)
