"""The order of axes of feature maps: (B, C, H, W) is `NCHW`, (B, H, W, C) is `NHWC`."""

from __future__ import annotations

from mindspore import Tensor

from src.kernels import selection

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
