"""Losses."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class SoftTargetCrossEntropy(nn.Cell):
    """Mean over the batch of -sum_k target_k log softmax(logits)_k, in float32.

    Shapes: logits (B, K) of any float type, target (B, K) float32 whose rows sum to 1 -> ().
    """

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        log_probability = ops.log_softmax(logits.astype(ms.float32), axis=-1)
        return -(target * log_probability).sum(axis=-1).mean()
