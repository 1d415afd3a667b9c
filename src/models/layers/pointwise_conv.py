"""1x1 convolution: a matrix product over the channels."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer

from .layout import NCHW, NHWC, relayout
from .linear import Product


class PointwiseConv(nn.Conv2d):
    """With bias: maps as `layout` says, in and out.

    A channels-last map is a matrix already, which is why it is multiplied as one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        layout: str,
        weight_init: Initializer,
        bias_init: Initializer,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            1,
            pad_mode="valid",
            has_bias=True,
            weight_init=weight_init,
            bias_init=bias_init,
        )
        self.layout = layout
        self.product = Product()

    def construct(self, x: Tensor) -> Tensor:
        if self.layout == NHWC and x.dtype == ms.float32:
            weight = self.weight.reshape(self.out_channels, self.in_channels)
            y = self.product(x.reshape(-1, self.in_channels), weight, self.bias)
            return y.reshape(x.shape[:3] + (self.out_channels,))
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)
