"""Automatic mixed precision: which cells compute in float16, and the scale of the loss."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.errors import UserError

_NORMS = (nn.LayerNorm, nn.GroupNorm)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def apply_amp(network: nn.Cell, level: str, *, keep_bn_fp32: bool = True) -> None:
    """Marks the cells of `network`; its parameters stay float32.

    O0: all float32. O2: float16, but for norms and softmax (and BatchNorm, by `keep_bn_fp32`).

    Raises:
        UserError: a level that is not available yet.
    """
    if level == "O0":
        return
    if level != "O2":
        raise UserError(f"amp_level {level!r}: not available yet; use O0 or O2")
    kept = (*_NORMS, nn.Softmax, *(_BATCH_NORMS if keep_bn_fp32 else ()))
    network.to_float(ms.float16)
    for _, cell in network.cells_and_names():
        if isinstance(cell, kept):
            cell.to_float(ms.float32)


class LossScale(nn.Cell):
    """Scale of the loss (Micikevicius et al. 2018, section 3.2), saved with the training state.

    `construct(finite)`: without `dynamic` nothing happens. Otherwise an overflow divides the scale
    by `factor` (not below 1), and `window` finite steps in a row multiply it by `factor`.
    """

    def __init__(self, value: float, *, dynamic: bool, factor: float, window: int) -> None:
        super().__init__(auto_prefix=False)
        self.value = Parameter(
            Tensor(value, ms.float32), name="train.loss_scale", requires_grad=False
        )
        self.finite_steps = Parameter(
            Tensor(0, ms.int32), name="train.finite_steps", requires_grad=False
        )
        self.dynamic = dynamic
        self.factor = factor
        self.window = window

    def construct(self, finite: Tensor) -> Tensor:
        value = self.value + 0.0
        if self.dynamic:
            finite_steps = ops.select(finite, self.finite_steps + 1, ops.zeros((), ms.int32))
            grow = finite_steps >= self.window
            # Past float32 a larger scale would be infinite: it stays.
            larger = ops.minimum(value * self.factor, 2.0**126)
            smaller = ops.maximum(value / self.factor, 1.0)
            value = ops.select(finite, ops.select(grow, larger, value), smaller)
            ops.assign(self.value, value)
            ops.assign(self.finite_steps, ops.select(grow, ops.zeros((), ms.int32), finite_steps))
        return value
