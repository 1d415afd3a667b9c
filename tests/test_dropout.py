"""Dropout: distribution, independence, repeatability, gradient; stateless where seeded."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from scipy.stats import chisquare

from src.args import parse_args
from src.models.layers.dropout import (
    ArithmeticDropout,
    Dropout,
    SeededDropout,
    seed_dropouts,
)
from src.trainer.build import build_network, build_train_step

SHAPE = (16, 2, 24, 20)
P = 0.3


class TwoDropouts(nn.Cell):
    """The second one's mask is seen through the first's, so both come out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Dropout(P)
        self.none = Dropout(0.0)
        self.second = Dropout(P)

    def construct(self, x: Tensor) -> Tensor:
        return self.first(self.none(x)), self.second(x)


def seeded(
    seed: int = 1, step: int = 0, form: Callable[..., nn.Cell] = SeededDropout
) -> TwoDropouts:
    network = TwoDropouts().set_train(True)
    counter = Parameter(Tensor(step, ms.int32), name="step", requires_grad=False)
    seed_dropouts(network, seed=seed, step=counter, form=form, batch_size=SHAPE[0])
    return network


def masks(network: TwoDropouts, step: int) -> np.ndarray:
    """(2, *SHAPE) of 0 and 1, both layers'."""
    network.first.drop.keys.step.set_data(Tensor(step, ms.int32))
    outputs = np.stack([y.asnumpy() for y in network(Tensor(np.ones(SHAPE, np.float32)))])
    scale = np.float32(1 / (1 - P))
    assert set(np.unique(outputs)) <= {np.float32(0), scale}
    return outputs / scale


@pytest.fixture(scope="module", params=[SeededDropout, ArithmeticDropout])
def form(request: pytest.FixtureRequest) -> Callable[..., nn.Cell]:
    return request.param


@pytest.fixture(scope="module")
def drawn(form: Callable[..., nn.Cell]) -> np.ndarray:
    """(50 steps, 2 layers, *SHAPE)."""
    network = seeded(form=form)
    return np.stack([masks(network, step) for step in range(50)])


def test_masks_have_the_right_frequency_everywhere(drawn: np.ndarray) -> None:
    assert drawn.mean() == pytest.approx(1 - P, abs=0.003)
    for axis in range(2, 6):
        others = tuple(i for i in range(6) if i != axis)
        kept = drawn.sum(axis=others)
        assert chisquare(kept).pvalue > 1e-3, axis


def test_masks_are_independent(form: Callable[..., nn.Cell], drawn: np.ndarray) -> None:
    pairs = {
        "layers": (drawn[:, 0], drawn[:, 1]),
        "steps": (drawn[1:], drawn[:-1]),
        "samples": (drawn[:, :, 1:], drawn[:, :, :-1]),
        "heads": (drawn[:, :, :, 1], drawn[:, :, :, 0]),
        "rows": (drawn[:, :, :, :, 1:], drawn[:, :, :, :, :-1]),
        "columns": (drawn[..., 1:], drawn[..., :-1]),
        "corners": (drawn[..., 1:, 1:], drawn[..., :-1, :-1]),
        "seeds": (drawn[0], masks(seeded(seed=2, form=form), 0)),
    }
    for name, (a, b) in pairs.items():
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size), name


def test_every_two_columns_are_independent(drawn: np.ndarray) -> None:
    rows = (drawn.reshape(-1, SHAPE[-1]) - (1 - P)) / np.sqrt(P * (1 - P))
    pairs = (rows.T @ rows / np.sqrt(len(rows)))[np.triu_indices(SHAPE[-1], 1)]
    # Rows that share a key add a little to the spread of N(0, 1).
    assert np.abs(pairs).max() < 4.5
    assert pairs.std() < 1.25


def test_a_step_draws_the_same_again_and_evaluation_nothing(
    form: Callable[..., nn.Cell], drawn: np.ndarray
) -> None:
    fresh = seeded(form=form)
    np.testing.assert_array_equal(masks(fresh, 7), drawn[7])
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for y in fresh.set_train(False)(Tensor(x)):
        np.testing.assert_array_equal(y.asnumpy(), x)


def test_the_arithmetic_is_exact_in_float32() -> None:
    """Beside whole numbers, for 4000 rows and all columns, and a few more than all."""
    prime, width, step = (
        2039,
        2100,
        Parameter(Tensor(0, ms.int32), name="step", requires_grad=False),
    )
    layer = Dropout(P).set_train()
    seed_dropouts(layer, seed=1, step=step, form=ArithmeticDropout, batch_size=1)
    slopes = layer.drop.slopes.asnumpy().astype(np.int64)
    factors = np.rint(layer.drop.factors.asnumpy() * np.float64(prime)).astype(np.int64)
    offsets = np.rint(layer.drop.offsets.asnumpy() * np.float64(prime) - 0.5).astype(np.int64)
    assert set(slopes) == set(factors) == set(offsets) == set(range(prime))
    rows, first = layer.drop.keys.row_keys(1, 4000)[0].asnumpy(), layer.drop.keys.layer_key()
    columns = factors[int(first) : int(first) + width]
    expected = (np.outer(slopes[rows], columns) + offsets[rows, None]) % prime
    found = layer(Tensor(np.ones((1, 4000, width), np.float32))).asnumpy()[0]
    np.testing.assert_array_equal(found > 0, expected >= round(P * prime))


def test_an_ascend_looks_nothing_up_for_each_element() -> None:
    words = ["--arch", "cct_2_3x2_32", "--image_size", "32", "--num_classes", "10"]
    words += ["--model_args", "{attention_dropout: 0.1, num_layers: 1}"]
    config = parse_args([*words, "--device_target", "Ascend"])
    network = build_network(config)
    build_train_step(config, network)
    drops = [c.drop for _, c in network.cells_and_names() if isinstance(c, Dropout) and c.p > 0]
    assert drops
    assert all(isinstance(drop, ArithmeticDropout) for drop in drops)


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16])
def test_the_gradient_passes_where_the_value_did(form: Callable[..., nn.Cell], dtype: Any) -> None:
    network = seeded(step=3, form=form)
    x = Tensor(np.ones(SHAPE), dtype)

    def total(x: Tensor) -> Tensor:
        return network.first(x).sum()

    value, grad = ms.value_and_grad(total)(x)
    y = network.first(x)
    assert y.dtype == grad.dtype == dtype
    np.testing.assert_array_equal(grad.asnumpy(), y.asnumpy())
    assert float(value) == pytest.approx(float(y.asnumpy().sum(dtype=np.float64)), rel=1e-2)


def test_without_a_training_step_the_framework_draws() -> None:
    y = Dropout(0.5).set_train(True)(Tensor(np.ones((4000, 1), np.float32))).asnumpy()
    assert (y > 0).mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="dropout 1"):
        Dropout(1.0)
