"""The pre-norm transformer block (Dosovitskiy et al. 2021, equations 2 and 3)."""

from __future__ import annotations

from mindspore import Tensor, nn

from .drop_path import DropPath
from .mlp import Mlp, hidden_width
from .norm import LayerNorm


class TransformerBlock(nn.Cell):
    """Attention and perceptron, each on a normalised copy of the residual stream.

    Shapes: (..., C) -> (..., C), with whatever leading axes `attention` takes.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Cell,
        *,
        mlp_ratio: float,
        drop_path: float,
        nonlinearity: str,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, epsilon=1e-6)
        self.attn = attention
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = LayerNorm(dim, epsilon=1e-6)
        self.mlp = Mlp(dim, hidden_width(dim, mlp_ratio), nonlinearity=nonlinearity)
        self.drop_path2 = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        x = self.drop_path1.add(x, self.attn(self.norm1(x)))
        return self.drop_path2.add(x, self.mlp(self.norm2(x)))
