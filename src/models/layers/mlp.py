"""The two-layer perceptron of a transformer block (Vaswani et al. 2017, section 3.3)."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn

from ...kernels import cells, selection
from .activation import Gelu, create_activation
from .linear import create_linear


class Mlp(nn.Cell):
    """Expands, activates and projects back the last axis: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden_dim: int, *, nonlinearity: str) -> None:
        super().__init__()
        self.fc1 = create_linear(dim, hidden_dim)
        self.act = create_activation(nonlinearity)
        self.fc2 = create_linear(hidden_dim, dim)
        self.native = native_mlp(self.act)

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            one, two = self.fc1, self.fc2
            return self.native(x, one.weight, one.bias, two.weight, two.bias)
        return self.fc2(self.act(self.fc1(x)))


def native_mlp(activation: nn.Cell) -> Optional[cells.NativeMlp]:
    """Both layers and the activation between them at once, where there is a kernel for that."""
    return cells.NativeMlp() if selection.is_native() and isinstance(activation, Gelu) else None
