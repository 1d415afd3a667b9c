"""Losses. All compute in float32, whatever the type of the logits."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..args import OptimConfig


class SoftTargetCrossEntropy(nn.Cell):
    """Mean over the batch of -sum_k target_k log softmax(logits)_k.

    Shapes: logits (B, K) of any float type, target (B, K) float32 whose rows sum to 1 -> ().
    """

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        log_probability = ops.log_softmax(logits.astype(ms.float32), axis=-1)
        return -(target * log_probability).sum(axis=-1).mean()


class WeightedCrossEntropy(nn.Cell):
    """The weighted mean over the batch: sum_ik w_k t_ik l_ik / sum_ik w_k t_ik, torch's of labels.

    l is -log softmax(logits), t the target. For targets that are mixed or smoothed torch divides by
    the batch instead, which makes the step larger where a batch has more of rare classes.

    Shapes: logits (B, K) of any float type, target (B, K) float32 whose rows sum to 1 -> ().

    Args:
        weights: (K,) float32, above 0.
    """

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.weights = Tensor(weights.reshape(1, -1), ms.float32)

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        log_probability = ops.log_softmax(logits.astype(ms.float32), axis=-1)
        weight = target * self.weights  # (B, K)
        return -(weight * log_probability).sum() / weight.sum()


class BinaryCrossEntropy(nn.Cell):
    """Every class a yes-or-no question of its own (Wightman et al. 2021, section 2), as in timm.

    Shapes: logits (B, K) of any float type, target (B, K) float32 in [0, 1] -> ().

    Args:
        threshold: targets above it count as 1, the others as 0; None: targets stay soft.
        sum_classes: mean over the batch of the sum over classes; else the mean over both.
    """

    def __init__(self, threshold: Optional[float] = None, *, sum_classes: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.sum_classes = sum_classes
        self.softplus = ops.Softplus()

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.astype(ms.float32)
        if self.threshold is not None:
            target = (target > self.threshold).astype(ms.float32)
        # -log sigmoid(x) = softplus(-x). Both terms are positive, so that nothing cancels.
        loss = target * self.softplus(-logits) + (1.0 - target) * self.softplus(logits)  # (B, K)
        return loss.sum(axis=-1).mean() if self.sum_classes else loss.mean()


class DistillationLoss(nn.Cell):
    """A loss on labels, and a teacher's opinion (Touvron et al. 2021, section 4).

    Shapes: logits, dist_logits (of the distillation token), teacher_logits (B, K) of any float
    type, target (B, K) float32 -> ().

    Args:
        base: loss of (logits, target).
        kind: hard, cross entropy of dist_logits with the teacher's decision; soft, divergence
            between both at temperature `tau`, times tau squared, per element of (B, K) as in the
            authors' code; none, `base` alone.
        alpha: weight of the teacher's part, 1 - alpha that of `base`; in [0, 1].
        tau: temperature; > 0.
    """

    def __init__(self, base: nn.Cell, *, kind: str, alpha: float, tau: float) -> None:
        super().__init__()
        self.base = base
        self.kind = kind
        self.alpha = alpha
        self.tau = tau
        self.argmax = ops.Argmax(axis=-1)
        self.one_hot = ops.OneHot(axis=-1)
        self.hit, self.miss = Tensor(1.0, ms.float32), Tensor(0.0, ms.float32)

    def construct(
        self, logits: Tensor, dist_logits: Tensor, teacher_logits: Tensor, target: Tensor
    ) -> Tensor:
        loss = self.base(logits, target)
        if self.kind == "none":
            return loss
        teacher_logits = ops.stop_gradient(teacher_logits.astype(ms.float32))
        dist_logits = dist_logits.astype(ms.float32)
        if self.kind == "hard":
            distillation = self._hard(dist_logits, teacher_logits)
        else:
            distillation = self._soft(dist_logits, teacher_logits)
        return (1.0 - self.alpha) * loss + self.alpha * distillation

    def _hard(self, dist_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        log_probability = ops.log_softmax(dist_logits, axis=-1)
        classes = dist_logits.shape[-1]
        # Not a gather along the classes, which MindSpore 2.0 does on an Ascend's AI CPU.
        decision = self.one_hot(self.argmax(teacher_logits), classes, self.hit, self.miss)
        return -(log_probability * decision).sum(axis=-1).mean()  # (B, K) -> (B,) -> ()

    def _soft(self, dist_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        student = ops.log_softmax(dist_logits / self.tau, axis=-1)
        teacher = ops.log_softmax(teacher_logits / self.tau, axis=-1)
        return (ops.exp(teacher) * (teacher - student)).mean() * (self.tau * self.tau)


def create_criterion(optim: OptimConfig, class_weights: Optional[np.ndarray] = None) -> nn.Cell:
    """The recipe's loss of (logits, target); targets come smoothed, with s / K off the label.

    Args:
        class_weights: (K,) float32, of cross entropy; None: all weigh the same.
    """
    if class_weights is not None:
        return WeightedCrossEntropy(class_weights)
    if optim.criterion == "bce":
        return BinaryCrossEntropy(optim.bce_target_thresh, sum_classes=optim.bce_sum)
    return SoftTargetCrossEntropy()
