"""Normalisation layers.

Legend: B batch, C channels, H W map size.
"""

from __future__ import annotations

from mindspore import Tensor, nn

from ...overrides import Overridable
from .layout import NCHW, relayout


class LayerNorm(Overridable, nn.LayerNorm):
    """Normalises the last axis, (..., C) -> (..., C) (Ba et al. 2016)."""

    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__((channels,), epsilon=epsilon)


class BatchNorm(nn.BatchNorm2d):
    """Normalises every channel over batch and positions (Ioffe and Szegedy 2015).

    Shapes: as `layout` says, in and out.
    """

    def __init__(self, channels: int, *, layout: str) -> None:
        super().__init__(channels)
        self.layout = layout

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)
