"""Layer normalisation of feature maps (Ba et al. 2016).

Legend: B batch, C channels, H W map size.
"""

from __future__ import annotations

from mindspore import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of each position, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__((channels,), epsilon=epsilon)

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(x.transpose(0, 2, 3, 1))  # (B, C, H, W) -> (B, H, W, C)
        return x.transpose(0, 3, 1, 2)  # -> (B, C, H, W)
