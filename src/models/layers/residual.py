"""Residual connections with layer scale (Touvron et al. 2021, "Going deeper", section 2)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Constant, initializer

from ...kernels import cells, selection
from .drop_path import DropPath


class LayerScaleBlock(nn.Cell):
    """A block that ends in x + gamma branch, where stochastic depth may drop the branch.

    Its subclass calls `create_layer_scale` once and `add_branch` in `construct`. `gamma` (C,) is a
    parameter of the block itself: passed to another cell, mixed precision would cast it.
    """

    def create_layer_scale(self, dim: int, *, init_value: float, drop_path: float) -> None:
        """Makes `gamma` (dim,), all `init_value`, and the stochastic depth."""
        self.gamma = Parameter(initializer(Constant(init_value), (dim,)), name="gamma")
        self.drop_path = DropPath(drop_path)
        self.native = cells.NativeResidual() if selection.is_native() else None

    def add_branch(self, x: Tensor, branch: Tensor) -> Tensor:
        """x, branch (B, ..., C) -> (B, ..., C)."""
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x, branch.astype(ms.float32), self.gamma, self.drop_path.keep(x))
        # Not in float16, where the initial 1e-6 is subnormal.
        branch = (branch.astype(self.gamma.dtype) * self.gamma).astype(x.dtype)
        return self.drop_path.add(x, branch)
