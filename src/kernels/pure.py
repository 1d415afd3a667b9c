"""Other MindSpore operators than the standard cells', which a CPU computes faster."""

from __future__ import annotations

from typing import Any, Dict

from mindspore import Tensor, ops

from ..models.layers.layout import NCHW, NHWC, relayout
from ..models.layers.patch_embed import PatchConv


class PatchConvAsProduct(PatchConv):
    """Cuts the patches out and multiplies them by the weights."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.product = ops.MatMul(transpose_b=True)
        self.add_bias = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        side, channels, weight = self.patch_size, self.in_channels, self.weight
        batch = x.shape[0]
        if self.in_layout == NCHW:
            rows, columns = x.shape[2] // side, x.shape[3] // side
            if x.shape[2:] != (rows * side, columns * side):
                x = x[:, :, : rows * side, : columns * side]
            x = x.reshape(batch, channels, rows, side, columns, side).transpose(0, 2, 4, 1, 3, 5)
        else:
            rows, columns = x.shape[1] // side, x.shape[2] // side
            if x.shape[1:3] != (rows * side, columns * side):
                x = x[:, : rows * side, : columns * side]
            x = x.reshape(batch, rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
            weight = weight.transpose(0, 2, 3, 1)
        x = x.reshape(batch * rows * columns, side * side * channels)
        y = self.add_bias(self.product(x, weight.reshape(self.out_channels, -1)), self.bias)
        return relayout(y.reshape(batch, rows, columns, self.out_channels), NHWC, self.out_layout)


OVERRIDES: Dict[type, type] = {PatchConv: PatchConvAsProduct}
