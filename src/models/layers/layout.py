"""The order of axes of feature maps: (B, C, H, W) is `NCHW`, (B, H, W, C) is `NHWC`."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from ...kernels import cells, selection

NCHW, NHWC = "NCHW", "NHWC"


def preferred_layout() -> str:
    """For a network of convolutions only, whose maps no layer needs in one order or the other.

    The kernels for CPUs are channels-last; MindSpore's own convolutions are not.
    """
    return NHWC if selection.is_native() else NCHW


def relayout(x: Tensor, source: str, target: str) -> Tensor:
    """A map of layout `source` in layout `target`."""
    if source == target:
        return x
    return x.transpose(0, 2, 3, 1) if target == NHWC else x.transpose(0, 3, 1, 2)


class Relayout(nn.Cell):
    """`relayout` for large maps."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.native = None
        if source != target and selection.is_native():
            self.native = cells.NativeRelayout(channels_first=target == NCHW)

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x)
        return relayout(x, self.source, self.target)
