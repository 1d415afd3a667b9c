"""The fully connected layer of the transformer families."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal

from src.kernels import cells, selection


class Linear(nn.Dense):
    """x W^T + b over the last axis: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, **keywords: Any) -> None:
        super().__init__(in_features, out_features, **keywords)
        self.native = None
        if self.has_bias and selection.is_native():
            self.native = cells.NativeBias()
            self.product = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            y = self.product(x.reshape(-1, self.in_channels), self.weight)
            return self.native(y, self.bias).reshape(x.shape[:-1] + (self.out_channels,))
        return super().construct(x)


def create_linear(
    in_features: int, out_features: int, *, bias: bool = True, sigma: float = 0.02
) -> Linear:
    """Dense layer with truncated normal weights (`sigma`, cut at +-2) and zero bias.

    Shapes: (..., in_features) -> (..., out_features). The initialisation is explicit because the
    framework's default changed between 2.0 and 2.10.
    """
    return Linear(
        in_features,
        out_features,
        weight_init=TruncatedNormal(sigma),
        bias_init="zeros",
        has_bias=bias,
    )
