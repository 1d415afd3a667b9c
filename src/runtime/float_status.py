"""Overflow on chips that saturate: they keep it in a status register instead of the numbers.

Ascend 910 computes the largest number for an infinity and 0 for NaN; so does its successor in
saturation mode. `isfinite` is true of whatever comes of that.
"""

from __future__ import annotations

from typing import Any, Optional

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2, NPUGetFloatStatusV2

from ..args import RunConfig
from .device import saturates
from .ranks import ALONE, World

# Of the register, as the operators give it: any that is not 0 tells of an overflow.
_NUMBERS = 8


class FloatStatus(nn.Cell):
    """Clears and reads the register, in the order that the data sets: it is no input of anything.

    Called from the host, with any tensor: `read`.
    """

    def __init__(self, world: World = ALONE) -> None:
        super().__init__(auto_prefix=False)
        self.clear_status = NPUClearFloatStatusV2()
        self.get_status = NPUGetFloatStatusV2()
        self.zeros = Tensor([0] * _NUMBERS, ms.int32)
        self.all_reduce: Optional[nn.Cell] = None
        if world.size > 1:
            self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def clear(self, x: Tensor) -> Tensor:
        """`x`; overflows in what is computed from it count."""
        return ops.depend(x, self.clear_status(ops.depend(self.zeros, x)))

    def read(self, computed: Any) -> Tensor:
        """Whether anything overflowed until `computed` was there: () float32, 0 or 1; clears.

        Args:
            computed: a tensor or a tuple of them.
        """
        status = self.get_status(ops.depend(self.zeros, computed))
        overflow = 1.0 - ops.equal(status, self.zeros).all().astype(ms.float32)
        return self.clear(overflow)

    def over_ranks(self, overflow: Tensor) -> Tensor:
        """Sum of the ranks' flags, () float32."""
        if self.all_reduce is not None:
            overflow = self.all_reduce(overflow)
        return overflow

    def construct(self, x: Tensor) -> Tensor:
        return self.read(x)


def create_float_status(run: RunConfig, world: World = ALONE) -> Optional[FloatStatus]:
    """None where an overflow is seen in the numbers themselves."""
    return FloatStatus(world) if saturates(run) else None
