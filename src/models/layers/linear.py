"""The fully connected layer of the transformer families."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal

from ...kernels import cells, selection


class Dense(nn.Dense):
    """x W^T + b over the last axis: (..., in_features) -> (..., out_features).

    For native kernels only: MindSpore 2.0 takes two subclasses' `super().construct` for one graph.
    """

    def __init__(self, in_features: int, out_features: int, **keywords: Any) -> None:
        super().__init__(in_features, out_features, **keywords)
        self.native = cells.NativeLinear()
        self.no_bias = ops.zeros(out_features, ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        if x.dtype == ms.float32:
            return self.native(x, self.weight, self.bias if self.has_bias else self.no_bias)
        return super().construct(x)


class Product(nn.Cell):
    """x W^T + b for a cell that has weight and bias itself: (N, C), (C', C), (C',) -> (N, C')."""

    def __init__(self) -> None:
        super().__init__()
        self.native = cells.NativeLinear() if selection.is_native() else None
        self.product = ops.MatMul(transpose_b=True)
        self.add_bias = ops.BiasAdd()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.native is not None:
            return self.native(x, weight, bias)
        return self.add_bias(self.product(x, weight), bias)


def create_linear(
    in_features: int, out_features: int, *, bias: bool = True, sigma: float = 0.02
) -> nn.Dense:
    """Dense layer with truncated normal weights (`sigma`, cut at +-2) and zero bias.

    Shapes: (..., in_features) -> (..., out_features). The initialisation is explicit because the
    framework's default changed between 2.0 and 2.10.
    """
    dense = Dense if selection.is_native() else nn.Dense
    return dense(
        in_features,
        out_features,
        weight_init=TruncatedNormal(sigma),
        bias_init="zeros",
        has_bias=bias,
    )
