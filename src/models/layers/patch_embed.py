"""Cutting a map into patches and projecting each (Dosovitskiy et al. 2021, section 3.1).

Legend: B batch, C channels, H W map size, p patch side.
"""

from __future__ import annotations

from typing import Optional

from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer

from ...overrides import Overridable
from .layout import NCHW, NHWC, relayout
from .norm import LayerNorm


class PatchConv(Overridable, nn.Conv2d):
    """Convolution whose stride is its kernel, with bias.

    Shapes: maps of C channels and H x W positions -> of C' channels and H // p x W // p positions,
    in the given layouts. Rows and columns beyond the last whole patch are ignored. Every
    non-overlapping convolution of the families is this cell.

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

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.in_layout, NCHW))
        return relayout(x, NCHW, self.out_layout)


class PatchEmbed(nn.Cell):
    """Patch projection and, with `norm_epsilon`, LayerNorm.

    Shapes: a map in `in_layout`, by default (B, C, H, W) -> (B, H//p, W//p, C').
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
        x = self.proj(x)  # -> (B, H/p, W/p, C')
        return x if self.norm is None else self.norm(x)
