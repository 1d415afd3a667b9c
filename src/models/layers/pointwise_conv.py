"""1x1 convolution: a matrix product over the channels."""

from __future__ import annotations

from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer

from ...overrides import Overridable
from .layout import NCHW, relayout


class PointwiseConv(Overridable, nn.Conv2d):
    """With bias: maps as `layout` says, in and out."""

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

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)
