"""What CCT, CVT and ViT-Lite are made of behind the tokenizer (Hassani et al. 2021).

Legend: B batch, N tokens, C embedding_dim. Names are the authors', but for norms.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from ..overrides import Overridable
from .layers.activation import create_activation
from .layers.attention import Attention
from .layers.drop_path import DropPath
from .layers.dropout import Dropout
from .layers.linear import create_linear
from .layers.norm import LayerNorm
from .layers.positions import sinusoidal_embedding


class EncoderLayer(Overridable, nn.Cell):
    """One encoder layer, (B, N, C) -> (B, N, C).

    Unlike ViT, `norm1` normalises the residual stream itself, as the authors' code does.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        hidden_dim: int,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        nonlinearity: str,
    ) -> None:
        super().__init__()
        self.pre_norm = LayerNorm(dim, epsilon=1e-5)
        self.self_attn = Attention(
            dim, num_heads, attn_drop=attention_dropout, proj_drop=dropout, qkv_bias=False
        )
        self.norm1 = LayerNorm(dim, epsilon=1e-5)
        self.linear1 = create_linear(dim, hidden_dim)
        self.activation = create_activation(nonlinearity)
        self.linear2 = create_linear(hidden_dim, dim)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        x = self.norm1(self.drop_path1.add(x, self.self_attn(self.pre_norm(x))))
        return self.drop_path2.add(x, self.dropout2(self.perceptron(x)))

    def perceptron(self, x: Tensor) -> Tensor:
        """Both linear layers and what is between them, (B, N, C) -> (B, N, C)."""
        hidden = self.dropout1(self.activation(self.linear1(x)))  # (B, N, hidden_dim)
        return self.linear2(hidden)


class TransformerClassifier(nn.Cell):
    """Encoder and head, (B, N, C) -> (B, num_classes) (sections 3.1 and 3.2)."""

    def __init__(
        self,
        length: int,
        dim: int,
        *,
        num_layers: int,
        seq_pool: bool,
        positional_embedding: str,
        dropout: float,
        drop_path_rate: float,
        **layer: Any,
    ) -> None:
        super().__init__()
        self.seq_pool = seq_pool
        if seq_pool:
            self.attention_pool = create_linear(dim, 1)
            self.softmax = nn.Softmax(axis=1)  # a cell, so that mixed precision can leave it alone
        else:
            length += 1
            self.class_emb = Parameter(initializer("zeros", (1, 1, dim)), name="class_emb")
        self.positional_emb = self._positions(positional_embedding, length, dim)
        self.dropout = Dropout(dropout)
        rates = np.linspace(0.0, drop_path_rate, num_layers)
        self.blocks = nn.CellList(
            [EncoderLayer(dim, dropout=dropout, drop_path=float(rate), **layer) for rate in rates]
        )
        self.norm = LayerNorm(dim, epsilon=1e-5)
        self.fc = nn.Identity()  # until `reset_classifier`

    @staticmethod
    def _positions(kind: str, length: int, dim: int) -> Optional[Parameter]:
        if kind == "learnable":
            table = initializer(TruncatedNormal(0.2), (1, length, dim))
            return Parameter(table, name="positional_emb")
        if kind == "sine":
            table = Tensor(sinusoidal_embedding(length, dim))
            return Parameter(table, name="positional_emb", requires_grad=False)
        if kind == "none":
            return None
        raise ValueError(f"positional_embedding {kind!r}: expected 'learnable', 'sine' or 'none'")

    def embed(self, x: Tensor) -> Tensor:
        """(B, N, C) tokens -> (B, N, C), what the first layer reads (N + 1 with a class token)."""
        if not self.seq_pool:
            token = ops.broadcast_to(self.class_emb.astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = ops.concat((token, x), axis=1)  # (B, N + 1, C)
        if self.positional_emb is not None:
            x = x + self.positional_emb.astype(x.dtype)
        return self.dropout(x)

    def encode(self, x: Tensor) -> Tensor:
        """(B, N, C) tokens -> (B, N, C) normalised features (N + 1 with a class token)."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool_weights(self, x: Tensor) -> Tensor:
        """(B, N, C) features -> (B, N, 1), the share of each token in SeqPool."""
        return self.softmax(self.attention_pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """(B, N, C) features -> (B, C), by SeqPool or the class token."""
        if not self.seq_pool:
            return x[:, 0]
        weights = self.pool_weights(x)
        return (weights * x.astype(weights.dtype)).sum(axis=1)
