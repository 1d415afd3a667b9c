"""Cutting a map into patches and projecting each (Dosovitskiy et al. 2021, section 3.1).

Legend: B batch, C channels, H W map size, p patch side.
"""

from __future__ import annotations

from typing import Optional

from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer


class PatchConv(nn.Conv2d):
    """Convolution whose stride is its kernel, with bias: (B, C, H, W) -> (B, C', H/p, W/p).

    Every non-overlapping convolution of the families is this cell. Rows and columns beyond the last
    whole patch are ignored.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch_size: int,
        *,
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


class PatchEmbed(nn.Cell):
    """Patch projection and, with `norm_epsilon`, LayerNorm: (B, C, H, W) -> (B, H/p, W/p, C')."""

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        patch_size: int,
        *,
        weight_init: Initializer,
        bias_init: Initializer,
        norm_epsilon: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.proj = PatchConv(
            in_channels, embed_dim, patch_size, weight_init=weight_init, bias_init=bias_init
        )
        self.norm = None
        if norm_epsilon is not None:
            self.norm = nn.LayerNorm((embed_dim,), epsilon=norm_epsilon)

    def construct(self, x: Tensor) -> Tensor:
        x = self.proj(x).transpose(0, 2, 3, 1)  # (B, C, H, W) -> (B, H/p, W/p, C')
        return x if self.norm is None else self.norm(x)
