"""Dropout (Srivastava et al. 2014) that can draw from the step counter, for exact resuming."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ...overrides import Overridable
from .random_draws import PRIME, SeededUniform, numbers

# Stochastic depth numbers its layers from 0.
_FIRST_LAYER = 20000


class Dropout(nn.Cell):
    """Zeroes each element of x (B, ..., M) with probability `p`; the rest is scaled up.

    The identity in evaluation and for probability 0.

    Raises:
        ValueError: `p` outside [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout {p}: expected a number in [0, 1)")
        self.p = p
        self.drop = nn.Dropout(p=p)
        self.is_seeded = False

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return self.drop(x)


class SeededDropout(Overridable, nn.Cell):
    """As nn.Dropout, but what is dropped depends on (seed, step, layer, place) alone.

    Each row (all but the last axis) and each column has a key, a residue hashed as in
    `SeededUniform`; element (r, c) looks the sum of both keys up in one random permutation of the
    residues. That is an addition and a look-up per element, where hashing each would take fifteen
    operations. Rows of different samples can have the same key, and then drop the same columns; of
    100,000 rows each shares its key with about two others.
    """

    def __init__(self, p: float, keys: SeededUniform, *, seed: int) -> None:
        super().__init__()
        self.keys = keys
        self.scale = 1.0 / (1.0 - p)
        order = np.random.default_rng(seed).permutation(PRIME).astype(np.int32)
        self.table = Tensor(np.concatenate([order, order]))
        self.numbers = numbers()
        self.threshold = round(p * PRIME)

    def construct(self, x: Tensor) -> Tensor:
        absorb, batch, columns = self.keys.absorb, x.shape[0], x.shape[-1]
        samples = self.keys.sample_keys(batch).reshape(batch, 1)
        rows = absorb(samples, self.numbers[: x.size // (batch * columns)])  # (B, R)
        rows = absorb(rows, 0).reshape(x.shape[:-1] + (1,))
        columns = absorb(absorb(self.keys.layer_key(), self.numbers[:columns]), 1)  # (M,)
        drawn = ops.gather(self.table, rows + columns, 0)  # (B, ..., M) int32 in [0, PRIME)
        return x * ((drawn >= self.threshold).astype(x.dtype) * self.scale)


def seed_dropouts(network: nn.Cell, *, seed: int, step: Parameter, **place: int) -> None:
    """Makes every active Dropout of `network` draw from (seed, step, its number, sample).

    Args:
        place: `batch_size` and whatever else says which samples there are, as of `SeededUniform`.
    """
    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]
    for number, cell in enumerate(layers):
        if cell.p > 0.0:
            keys = SeededUniform(seed, step, _FIRST_LAYER + number, **place)
            cell.drop = SeededDropout(cell.p, keys, seed=seed)
            cell.is_seeded = True
