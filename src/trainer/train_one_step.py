"""The training step: one graph from uint8 images to updated weights."""

from __future__ import annotations

from typing import Optional, Tuple

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.tools.amp import LossScale


class NetWithLoss(nn.Cell):
    """uint8 images -> loss: normalise and mix, network, loss in float32.

    Shapes: image (B, H, W, 3) uint8, label (B,) int32, mix (B, 5) float32 -> ().
    """

    def __init__(self, transform: nn.Cell, network: nn.Cell, criterion: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.transform = transform
        self.network = network
        self.criterion = criterion

    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> Tensor:
        image, target = self.transform(image, label, mix)  # (B, 3, H, W), (B, K)
        return self.criterion(self.network(image), target)


def global_norm(grads: Tuple[Tensor, ...]) -> Tensor:
    """Euclidean norm of all gradients together, float32 ()."""
    total = ops.zeros((), ms.float32)
    for grad in grads:
        total = total + ops.square(grad.astype(ms.float32)).sum()
    return ops.sqrt(total)


class TrainOneStep(nn.Cell):
    """One optimizer step; on a non-finite gradient nothing changes but the loss scale.

    `construct(image, label, mix, lr)` returns (loss, norm of the unclipped gradient, finite, loss
    scale used), each ().

    Args:
        clip_norm: largest global norm of the gradient (torch.nn.utils.clip_grad_norm_); None: off.
        step: int32 Parameter that counts the calls; random layers draw from it.
    """

    def __init__(
        self,
        net_with_loss: NetWithLoss,
        optimizer: nn.Cell,
        loss_scale: LossScale,
        *,
        step: Parameter,
        clip_norm: Optional[float] = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.net_with_loss = net_with_loss
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.clip_norm = clip_norm
        self.step = step
        self.value_and_grad = ms.value_and_grad(
            self._scaled_loss, None, optimizer.parameters, has_aux=True
        )

    def _scaled_loss(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tensor]:
        loss = self.net_with_loss(image, label, mix)
        return loss * scale, loss

    def construct(
        self, image: Tensor, label: Tensor, mix: Tensor, lr: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = self.loss_scale.value + 0.0
        (_, loss), grads = self.value_and_grad(image, label, mix, scale)
        grads = self._multiply(grads, 1.0 / scale)
        norm = global_norm(grads)
        finite = ops.isfinite(norm)
        if self.clip_norm is not None:
            grads = self._multiply(grads, ops.minimum(self.clip_norm / (norm + 1e-6), 1.0))
        if finite:
            self.optimizer(grads, lr)
        self.loss_scale(finite)
        ops.assign(self.step, self.step + 1)
        return loss, norm, finite, scale

    @staticmethod
    def _multiply(grads: Tuple[Tensor, ...], factor: Tensor) -> Tuple[Tensor, ...]:
        product = ()
        for grad in grads:
            product = (*product, grad * factor)
        return product
