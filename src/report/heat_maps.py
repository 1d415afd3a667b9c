"""Where a network looks: Grad-CAM for maps of features, attention rollout for class tokens.

Legend: B batch, N tokens (n of them before the patches), h x w grid of the last features.
"""

from __future__ import annotations

from typing import Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import UserError
from ..models.cct import CCT
from ..models.classifier import Classifier
from ..models.deit import DeiT


class _ClassScore(nn.Cell):
    """Features -> the sum over the batch of the logits of one class each."""

    def __init__(self, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, features: Tensor, one_hot: Tensor) -> Tensor:
        return (self.network.forward_head(features).astype(ms.float32) * one_hot).sum()


class _Features(nn.Cell):
    """(B, H, W, 3) uint8 -> the family's features in float32."""

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        return self.network.forward_features(self.normalize(image)).astype(ms.float32)


class GradCam:
    """relu(sum over channels of (mean gradient of the class's logit) * feature) (Selvaraju 2017).

    The features are the last ones before pooling, so only the head is differentiated.
    """

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        self._features = _Features(normalize, network).set_train(False)
        self._gradient = ops.grad(_ClassScore(network).set_train(False))

    def __call__(self, image: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Images (B, H, W, 3) uint8, the class of each (B,) -> (B, h, w) float64, >= 0."""
        features = self._features(Tensor(image))
        one_hot = Tensor(np.eye(num_classes, dtype=np.float32)[label])
        gradient = self._gradient(features, one_hot).asnumpy().astype(np.float64)
        values = features.asnumpy().astype(np.float64)
        if values.ndim == 3:  # (B, N, C) -> (B, C, h, w)
            values, gradient = _as_maps(values), _as_maps(gradient)
        weights = gradient.mean(axis=(2, 3), keepdims=True)
        return np.maximum((weights * values).sum(axis=1), 0.0)


def _as_maps(tokens: np.ndarray) -> np.ndarray:
    batch, length, channels = tokens.shape
    side = _side(length)
    return tokens.transpose(0, 2, 1).reshape(batch, channels, side, side)


class _Rollout(nn.Cell):
    """(B, H, W, 3) uint8 -> (B, N), how much of each input token reaches the classifier.

    The product over the layers of (A + I) / 2, A the mean attention of the heads (Abnar and
    Zuidema 2020, section 3); then the row of the class token, or SeqPool's mean of the rows.
    """

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network
        self.is_cct = isinstance(network, CCT)
        self.pools = isinstance(network, CCT) and network.classifier.seq_pool
        self.blocks = network.classifier.blocks if self.is_cct else network.blocks
        self.num_prefix_tokens = 1 if self.is_cct else getattr(network, "num_prefix_tokens", 1)

    def construct(self, image: Tensor) -> Tensor:
        x = self.normalize(image)
        if self.is_cct:
            x = self.network.classifier.embed(self.network.tokenizer(x))
        else:
            x = self.network.embed(x)
        identity = ops.eye(x.shape[1], x.shape[1], ms.float32)
        flow = identity
        for block in self.blocks:
            if self.is_cct:
                attention = self.attention(block.self_attn, block.pre_norm(x))
            else:
                attention = self.attention(block.attn, block.norm1(x))
            flow = ops.matmul((attention + identity) / 2, flow)
            x = block(x)
        if self.pools:
            shares = self.network.classifier.pool_weights(self.network.classifier.norm(x))
            return (shares.astype(ms.float32) * flow).sum(axis=1)
        # DeiT's distilled heads are averaged, and so are their tokens' rows.
        return flow[:, : self.num_prefix_tokens].mean(axis=1)

    def attention(self, cell: nn.Cell, x: Tensor) -> Tensor:
        """Normalised tokens (B, N, C) -> (B, N, N), the mean of the heads' softmax."""
        batch, tokens, _ = x.shape
        qkv = cell.qkv(x).reshape(batch, tokens, 3, cell.num_heads, cell.head_dim)
        qkv = qkv.transpose(2, 0, 3, 1, 4).astype(ms.float32)  # (3, B, heads, N, d)
        scores = ops.matmul(qkv[0] * cell.head_dim**-0.5, qkv[1].swapaxes(-2, -1))
        return ops.softmax(scores, axis=-1).mean(axis=1)


class AttentionRollout:
    """Attention of all layers multiplied together; it knows no class."""

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        self._rollout = _Rollout(normalize, network).set_train(False)
        has_tokens = not self._rollout.pools
        self._first_patch = self._rollout.num_prefix_tokens if has_tokens else 0

    def __call__(self, image: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Images (B, H, W, 3) uint8 -> (B, h, w) float64, >= 0."""
        flow = self._rollout(Tensor(image)).asnumpy().astype(np.float64)[:, self._first_patch :]
        side = _side(flow.shape[1])
        return flow.reshape(len(flow), side, side)


def _side(length: int) -> int:
    side = round(length**0.5)
    if side * side != length:
        raise UserError(f"heat_maps: {length} tokens are no square grid; use square images")
    return side


def create_heat_maps(normalize: nn.Cell, network: Classifier) -> Tuple[str, object]:
    """(name of the method, the method) that fits the family.

    Attention rollout for DeiT, CCT, CVT and ViT-Lite, where every token attends to every other;
    Grad-CAM for ConvMixer, ConvNeXt and Twins, whose attention is sub-sampled or in windows.
    """
    if isinstance(network, (CCT, DeiT)):
        return "attention rollout", AttentionRollout(normalize, network)
    return "Grad-CAM", GradCam(normalize, network)
