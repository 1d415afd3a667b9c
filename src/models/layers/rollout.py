"""What attention rollout reads of a transformer (Abnar and Zuidema 2020, section 3).

Legend: B batch, N tokens, C channels, h heads, d = C / h.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from .attention import Attention


def mean_attention(cell: Attention, x: Tensor) -> Tensor:
    """Normalised tokens (B, N, C) -> (B, N, N) float32, the mean of the heads' softmax."""
    batch, tokens, _ = x.shape
    qkv = cell.qkv(x).reshape(batch, tokens, 3, cell.num_heads, cell.head_dim)
    qkv = qkv.transpose(2, 0, 3, 1, 4).astype(ms.float32)  # -> (3, B, h, N, d)
    scores = ops.matmul(qkv[0] * cell.head_dim**-0.5, qkv[1].swapaxes(-2, -1))
    return ops.softmax(scores, axis=-1).mean(axis=1)  # (B, h, N, N) -> (B, N, N)


def equal_shares(x: Tensor, count: int) -> Tensor:
    """Tokens (B, N, C) -> (1, N) float32, 1 / `count` for the first `count`, 0 for the others."""
    first = ops.ones((1, count), ms.float32) / count
    return ops.concat((first, ops.zeros((1, x.shape[1] - count), ms.float32)), axis=1)
