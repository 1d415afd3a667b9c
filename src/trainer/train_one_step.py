"""The training step: one graph from uint8 images to updated weights."""

from __future__ import annotations

from typing import List, Optional, Tuple, Union

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..optim.amp import LossScale
from ..optim.clipping import GradientClip
from ..optim.ema import Ema
from ..optim.freezing import Frozen
from ..optim.tensors import GlobalNorm, Snapshot, Tensors, add_to, assign, clear, copies, multiply
from ..runtime.collectives import MeanOverRanks
from ..runtime.float_status import FloatStatus

_SUMS = "train.grad_sum"
_TEACHER = "teacher."


class NetWithLoss(nn.Cell):
    """uint8 images -> loss: normalise and mix, network, loss in float32.

    Shapes: image (B, H, W, C) uint8, label (B,) int32, mix (B, 5) float32 -> ().
    """

    def __init__(self, transform: nn.Cell, network: nn.Cell, criterion: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.transform = transform
        self.network = network
        self.criterion = criterion

    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> Tensor:
        image, target = self.transform(image, label, mix)  # (B, 3, H, W), (B, K)
        return self.criterion(self.network(image), target)


class DistilledNetWithLoss(nn.Cell):
    """As `NetWithLoss`, with a frozen teacher that sees the same mixed images (DeiT, section 4).

    Args:
        network: returns the logits of both heads in training.
        teacher: its parameters are no part of the training state.
        criterion: loss of (logits, dist_logits, teacher_logits, target).
    """

    def __init__(
        self, transform: nn.Cell, network: nn.Cell, criterion: nn.Cell, *, teacher: nn.Cell
    ) -> None:
        super().__init__(auto_prefix=False)
        self.transform = transform
        self.network = network
        self.criterion = criterion
        self.teacher = teacher
        for parameter in teacher.get_parameters():
            parameter.requires_grad = False
            parameter.name = f"{_TEACHER}{parameter.name}"

    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> Tensor:
        image, target = self.transform(image, label, mix)
        logits, dist_logits = self.network(image)
        return self.criterion(logits, dist_logits, self.teacher(image), target)


AnyNetWithLoss = Union[NetWithLoss, DistilledNetWithLoss]


class TrainOneStep(nn.Cell):
    """Gradients of a batch and, with every `accumulation_step`-th batch, one optimizer step.

    With several ranks their gradients are averaged before anything is decided by them, so that all
    ranks clip, skip and update alike; so are the running statistics, after each step.

    When the gradient is not finite nothing changes but the loss scale (and the count of calls).
    `construct(image, label, mix, lr)` returns the fields of `StepOutputs`.

    Args:
        calls: int32 Parameter that counts the calls; random layers draw from it.
        mean_over_ranks: tensors -> their means over all ranks; None: one rank.
        clip: limit of the gradient; None: off.
        float_status: on a device that saturates, what says that a gradient would not be finite;
            None: the gradient itself says it.
        frozen: what of the network does not change; None: nothing.
    """

    def __init__(
        self,
        net_with_loss: AnyNetWithLoss,
        optimizer: nn.Cell,
        loss_scale: LossScale,
        *,
        calls: Parameter,
        clip: Optional[GradientClip] = None,
        ema: Optional[Ema] = None,
        accumulation_step: int = 1,
        mean_over_ranks: Optional[MeanOverRanks] = None,
        float_status: Optional[FloatStatus] = None,
        frozen: Optional[Frozen] = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        frozen = frozen or Frozen()
        # Past Cell's own way, which would give parameters and cells a second place.
        self.__dict__["frozen"] = frozen
        self.net_with_loss = net_with_loss
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.calls = calls
        self.clip = clip
        self.ema = ema
        self.accumulation_step = accumulation_step
        self.mean_over_ranks = mean_over_ranks
        self.float_status = float_status
        self.global_norm = GlobalNorm()
        weights = optimizer.parameters
        if accumulation_step > 1:
            self.sums = ParameterTuple(weights).clone(_SUMS, init="zeros")
            if float_status is not None:
                self.overflows = Parameter(
                    Tensor(0.0, ms.float32), name=f"{_SUMS}.overflows", requires_grad=False
                )
        # Running statistics: the forward pass changes them before anything is known of its result.
        # `calls` is in every layer that draws from it.
        parameters = frozen.left_of(list(net_with_loss.network.get_parameters()))
        self.statistics = ParameterTuple(
            [p for p in parameters if not p.requires_grad and p is not calls]
        )
        self.before = Snapshot(self.statistics)
        self.value_and_grad = ms.value_and_grad(self._scaled_loss, None, weights, has_aux=True)

    def saved_parameters(self) -> List[Parameter]:
        """What a checkpoint between two steps needs: not the sums, which are 0 then."""
        left_out = (_SUMS, _TEACHER)
        return [p for p in self.get_parameters() if not p.name.startswith(left_out)]

    def set_train(self, mode: bool = True) -> TrainOneStep:
        """As of every cell, but a teacher and what is frozen stay in evaluation."""
        super().set_train(mode)
        self.frozen.set_evaluation()
        if isinstance(self.net_with_loss, DistilledNetWithLoss):
            self.net_with_loss.teacher.set_train(False)
        return self

    def construct(self, image: Tensor, label: Tensor, mix: Tensor, lr: Tensor) -> Tensors:
        before = self.before.take()
        scale = self.loss_scale.present()
        if self.float_status is not None:
            image = self.float_status.clear(image)
        (_, loss), grads = self.value_and_grad(image, label, mix, scale)
        if self.accumulation_step > 1 or not self.loss_scale.is_one:
            grads = multiply(grads, 1.0 / (scale * self.accumulation_step))
        if self.accumulation_step == 1:
            norm, finite = self._update(grads, lr, before)
        else:
            if not self._is_usable(loss, grads):
                self.before.restore(before)
            norm, finite = self._accumulate(grads, lr, before)
        ops.assign(self.calls, self.calls + 1)
        return loss, norm, finite, scale

    def _scaled_loss(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tensor]:
        loss = self.net_with_loss(image, label, mix)
        return loss * scale, loss

    def _is_usable(self, loss: Tensor, grads: Tensors) -> Tensor:
        """Whether the statistics of a batch that is accumulated are kept."""
        is_usable = ops.isfinite(loss)
        if self.float_status is not None:
            overflow = self.float_status.read((loss, grads))
            ops.assign(self.overflows, self.overflows + overflow)
            is_usable = ops.logical_and(is_usable, overflow == 0.0)
        return is_usable

    def _accumulate(self, grads: Tensors, lr: Tensor, before: Tensors) -> Tuple[Tensor, Tensor]:
        add_to(self.sums, grads)
        norm = ops.zeros((), ms.float32)
        finite = ops.isfinite(norm)
        if self.calls % self.accumulation_step == self.accumulation_step - 1:
            norm, finite = self._update(copies(self.sums), lr, before)
            clear(self.sums)
            if self.float_status is not None:
                ops.assign(self.overflows, ops.zeros((), ms.float32))
        return norm, finite

    def _update(self, grads: Tensors, lr: Tensor, before: Tensors) -> Tuple[Tensor, Tensor]:
        if self.mean_over_ranks is not None:
            grads = self.mean_over_ranks(grads)
            before = self._average_statistics(before)
        norm = self.global_norm(grads)
        finite = self._is_finite(norm)
        if self.clip is not None:
            grads = self.clip(grads, norm)
        if finite:
            self.optimizer(grads, lr)
            if self.ema is not None:
                self.ema()
        else:
            self.before.restore(before)
        self.loss_scale(finite)
        return norm, finite

    def _is_finite(self, norm: Tensor) -> Tensor:
        """Whether the gradient of all ranks and batches is, and so was all it was computed from."""
        finite = ops.isfinite(norm)
        if self.float_status is not None:
            overflow = self.float_status.read(norm)
            if self.accumulation_step > 1:
                overflow = overflow + self.overflows
            overflow = self.float_status.over_ranks(overflow)
            finite = ops.logical_and(finite, overflow == 0.0)
        return finite

    def _average_statistics(self, before: Tensors) -> Tensors:
        """Makes the statistics, and those to go back to, the same on all ranks."""
        assign(self.statistics, self.mean_over_ranks(copies(self.statistics)))
        return self.mean_over_ranks(before)
