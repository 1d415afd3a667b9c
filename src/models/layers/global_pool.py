"""Global average pooling (Lin et al. 2014, "Network in network", section 3.2)."""

from __future__ import annotations

from mindspore import Tensor, nn

from ...overrides import Overridable


class GlobalAveragePool(Overridable, nn.Cell):
    """Mean over all positions of a map: (B, C, H, W) -> (B, C)."""

    def construct(self, x: Tensor) -> Tensor:
        return x.mean(axis=(2, 3))
