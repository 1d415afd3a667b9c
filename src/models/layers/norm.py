"""Normalisation layers.

Legend: B batch, C channels, H W map size.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from ...overrides import Overridable
from .layout import NCHW, relayout

_TINY = 1e-30


class LayerNorm(Overridable, nn.LayerNorm):
    """Normalises the last axis, (..., C) -> (..., C) (Ba et al. 2016)."""

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__((channels,), epsilon=epsilon)


class SimpleNorm(nn.Cell):
    """Divides the last axis by its standard deviation, (..., C) -> (..., C): timm's `SimpleNorm`.

    The mean stays. The variance is that of a sample, of C - 1.
    """

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (channels,)), name="weight")
        self.epsilon, self.degrees_of_freedom = epsilon, channels - 1
        self.mean, self.sum = ops.ReduceMean(keep_dims=True), ops.ReduceSum(keep_dims=True)

    def construct(self, x: Tensor) -> Tensor:
        squares = ops.square(x - self.mean(x, -1))
        variance = self.sum(squares, -1) / self.degrees_of_freedom
        return x * ops.rsqrt(variance + self.epsilon) * self.weight.astype(x.dtype)


class GlobalResponseNorm(nn.Cell):
    """Scales each channel of a map by its share of all (Woo et al. 2023, section 3.3).

    Shapes: (B, H, W, C) -> the same. The identity at first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("zeros", (channels,)), name="weight")
        self.bias = Parameter(initializer("zeros", (channels,)), name="bias")
        self.epsilon = 1e-6
        self.mean, self.sum = ops.ReduceMean(keep_dims=True), ops.ReduceSum(keep_dims=True)

    def construct(self, x: Tensor) -> Tensor:
        squares = self.sum(ops.square(x), (1, 2))
        # The root has no gradient at 0, where a ReLU leaves nothing of a channel.
        length = ops.sqrt(ops.maximum(squares, _TINY))  # (B, 1, 1, C)
        share = length / (self.mean(length, -1) + self.epsilon)
        return x + (self.bias.astype(x.dtype) + self.weight.astype(x.dtype) * (x * share))


class BatchNorm(nn.BatchNorm2d):
    """Normalises every channel over batch and positions (Ioffe and Szegedy 2015).

    Shapes: as `layout` says, in and out.
    """

    def __init__(self, channels: int, *, layout: str) -> None:
        super().__init__(channels)
        self.layout = layout

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)
