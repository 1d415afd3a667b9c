"""Dropout (Srivastava et al. 2014) that can draw from the step counter, for exact resuming."""

from __future__ import annotations

from typing import Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ...overrides import Overridable
from .random_draws import PRIME, SeededUniform

# The largest prime below 2^11.
_MODULUS = 2039
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
        self.threshold = round(p * PRIME)

    def construct(self, x: Tensor) -> Tensor:
        absorb, columns = self.keys.absorb, self.keys.numbers[: x.shape[-1]]
        columns = absorb(absorb(self.keys.layer_key(), columns), 1)  # (M,)
        drawn = ops.gather(self.table, _row_keys(self.keys, x) + columns, 0)  # (B, ..., M) int32
        return x * ((drawn >= self.threshold).astype(x.dtype) * self.scale)


class ArithmeticDropout(nn.Cell):
    """As `SeededDropout` without its look-up for each element, which an Ascend is slow at.

    Element (r, c) is dropped where (a_r * b_c + o_r) mod 2039 is below a threshold (Carter and
    Wegman 1979, "Universal classes of hash functions"): a_r and o_r are random by the key of the
    row, the b_c of 2039 columns in a row differ. So any two elements of a row are independent but
    those 2039 columns apart, which are dropped together; and so are rows with different keys. That
    takes five operations for each element beside the three that apply the mask: a product, a sum, a
    floor, a difference and a comparison of float32, with the outcome of whole numbers.
    """

    def __init__(self, p: float, keys: SeededUniform, *, seed: int) -> None:
        super().__init__()
        self.keys = keys
        self.scale = 1.0 / (1.0 - p)
        draws = np.random.default_rng(seed)
        # As many as a layer's key and a column's number come to together.
        factors = np.tile(draws.permutation(_MODULUS), 2 * PRIME // _MODULUS + 1)
        offsets = draws.integers(0, _MODULUS, PRIME) + 0.5
        self.slopes = Tensor(draws.integers(0, _MODULUS, PRIME), ms.float32)
        self.factors = Tensor(factors / _MODULUS, ms.float32)
        self.offsets = Tensor(offsets / _MODULUS, ms.float32)
        self.threshold = round(p * _MODULUS) / _MODULUS

    def construct(self, x: Tensor) -> Tensor:
        rows = _row_keys(self.keys, x)  # (B, ..., 1)
        columns = self.keys.layer_key() + self.keys.numbers[: x.shape[-1]]
        # In units of 1 / 2039 thresholds are 0.5 away; rounding adds up to less than 0.497.
        place = ops.gather(self.slopes, rows, 0) * ops.gather(self.factors, columns, 0)
        place = place + ops.gather(self.offsets, rows, 0)  # (B, ..., M)
        kept = place - ops.floor(place) >= self.threshold
        return x * (kept.astype(x.dtype) * self.scale)


def _row_keys(keys: SeededUniform, x: Tensor) -> Tensor:
    """x (B, ..., M) -> (B, ..., 1)."""
    batch, columns = x.shape[0], x.shape[-1]
    return keys.row_keys(batch, x.size // (batch * columns)).reshape(x.shape[:-1] + (1,))


def seed_dropouts(
    network: nn.Cell,
    *,
    seed: int,
    step: Parameter,
    form: Callable[..., nn.Cell] = SeededDropout,
    **place: int,
) -> None:
    """Makes every active Dropout of `network` draw from (seed, step, its number, sample).

    Args:
        form: `SeededDropout` or `ArithmeticDropout`; they draw differently.
        place: `batch_size` and whatever else says which samples there are, as of `SeededUniform`.
    """
    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]
    for number, cell in enumerate(layers):
        if cell.p > 0.0:
            keys = SeededUniform(seed, step, _FIRST_LAYER + number, **place)
            cell.drop = form(cell.p, keys, seed=seed)
            cell.is_seeded = True
