"""Where a network looks: Grad-CAM for maps of features, attention rollout for class tokens.

Legend: B batch, N tokens (some of them before the patches), h x w grid of the last features.
"""

from __future__ import annotations

from typing import Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import UserError
from ..models.classifier import Classifier


class _ClassScore(nn.Cell):
    """Features -> the sum over the batch of the logits of one class each."""

    def __init__(self, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, features: Tensor, one_hot: Tensor) -> Tensor:
        return (self.network.forward_head(features).astype(ms.float32) * one_hot).sum()


class _Features(nn.Cell):
    """(B, H, W, C) uint8 -> the family's features in float32."""

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
        self._first_patch = network.num_prefix_tokens
        self._features = _Features(normalize, network).set_train(False)
        self._gradient = ops.grad(_ClassScore(network).set_train(False))

    def __call__(self, image: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Images (B, H, W, C) uint8, the class of each (B,) -> (B, h, w) float64, >= 0."""
        features = self._features(Tensor(image))
        one_hot = Tensor(np.eye(num_classes, dtype=np.float32)[label])
        gradient = self._gradient(features, one_hot).asnumpy().astype(np.float64)
        values = features.asnumpy().astype(np.float64)
        if values.ndim == 3:  # (B, N, C) -> (B, C, h, w)
            first = self._first_patch
            values, gradient = _as_maps(values[:, first:]), _as_maps(gradient[:, first:])
        weights = gradient.mean(axis=(2, 3), keepdims=True)
        return np.maximum((weights * values).sum(axis=1), 0.0)


def _as_maps(tokens: np.ndarray) -> np.ndarray:
    batch, length, channels = tokens.shape
    side = _side(length)
    return tokens.transpose(0, 2, 1).reshape(batch, channels, side, side)


class _Rollout(nn.Cell):
    """(B, H, W, C) uint8 -> (B, N), how much of each input token reaches the classifier.

    The product over the layers of (A + I) / 2, A the mean attention of the heads (Abnar and
    Zuidema 2020, section 3); then the mean of the rows, weighted as the tokens are pooled.
    """

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        maps, shares = self.network.attention_maps(self.normalize(image))
        tokens = maps[0].shape[1]
        identity = ops.eye(tokens, tokens, ms.float32)
        flow = identity
        for attention in maps:
            flow = ops.matmul((attention + identity) / 2, flow)
        return (shares.astype(ms.float32).expand_dims(-1) * flow).sum(axis=1)


class AttentionRollout:
    """Attention of all layers multiplied together; it knows no class."""

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        self._rollout = _Rollout(normalize, network).set_train(False)
        self._first_patch = network.num_prefix_tokens

    def __call__(self, image: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Images (B, H, W, C) uint8 -> (B, h, w) float64, >= 0."""
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

    Attention rollout where every token attends to every other (DeiT, CCT, CVT, ViT-Lite); Grad-CAM
    elsewhere (ConvMixer, ConvNeXt, and Twins, whose attention is sub-sampled or in windows).
    """
    if network.has_attention_maps:
        return "attention rollout", AttentionRollout(normalize, network)
    return "Grad-CAM", GradCam(normalize, network)
