"""Stochastic depth: distribution, independence, repeatability."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from scipy.stats import chisquare, kstest

from src.models.layers.drop_path import DropPath, seed_drop_paths
from src.models.layers.random_draws import SeededUniform


def uniforms(layer: int, *, seed: int = 1, steps: int = 200, batch: int = 128) -> np.ndarray:
    """(steps, batch) numbers of one layer."""
    step = Parameter(Tensor(0, ms.int32), name="step", requires_grad=False)
    cell = SeededUniform(seed, step, layer, batch)
    rows = []
    for number in range(steps):
        step.set_data(Tensor(number, ms.int32))
        rows.append(cell(batch).asnumpy())
    return np.stack(rows)


def test_numbers_are_uniform_and_independent() -> None:
    first, other = uniforms(0), uniforms(1)
    assert kstest(first.ravel(), "uniform").pvalue > 1e-3
    pairs = {
        "layers": (first, other),
        "seeds": (first, uniforms(0, seed=2)),
        "samples": (first[:, :-1], first[:, 1:]),
        "steps": (first[:-1], first[1:]),
        "steps of layers": (first[1:], other[:-1]),
    }
    for name, (a, b) in pairs.items():
        counts, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=8, range=[[0, 1], [0, 1]])
        assert chisquare(counts.ravel()).pvalue > 1e-3, name


def test_numbers_do_not_collapse_at_large_steps() -> None:
    step = Parameter(Tensor(2_000_000_000, ms.int32), name="step", requires_grad=False)
    values = SeededUniform(7, step, 3, 4096)(4096).asnumpy()
    assert kstest(values, "uniform").pvalue > 1e-3


class TwoPaths(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.first = DropPath(0.25)
        self.none = DropPath(0.0)
        self.last = DropPath(0.5)

    def construct(self, x: Tensor) -> Tensor:
        return self.last(self.none(self.first(x)))


def test_drops_whole_samples_with_the_right_frequency_and_scale() -> None:
    net = TwoPaths().set_train(True)
    step = Parameter(Tensor(0, ms.int32), name="step", requires_grad=False)
    seed_drop_paths(net, seed=5, step=step, batch_size=512)
    x = Tensor(np.ones((512, 3, 2), np.float32))
    kept = []
    for number in range(40):
        step.set_data(Tensor(number, ms.int32))
        y = net(x).asnumpy()
        assert np.array_equal(y, net(x).asnumpy())  # the same step draws the same
        assert np.all(y == y[:, :1, :1])
        kept.append(y[:, 0, 0])
    kept = np.concatenate(kept)
    assert np.allclose(np.unique(kept), [0.0, 1 / (0.75 * 0.5)])
    assert (kept > 0).mean() == pytest.approx(0.375, abs=0.015)
    np.testing.assert_array_equal(net.set_train(False)(x).asnumpy(), x.asnumpy())


def test_without_a_training_step_the_framework_draws() -> None:
    path = DropPath(0.5).set_train(True)
    y = path(Tensor(np.ones((4000, 1), np.float32))).asnumpy()
    assert (y > 0).mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="drop_prob 1"):
        DropPath(1.0)
