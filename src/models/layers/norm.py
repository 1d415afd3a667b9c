"""Normalisation layers.

Legend: B batch, C channels, H W map size.
"""

from __future__ import annotations

from typing import Literal, Tuple, Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...kernels import cells, selection
from .activation import Gelu, create_activation
from .layout import NCHW, NHWC, relayout


class LayerNorm(nn.LayerNorm):
    """Normalises the last axis, (..., C) -> (..., C) (Ba et al. 2016)."""

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__((channels,), epsilon=epsilon)
        self.native = cells.NativeLayerNorm(epsilon) if selection.is_native() else None

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x, self.gamma, self.beta)
        return super().construct(x)


class BatchNorm(nn.BatchNorm2d):
    """Normalises every channel over batch and positions (Ioffe and Szegedy 2015).

    Shapes: as `layout` says, in and out.

    Args:
        activation: what is normalised is the output of this cell; for channels-last maps and the
            native kernels, which do both in one.
    """

    def __init__(
        self, channels: int, *, layout: str, activation: Union[Gelu, nn.ReLU, None] = None
    ) -> None:
        super().__init__(channels)
        self.layout = layout
        self.activation, self.by_batch, self.by_running = activation, None, None
        if activation is not None:
            name = kernel_name(activation)
            self.by_batch = cells.NativeBatchNorm(self.eps, MOMENTUM, activation=name)
            self.by_running = cells.NativeRunningNorm(self.eps, activation=name)

    def construct(self, x: Tensor) -> Tensor:
        if self.by_batch is not None and x.dtype == ms.float32:
            return self._native(x)
        if self.activation is not None:
            x = self.activation(x)
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)

    def _native(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.by_running(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)
        y, mean, variance = self.by_batch(
            x, self.gamma, self.beta, self.moving_mean, self.moving_variance
        )
        ops.assign(self.moving_mean, mean)
        ops.assign(self.moving_variance, variance)
        return y


def create_activation_and_norm(
    nonlinearity: str, channels: int, *, layout: str
) -> Tuple[nn.Cell, BatchNorm]:
    """The activation and the norm after it; a norm that does both follows a cell that does nothing.

    Raises:
        ValueError: as `create_activation`.
    """
    activation = create_activation(nonlinearity)
    if layout == NHWC and selection.is_native():
        return nn.Identity(), BatchNorm(channels, layout=layout, activation=activation)
    return activation, BatchNorm(channels, layout=layout)


def kernel_name(activation: Union[Gelu, nn.ReLU]) -> Literal["gelu", "relu"]:
    """What kernels call it."""
    return "gelu" if isinstance(activation, Gelu) else "relu"


# Share of a batch in the running statistics: MindSpore's default, and torch's.
MOMENTUM = 0.1
