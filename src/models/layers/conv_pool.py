"""Dense convolution, ReLU and max pooling, and the tokenizer of CCT that they make."""

from __future__ import annotations

from typing import List

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Initializer, Uniform

from ...overrides import Overridable
from .layout import NCHW, NHWC, Relayout, relayout
from .patch_embed import PatchConv


class DenseConv(Overridable, nn.Conv2d):
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

    def construct(self, x: Tensor) -> Tensor:
        x = super().construct(relayout(x, self.layout, NCHW))
        return relayout(x, NCHW, self.layout)


class ReluMaxPool(Overridable, nn.Cell):
    """ReLU, then max pooling, 3x3, stride 2, padding 1: maps as `layout` says, in and out.

    Behind ReLU a border of zeros is as good as one of -infinity, in value and in gradient. The
    framework's padded pooling becomes an operator for volumes, which neither MindSpore Lite, nor
    ONNX, nor a batch of unknown size gets on with.
    """

    def __init__(self, *, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.relu = nn.ReLU()
        self.pad = ops.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        x = self.pool(self.pad(self.relu(relayout(x, self.layout, NCHW))))
        return relayout(x, NCHW, self.layout)


class Tokenizer(Overridable, nn.Cell):
    """Image to tokens, (B, in_chans, H, W) -> (B, N, C) (Hassani et al. 2021, section 3.3).

    `pool`: each convolution is followed by ReLU and a 3x3 stride 2 max pooling (CCT); otherwise it
    is a bare patch embedding (CVT, ViT-Lite), and only then has a bias.
    """

    # Of the maps between the convolutions.
    layout = NCHW

    def __init__(self, widths: List[int], *, kernel_size: int, stride: int, pool: bool) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pool = kernel_size, stride, pool
        self.from_image = Relayout(NCHW, self.layout)
        self.padding = max(1, kernel_size // 2) if pool else 0
        layers = [self._layer(wide_in, wide_out) for wide_in, wide_out in zip(widths, widths[1:])]
        self.conv_layers = nn.SequentialCell(layers)

    def _layer(self, in_channels: int, out_channels: int) -> nn.SequentialCell:
        widths, init = (in_channels, out_channels), HeNormal(mode="fan_in", nonlinearity="relu")
        if not self.pool:
            bias = Uniform((in_channels * self.kernel_size**2) ** -0.5)
            layouts = {"in_layout": self.layout, "out_layout": self.layout}
            inits = {"weight_init": init, "bias_init": bias}
            return nn.SequentialCell(PatchConv(*widths, self.kernel_size, **layouts, **inits))
        conv = DenseConv(
            *widths,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            layout=self.layout,
            weight_init=init,
        )
        return nn.SequentialCell(conv, ReluMaxPool(layout=self.layout))

    def side(self, image_side: int) -> int:
        """Side of the token grid for a square image, 0 or less where the image is too small."""
        for _ in range(len(self.conv_layers)):
            image_side = (image_side + 2 * self.padding - self.kernel_size) // self.stride + 1
            if self.pool:
                image_side = (image_side + 2 - 3) // 2 + 1
        return image_side

    @property
    def reduction(self) -> int:
        """Side of the image / side of the token grid, but for what the border takes."""
        return (self.stride * (2 if self.pool else 1)) ** len(self.conv_layers)

    def construct(self, x: Tensor) -> Tensor:
        x = self.conv_layers(self.from_image(x))
        x = relayout(x, self.layout, NHWC)  # (B, H', W', C)
        return x.reshape(x.shape[0], -1, x.shape[3])  # -> (B, N, C)
