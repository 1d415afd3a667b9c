"""Depthwise convolution: one filter per channel (Chollet 2017)."""

from __future__ import annotations

from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer

from ...overrides import Overridable
from .layout import NCHW, relayout


class DepthwiseConv(Overridable, nn.Conv2d):
    """Stride 1, zero padding on all sides, with bias: maps as `layout` says, in and out.

    Every depthwise convolution of the families is this cell.

    Raises:
        ValueError: an even `kernel_size`, which no symmetric padding keeps in place.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        layout: str,
        weight_init: Initializer,
        bias_init: Initializer,
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size}: expected an odd number")
        super().__init__(
            channels,
            channels,
            kernel_size,
            pad_mode="pad",
            padding=kernel_size // 2,
            group=channels,
            has_bias=True,
            weight_init=weight_init,
            bias_init=bias_init,
        )
        self.layout = layout

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)
