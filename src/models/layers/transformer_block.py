"""The pre-norm transformer block (Dosovitskiy et al. 2021, equations 2 and 3)."""

from __future__ import annotations

from typing import Optional

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Constant, initializer

from .drop_path import DropPath
from .mlp import Mlp, hidden_width
from .norm import LayerNorm


class LayerScale(nn.Cell):
    """`gamma` (C,) of a branch's channels (Touvron et al. 2021, "Going deeper", section 2)."""

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = Parameter(initializer(Constant(init_value), (dim,)), name="gamma")


class TransformerBlock(nn.Cell):
    """Attention and perceptron, each on a normalised copy of the residual stream.

    Shapes: (..., C) -> (..., C), with whatever leading axes `attention` takes.

    Args:
        init_values: initial layer scale of both branches; None: there is none.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Cell,
        *,
        mlp_ratio: float,
        drop_path: float,
        nonlinearity: str,
        init_values: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, epsilon=1e-6)
        self.attn = attention
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = LayerNorm(dim, epsilon=1e-6)
        self.mlp = Mlp(dim, hidden_width(dim, mlp_ratio), nonlinearity=nonlinearity)
        self.drop_path2 = DropPath(drop_path)
        self.has_scales = init_values is not None
        if init_values is not None:
            self.ls1, self.ls2 = LayerScale(dim, init_values), LayerScale(dim, init_values)

    def construct(self, x: Tensor) -> Tensor:
        if self.has_scales:
            x = self.drop_path1.add_scaled(x, self.attn(self.norm1(x)), self.ls1.gamma)
            return self.drop_path2.add_scaled(x, self.mlp(self.norm2(x)), self.ls2.gamma)
        x = self.drop_path1.add(x, self.attn(self.norm1(x)))
        return self.drop_path2.add(x, self.mlp(self.norm2(x)))
