"""Exponential moving average of the network's weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import contextlib
from typing import Iterator, Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .tensors import for_each

PREFIX = "train.ema"


class Ema(nn.Cell):
    """Average of every parameter, running statistics included; `construct()` adds the present ones.

    average <- average + (1 - decay) * (parameter - average), so constant weights stay constant to
    the bit. As timm's ModelEmaV3, whose warmup has decay 1 - t^(-2/3) in update t.

    Args:
        parameters: all parameters of the network; the averages start as copies of them.
        decay: [0, 1).
        warmup: the first update copies, then the decay grows up to `decay`.
    """

    def __init__(self, parameters: Sequence[Parameter], *, decay: float, warmup: bool) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.averages = self.parameters.clone(PREFIX)
        for average in self.averages:
            average.requires_grad = False
        self.updates = Parameter(Tensor(0, ms.int32), name=f"{PREFIX}_updates", requires_grad=False)
        self.decay = decay
        self.warmup = warmup

    def construct(self) -> Tensor:
        updates = self.updates + 1
        ops.assign(self.updates, updates)
        share = 1.0 - self.decay
        if self.warmup:
            share = ops.maximum(ops.pow(updates.astype(ms.float32), -2.0 / 3.0), share)
        for_each(ops.partial(self._average, share), self.averages, self.parameters)
        return updates

    @staticmethod
    def _average(share: Tensor, average: Tensor, parameter: Tensor) -> Tensor:
        return ops.assign(average, average + share * (parameter - average))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network computes with the averages; afterwards with its own weights, to the bit."""
        own = [parameter.asnumpy().copy() for parameter in self.parameters]
        try:
            for parameter, average in zip(self.parameters, self.averages):
                parameter.set_data(Tensor(average.asnumpy()))
            yield
        finally:
            for parameter, value in zip(self.parameters, own):
                parameter.set_data(Tensor(value))
