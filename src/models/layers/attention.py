"""Multi-head self-attention (Vaswani et al. 2017, section 3.2; ViT, appendix A).

Legend: B batch, N queries, M keys, C channels, h heads, d = C / h channels of a head.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from ...overrides import Overridable
from .dropout import Dropout
from .linear import create_linear


class SplitHeads(nn.Cell):
    """(B, N, parts C) -> `parts` times (B, h, N, d); one of them comes as it is."""

    def __init__(self, parts: int, num_heads: int) -> None:
        super().__init__()
        self.parts, self.num_heads = parts, num_heads
        self.unstack = ops.Unstack(axis=0)

    def construct(self, x: ms.Tensor) -> Any:
        batch, tokens, channels = x.shape
        head_dim = channels // (self.parts * self.num_heads)
        if self.parts == 1:
            return x.reshape(batch, tokens, self.num_heads, head_dim).transpose(0, 2, 1, 3)
        x = x.reshape(batch, tokens, self.parts, self.num_heads, head_dim)
        return self.unstack(x.transpose(2, 0, 3, 1, 4))


class DotProductAttention(nn.Cell):
    """softmax(q k^T / sqrt(d)) v: (B, h, N, d), 2 x (B, h, M, d) -> (B, N, C).

    The softmax is a cell of its own so that mixed precision can leave it in float32.
    """

    def __init__(self, head_dim: int, *, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.scale = head_dim**-0.5
        self.softmax = nn.Softmax(axis=-1)
        self.attn_drop = Dropout(attn_drop)
        self.query_key = ops.BatchMatMul(transpose_b=True)
        self.weight_value = ops.BatchMatMul()

    def construct(self, q: ms.Tensor, k: ms.Tensor, v: ms.Tensor) -> ms.Tensor:
        batch, heads, tokens, head_dim = q.shape
        weights = self.softmax(self.query_key(q * self.scale, k))  # (B, h, N, M)
        weights = self.attn_drop(weights).astype(v.dtype)
        x = self.weight_value(weights, v)  # (B, h, N, d)
        return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * head_dim)  # -> (B, N, C)


class SelfAttention(Overridable, nn.Cell):
    """Every token attends to all: q, k and v side by side (B, N, 3 C) -> (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, *, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.split = SplitHeads(3, num_heads)
        self.attend = DotProductAttention(head_size(dim, num_heads), attn_drop=attn_drop)

    def construct(self, qkv: ms.Tensor) -> ms.Tensor:
        q, k, v = self.split(qkv)  # (B, N, 3 C) -> 3 x (B, h, N, d)
        return self.attend(q, k, v)


class CrossAttention(Overridable, nn.Cell):
    """Tokens or places of a map attend to others.

    q (B, ..., C), k and v side by side (B, ..., 2 C) -> (B, ..., C).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.split_q, self.split_kv = SplitHeads(1, num_heads), SplitHeads(2, num_heads)
        self.attend = DotProductAttention(head_size(dim, num_heads))

    def construct(self, q: ms.Tensor, kv: ms.Tensor) -> ms.Tensor:
        batch, channels = q.shape[0], q.shape[-1]
        k, v = self.split_kv(kv.reshape(batch, -1, 2 * channels))  # -> 2 x (B, h, M, d)
        queries = self.split_q(q.reshape(batch, -1, channels))  # -> (B, h, N, d)
        return self.attend(queries, k, v).reshape(q.shape)


class Attention(nn.Cell):
    """Self-attention over all tokens, shape (B, N, C) -> (B, N, C).

    The rows of `qkv.weight` are ordered q, k, v, then head, then channel, as in timm.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_size(dim, num_heads)
        self.inner_attn = SelfAttention(dim, num_heads, attn_drop=attn_drop)
        self.qkv = create_linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = create_linear(dim, dim)
        self.proj_drop = Dropout(proj_drop)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.proj_drop(self.proj(self.inner_attn(self.qkv(x))))

    def mean_weights(self, x: ms.Tensor) -> ms.Tensor:
        """(B, N, C) -> (B, N, N) float32, the softmax of q k^T averaged over the heads."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        qkv = qkv.transpose(2, 0, 3, 1, 4).astype(ms.float32)  # -> (3, B, h, N, d)
        scores = ops.matmul(qkv[0] * self.head_dim**-0.5, qkv[1].swapaxes(-2, -1))
        return ops.softmax(scores, axis=-1).mean(axis=1)  # (B, h, N, N) -> (B, N, N)


def head_size(dim: int, num_heads: int) -> int:
    """Channels of one head.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """
    if dim % num_heads:
        raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
    return dim // num_heads
