"""Cutting a map into patches and projecting each (Dosovitskiy et al. 2021, section 3.1).

Legend: B batch, C channels, H W map size, p patch side.
"""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer

from ...kernels import cells, selection
from .layout import NCHW, NHWC, Relayout, relayout
from .linear import Product
from .norm import LayerNorm


class PatchConv(nn.Conv2d):
    """Convolution whose stride is its kernel, with bias: (B, C, H, W) -> (B, C', H/p, W/p).

    Every non-overlapping convolution of the families is this cell. Rows and columns beyond the last
    whole patch are ignored.

    Args:
        in_layout, out_layout: of the maps on either side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch_size: int,
        *,
        in_layout: str,
        out_layout: str,
        weight_init: Initializer,
        bias_init: Initializer,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            patch_size,
            patch_size,
            pad_mode="valid",
            has_bias=True,
            weight_init=weight_init,
            bias_init=bias_init,
        )
        self.patch_size = patch_size
        self.in_layout, self.out_layout = in_layout, out_layout
        # On a CPU cutting the patches out and multiplying is faster than the convolution.
        self.is_product = selection.is_fast()
        self.product = Product()
        self.native = cells.NativePatchConv() if selection.is_native() else None
        self.to_channels_last = Relayout(in_layout, NHWC)
        self.from_channels_last = Relayout(NHWC, out_layout)

    def construct(self, x: Tensor) -> Tensor:
        if self.is_product and x.dtype == ms.float32:
            return self.from_channels_last(self._multiply(x))
        x = super().construct(relayout(x, self.in_layout, NCHW))
        return relayout(x, NCHW, self.out_layout)

    def _multiply(self, x: Tensor) -> Tensor:
        """-> (B, H/p, W/p, C')."""
        if self.native is not None:
            return self.native(self.to_channels_last(x), self.weight, self.bias)
        side, channels = self.patch_size, self.in_channels
        batch = x.shape[0]
        weight = self.weight
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
        y = self.product(x, weight.reshape(self.out_channels, -1), self.bias)
        return y.reshape(batch, rows, columns, self.out_channels)


class PatchEmbed(nn.Cell):
    """Patch projection and, with `norm_epsilon`, LayerNorm: (B, C, H, W) -> (B, H/p, W/p, C').

    `in_layout`: of the input; the output is channels-last.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        patch_size: int,
        *,
        weight_init: Initializer,
        bias_init: Initializer,
        in_layout: str = NCHW,
        norm_epsilon: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.proj = PatchConv(
            in_channels,
            embed_dim,
            patch_size,
            in_layout=in_layout,
            out_layout=NHWC,
            weight_init=weight_init,
            bias_init=bias_init,
        )
        self.norm = None
        if norm_epsilon is not None:
            self.norm = LayerNorm(embed_dim, epsilon=norm_epsilon)

    def construct(self, x: Tensor) -> Tensor:
        x = self.proj(x)  # (B, C, H, W) -> (B, H/p, W/p, C')
        return x if self.norm is None else self.norm(x)
