"""Depthwise convolution: one filter per channel (Chollet 2017)."""

from __future__ import annotations

from mindspore import nn
from mindspore.common.initializer import Initializer


class DepthwiseConv(nn.Conv2d):
    """Stride 1, zero padding on all sides, with bias: (B, C, H, W) -> (B, C, H, W).

    Every depthwise convolution of the families is this cell.

    Raises:
        ValueError: an even `kernel_size`, which no symmetric padding keeps in place.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
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
