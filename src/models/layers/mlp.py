"""The two-layer perceptron of a transformer block (Vaswani et al. 2017, section 3.3)."""

from __future__ import annotations

from mindspore import Tensor, nn

from ...overrides import Overridable
from .activation import create_activation
from .linear import create_linear
from .norm import GlobalResponseNorm


class Mlp(Overridable, nn.Cell):
    """Expands, activates and projects back the last axis: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden_dim: int, *, nonlinearity: str) -> None:
        super().__init__()
        self.fc1 = create_linear(dim, hidden_dim)
        self.act = create_activation(nonlinearity)
        self.fc2 = create_linear(hidden_dim, dim)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class GrnMlp(nn.Cell):
    """The same on maps, with a norm behind the activation (Woo et al. 2023, figure 5).

    Shapes: (B, H, W, C) -> the same.
    """

    def __init__(self, dim: int, hidden_dim: int, *, nonlinearity: str) -> None:
        super().__init__()
        self.fc1 = create_linear(dim, hidden_dim)
        self.act = create_activation(nonlinearity)
        self.grn = GlobalResponseNorm(hidden_dim)
        self.fc2 = create_linear(hidden_dim, dim)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.grn(self.act(self.fc1(x))))


def hidden_width(dim: int, mlp_ratio: float) -> int:
    """Channels of the hidden layer for `dim` of the others.

    Raises:
        ValueError: none.
    """
    width = int(dim * mlp_ratio)
    if width < 1:
        raise ValueError(
            f"mlp_ratio {mlp_ratio}: of {dim} channels that is no hidden one; give {1 / dim:.3g} "
            "or more"
        )
    return width
