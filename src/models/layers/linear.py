"""The fully connected layer of the transformer families."""

from __future__ import annotations

from mindspore import nn
from mindspore.common.initializer import TruncatedNormal

from ...overrides import Overridable


class Dense(Overridable, nn.Dense):
    """x W^T + b over the last axis: (..., in_features) -> (..., out_features)."""


def create_linear(
    in_features: int, out_features: int, *, bias: bool = True, sigma: float = 0.02
) -> Dense:
    """Dense layer with truncated normal weights (`sigma`, cut at +-2) and zero bias.

    Shapes: (..., in_features) -> (..., out_features). The initialisation is explicit because the
    framework's default changed between 2.0 and 2.10.
    """
    return Dense(
        in_features,
        out_features,
        weight_init=TruncatedNormal(sigma),
        bias_init="zeros",
        has_bias=bias,
    )
