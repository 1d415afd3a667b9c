"""The order of axes of feature maps: (B, C, H, W) is `NCHW`, (B, H, W, C) is `NHWC`."""

from __future__ import annotations

from mindspore import Tensor, nn

from ...overrides import Overridable

NCHW, NHWC = "NCHW", "NHWC"


def relayout(x: Tensor, source: str, target: str) -> Tensor:
    """A map of layout `source` in layout `target`."""
    if source == target:
        return x
    return x.transpose(0, 2, 3, 1) if target == NHWC else x.transpose(0, 3, 1, 2)


class Relayout(Overridable, nn.Cell):
    """`relayout` for large maps."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__()
        self.source, self.target = source, target

    def construct(self, x: Tensor) -> Tensor:
        return relayout(x, self.source, self.target)
