"""The block of ConvMixer (Trockman and Kolter 2022)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Uniform

from src.kernels import cells

from .depthwise_conv import DepthwiseConv
from .drop_path import DropPath
from .norm import MOMENTUM, create_activation_and_norm, kernel_name
from .pointwise_conv import PointwiseConv


def uniform_init(fan_in: int) -> Uniform:
    """PyTorch's default for weights and biases alike, which is all the authors use."""
    return Uniform(fan_in**-0.5)


class Residual(nn.Cell):
    """x + fn(x), where stochastic depth may drop fn(x)."""

    def __init__(self, fn: nn.Cell, *, drop_path: float) -> None:
        super().__init__()
        self.fn = fn
        self.drop_path = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop_path.add(x, self.fn(x))


class ConvMixerBlock(nn.SequentialCell):
    """Mixes positions, then channels: a map -> the same (section 2, equations 2 and 3).

    Only the depthwise part has a residual connection. The activation comes before the norm.
    """

    def __init__(
        self, dim: int, *, kernel_size: int, drop_path: float, nonlinearity: str, layout: str
    ) -> None:
        conv = DepthwiseConv(
            dim,
            kernel_size,
            layout=layout,
            weight_init=uniform_init(kernel_size**2),
            bias_init=uniform_init(kernel_size**2),
        )
        pointwise = PointwiseConv(
            dim, dim, layout=layout, weight_init=uniform_init(dim), bias_init=uniform_init(dim)
        )
        activation, norm = create_activation_and_norm(nonlinearity, dim, layout=layout)
        residual = Residual(nn.SequentialCell(conv, activation, norm), drop_path=drop_path)
        last_activation, last_norm = create_activation_and_norm(nonlinearity, dim, layout=layout)
        super().__init__(residual, pointwise, last_activation, last_norm)
        native = None
        if norm.native is not None:
            name = kernel_name(norm.activation)
            native = cells.NativeConvMixerBlock(norm.eps, MOMENTUM, activation=name)
        # Past Cell's own way, which would make these members of the sequence.
        parts = {"conv": conv, "norm": norm, "pointwise": pointwise, "last_norm": last_norm}
        for name, part in {**parts, "drop_path": residual.drop_path, "native": native}.items():
            object.__setattr__(self, name, part)

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and self.training and x.dtype == ms.float32:
            return self._in_one(x)
        return super().construct(x)

    def _in_one(self, x: Tensor) -> Tensor:
        y, _, _, _, _, mean, variance, _, _, last_mean, last_variance = self.native(
            x,
            self.drop_path.keep(x),
            self.conv.weight,
            self.conv.bias,
            self.norm.gamma,
            self.norm.beta,
            self.norm.moving_mean,
            self.norm.moving_variance,
            self.pointwise.weight,
            self.pointwise.bias,
            self.last_norm.gamma,
            self.last_norm.beta,
            self.last_norm.moving_mean,
            self.last_norm.moving_variance,
        )
        ops.assign(self.norm.moving_mean, mean)
        ops.assign(self.norm.moving_variance, variance)
        ops.assign(self.last_norm.moving_mean, last_mean)
        ops.assign(self.last_norm.moving_variance, last_variance)
        return y
