"""Global average pooling (Lin et al. 2014, "Network in network", section 3.2)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from ...kernels import cells, selection


class GlobalAveragePool(nn.Cell):
    """Mean over all positions of a map: (B, C, H, W) -> (B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.native = cells.NativeMeanOfMaps() if selection.is_native() else None

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x)
        return x.mean(axis=(2, 3))
