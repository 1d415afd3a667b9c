"""Dense convolution, ReLU and max pooling: the tokenizer of CCT (Hassani et al. 2021)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Initializer

from src.kernels import cells, selection

from .layout import NCHW, NHWC, relayout


class DenseConv(nn.Conv2d):
    """Convolution without bias: maps as `layout` says, in and out."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int,
        padding: int,
        layout: str,
        weight_init: Initializer,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            pad_mode="pad",
            padding=padding,
            has_bias=False,
            weight_init=weight_init,
        )
        self.layout = layout
        self.native = None
        if layout == NHWC and selection.is_native():
            self.native = cells.NativeDenseConv(kernel_size, stride, padding)

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            weight = self.weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
            return self.native(x, weight)
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)


class ReluMaxPool(nn.Cell):
    """ReLU, then max pooling, 3x3, stride 2, padding 1: maps as `layout` says, in and out.

    Behind ReLU a border of zeros is as good as one of -infinity, in value and in gradient. The
    framework's padded pooling becomes an operator for volumes, which neither MindSpore Lite, nor
    ONNX, nor a batch of unknown size gets on with.
    """

    def __init__(self, *, layout: str) -> None:
        super().__init__()
        self.layout = layout
        is_native = layout == NHWC and selection.is_native()
        self.native = cells.NativeReluMaxPool() if is_native else None
        self.relu = nn.ReLU()
        self.pad = ops.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x)
        x = self.pool(self.pad(self.relu(relayout(x, self.layout, NCHW))))
        return relayout(x, NCHW, self.layout)
