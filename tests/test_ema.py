"""Averaged weights against timm's ModelEmaV3."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.optim.ema import Ema


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, False), (0.999, True), (0.5, True)])
def test_averages_equal_timm(decay: float, warmup: bool) -> None:
    from torch_oracle import timm, torch  # Not above: the other tests here need no oracle.

    rng = np.random.default_rng(0)
    module = torch.nn.BatchNorm1d(4)
    theirs = timm.utils.ModelEmaV3(module, decay=decay, use_warmup=warmup)
    names = ["weight", "bias", "running_mean", "running_var"]
    ours = [Parameter(Tensor(module.state_dict()[n].numpy().copy()), name=n) for n in names]
    ema = Ema(ours, decay=decay, warmup=warmup)
    for update in range(1, 30):
        for parameter in ours:
            value = rng.normal(size=4).astype(np.float32)
            parameter.set_data(Tensor(value))
            module.state_dict()[parameter.name].copy_(torch.tensor(value))
        ema()
        theirs.update(module, step=update if warmup else None)
    state = theirs.module.state_dict()
    for parameter, average in zip(ours, ema.averages):
        expected = state[parameter.name].numpy()
        np.testing.assert_allclose(average.asnumpy(), expected, rtol=2e-5, atol=1e-6)
    assert int(ema.updates.asnumpy()) == 29


def test_constant_weights_stay_constant_to_the_bit() -> None:
    value = np.array([0.1, -3.3, 1e-20, 7e7], np.float32)
    ema = Ema([Parameter(Tensor(value), name="w")], decay=0.9997, warmup=False)
    for _ in range(50):
        ema()
    np.testing.assert_array_equal(ema.averages[0].asnumpy(), value)


def test_applied_swaps_and_restores_even_after_an_error() -> None:
    net = nn.Dense(3, 2)
    ema = Ema(list(net.get_parameters()), decay=0.0, warmup=False)
    averages = copy.deepcopy([a.asnumpy() for a in ema.averages])
    x = Tensor(np.ones((1, 3), np.float32))
    of_averages = net(x).asnumpy()
    for parameter in net.get_parameters():
        parameter.set_data(Tensor(parameter.asnumpy() + 1))
    own = [p.asnumpy().copy() for p in net.get_parameters()]

    def fail_with_averages() -> None:
        with ema.applied():
            np.testing.assert_array_equal(net(x).asnumpy(), of_averages)
            raise KeyError

    with pytest.raises(KeyError):
        fail_with_averages()
    for parameter, value in zip(net.get_parameters(), own):
        np.testing.assert_array_equal(parameter.asnumpy(), value)
    for average, value in zip(ema.averages, averages):
        np.testing.assert_array_equal(average.asnumpy(), value)
