"""The two-layer perceptron of a transformer block (Vaswani et al. 2017, section 3.3)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from .activation import biased_gelu, create_activation
from .linear import create_linear


class Mlp(nn.Cell):
    """Expands, activates and projects back the last axis: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden_dim: int, *, nonlinearity: str) -> None:
        super().__init__()
        self.fc1 = create_linear(dim, hidden_dim)
        self.act = create_activation(nonlinearity)
        self.fc2 = create_linear(hidden_dim, dim)
        self.biased_gelu = biased_gelu(self.act)

    def construct(self, x: Tensor) -> Tensor:
        is_fused = self.biased_gelu is not None and x.dtype == ms.float32
        if is_fused and not self.fc1.computes_half:
            return self.fc2(self.biased_gelu(self.fc1.multiply(x), self.fc1.bias))
        return self.fc2(self.act(self.fc1(x)))
