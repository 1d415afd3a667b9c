"""The hash behind stochastic depth and dropout: exact, however a device divides integers."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import mindspore as ms
import numpy as np
import pytest
from fixtures.make_draws import draws
from mindspore import Parameter, Tensor

from src.models.layers.random_draws import KEYS, PRIME, SeededUniform, divide

DRAWS = Path(__file__).resolve().parent / "fixtures" / "draws.npz"


def test_a_round_is_a_cube_of_every_residue_and_key() -> None:
    step = Parameter(Tensor(0, ms.int32), name="step", requires_grad=False)
    absorb = SeededUniform(1, step, 0, 4).absorb
    residues = np.arange(PRIME)
    for key in (0, 1, 2, 12345, PRIME - 1, PRIME, KEYS - 1):
        mixed = (residues + key) % PRIME
        rounds = absorb(Tensor(residues, ms.int32), key)
        assert rounds.dtype == ms.int32
        np.testing.assert_array_equal(rounds.asnumpy(), (mixed**3 + 12345) % PRIME)
        assert len(set(rounds.asnumpy().tolist())) == PRIME


def rounded(number: np.ndarray) -> np.ndarray:
    return np.floor(number.astype(np.float32) / np.float32(PRIME))


def by_reciprocal(number: np.ndarray) -> np.ndarray:
    return np.floor(number.astype(np.float32) * (np.float32(1) / np.float32(PRIME)))


def split(number: np.ndarray) -> np.ndarray:
    high, low = np.divmod(number, 2**24)
    step = np.float32(2**24) / np.float32(PRIME)
    return np.floor(high.astype(np.float32) * step + low.astype(np.float32) / np.float32(PRIME))


@pytest.mark.parametrize("quotient_of", [rounded, by_reciprocal, split])
def test_steps_are_divided_exactly_under_float32(quotient_of: Callable) -> None:
    multiples = np.arange(1, (2**31 - PRIME) // PRIME) * PRIME
    drawn = np.random.default_rng(0).integers(0, 2**31 - PRIME, 10**6)
    cases = (np.arange(PRIME), *(multiples + offset for offset in (-2, -1, 0, 1, 2)), drawn)
    numbers = np.concatenate(cases).astype(np.int32)
    quotients = quotient_of(numbers).astype(np.int32)
    assert (quotients != numbers // PRIME).any()  # so there is something to be mended
    high, low = divide(numbers, quotients)
    assert high.dtype == low.dtype == np.int32
    np.testing.assert_array_equal(high, numbers // PRIME)
    np.testing.assert_array_equal(low, numbers % PRIME)


def test_draws_are_those_of_earlier_versions(mode: str) -> None:
    with np.load(DRAWS) as stored:
        for name, found in draws().items():
            np.testing.assert_array_equal(found, stored[name], err_msg=name)
