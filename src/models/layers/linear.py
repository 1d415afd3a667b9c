"""The fully connected layer of the transformer families."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal

from src.kernels import cells, selection


class Dense(nn.Dense):
    """x W^T + b over the last axis: (..., in_features) -> (..., out_features).

    For native kernels only: MindSpore 2.0 takes two subclasses' `super().construct` for one graph.
    """

    def __init__(self, in_features: int, out_features: int, **keywords: Any) -> None:
        super().__init__(in_features, out_features, **keywords)
        self.product = ops.MatMul(transpose_b=True)
        self.add_bias = cells.NativeBias()
        self.computes_half = False

    def construct(self, x: Tensor) -> Tensor:
        if x.dtype == ms.float32:
            return self.add_bias(self.multiply(x), self.bias)
        return super().construct(x)

    def to_float(self, dst_type: Any) -> Dense:
        """As of every cell; noted, for what bypasses `construct`."""
        self.computes_half = dst_type != ms.float32
        return super().to_float(dst_type)

    def multiply(self, x: Tensor) -> Tensor:
        """The product alone, for an activation that adds the bias itself."""
        y = self.product(x.reshape(-1, self.in_channels), self.weight)
        return y.reshape(x.shape[:-1] + (self.out_channels,))


def create_linear(
    in_features: int, out_features: int, *, bias: bool = True, sigma: float = 0.02
) -> nn.Dense:
    """Dense layer with truncated normal weights (`sigma`, cut at +-2) and zero bias.

    Shapes: (..., in_features) -> (..., out_features). The initialisation is explicit because the
    framework's default changed between 2.0 and 2.10.
    """
    dense = Dense if bias and selection.is_native() else nn.Dense
    return dense(
        in_features,
        out_features,
        weight_init=TruncatedNormal(sigma),
        bias_init="zeros",
        has_bias=bias,
    )
