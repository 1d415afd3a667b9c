"""Random numbers of a training step: a hash of (seed, step, layer, sample), exact when resumed."""

from __future__ import annotations

import functools
from typing import Any, Tuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ...overrides import Overridable

# 3 does not divide PRIME - 1, so cubing is a bijection of the residues and a round of the hash
# loses nothing.
PRIME = 46337
# What a round absorbs: numbers of layers, samples, rows; quotients of an int32 by PRIME.
KEYS = 2**31 // PRIME + 1


@functools.cache
def round_table() -> Tensor:
    """(PRIME + KEYS,) int32 in [0, PRIME): one round of the hash, by the sum of residue and key.

    A table, because an Ascend divides int32 as float32, whose remainders are wrong above 2^24.
    """
    mixed = np.arange(PRIME + KEYS) % PRIME
    return Tensor((mixed**3 + 12345) % PRIME, ms.int32)


@functools.cache
def numbers() -> Tensor:
    """(PRIME,) int32: 0, 1, 2, ..., of which graphs take the first (`ops.arange` is int64)."""
    return Tensor(np.arange(PRIME), ms.int32)


def divide(number: Any, quotient: Any) -> Tuple[Any, Any]:
    """Quotient and remainder by PRIME, exactly, from a quotient that may be one off.

    Args:
        number: int32 in [0, 2^31 - PRIME), array or tensor.
    """
    rest = number - quotient * PRIME
    quotient = quotient + (rest >= PRIME) - (rest < 0)
    return quotient, number - quotient * PRIME


class FrameworkUniform(nn.Cell):
    """(B,) numbers in [0, 1) from the framework's own stateful generator."""

    def __init__(self) -> None:
        super().__init__()
        self.uniform = ops.UniformReal()

    def construct(self, batch: int) -> Tensor:
        return self.uniform((batch,))


class SeededUniform(Overridable, nn.Cell):
    """(B,) numbers in [0, 1) that depend on nothing but (seed, step, layer, position in the batch).

    The position is that in the batch of all ranks together, of which rank r has entries r,
    r + world_size, ...: so the number of ranks does not change what is drawn.

    A chain of cubings modulo a prime absorbs one key after the other. The resolution is 1 / 46337.
    `step` is a Parameter of the training step, saved with it, so a resumed run draws what an
    uninterrupted one would have drawn.
    """

    def __init__(
        self,
        seed: int,
        step: Parameter,
        layer: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        # Past Cell's own way, which would make the counter a parameter of the network, with a
        # place in its averages and statistics.
        object.__setattr__(self, "step", step)
        self.start = (seed % PRIME + 1) * 7 % PRIME
        self.layer = layer
        self.batch_size = batch_size
        positions = range(rank, batch_size * world_size, world_size)
        self.position = Tensor([i % PRIME for i in positions], ms.int32)
        self.table, self.numbers = round_table(), numbers()

    def absorb(self, state: Tensor, key: Tensor) -> Tensor:
        """One round: int32 in [0, PRIME) of such and of a key in [0, KEYS), or arrays of them."""
        return ops.gather(self.table, state + key, 0)

    def layer_key(self) -> Tensor:
        """() int32 in [0, PRIME), of seed, step and layer."""
        # The Ascend's float32 division makes the quotient of an int32 one off at most.
        high, low = divide(self.step, self.step // PRIME)
        return self.absorb(self.absorb(self.absorb(low, self.start), high), self.layer)

    def sample_keys(self, batch: int) -> Tensor:
        """(B,) int32 in [0, PRIME), of the position too."""
        state = self.absorb(self.layer_key(), self.position[:batch])
        return self.absorb(self.absorb(state, 0), 0)

    def row_keys(self, batch: int, rows: int) -> Tensor:
        """(B, R) int32 in [0, PRIME), of samples and of R rows in each."""
        samples = self.sample_keys(batch).reshape(batch, 1)
        return self.absorb(self.absorb(samples, self.numbers[:rows]), 0)

    def construct(self, batch: int) -> Tensor:
        return self.sample_keys(batch).astype(ms.float32) * (1.0 / PRIME)
