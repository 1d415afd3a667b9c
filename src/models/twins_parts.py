"""What Twins are made of beside transformer blocks (Chu et al. 2021).

Legend: B batch, H W map size, C channels of the stage. Maps are (B, H, W, C) throughout.
"""

from __future__ import annotations

from typing import Dict

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Initializer, Normal, Zero

from .layers.attention import Attention, CrossAttention
from .layers.depthwise_conv import DepthwiseConv
from .layers.layout import NHWC
from .layers.linear import create_linear
from .layers.norm import LayerNorm
from .layers.patch_embed import PatchConv


def conv_init(fan_out: int) -> Dict[str, Initializer]:
    """He et al. 2015 by the fan of the outputs, as the authors initialise every convolution."""
    return {"weight_init": Normal((2.0 / fan_out) ** 0.5), "bias_init": Zero()}


class SubSampledAttention(nn.Cell):
    """Global attention to a sub-sampled map, (B, H, W, C) -> the same (section 3.2, GSA).

    Keys and values see one summary of each `sr_ratio` x `sr_ratio` square, as in PVT.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`.
    """

    def __init__(self, dim: int, num_heads: int, *, sr_ratio: int) -> None:
        super().__init__()
        self.inner_attn = CrossAttention(dim, num_heads)
        self.q = create_linear(dim, dim)
        self.kv = create_linear(dim, 2 * dim)
        self.proj = create_linear(dim, dim)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            layouts = {"in_layout": NHWC, "out_layout": NHWC}
            init = conv_init(sr_ratio**2 * dim)
            self.sr = PatchConv(dim, dim, sr_ratio, **layouts, **init)
            self.norm = LayerNorm(dim, epsilon=1e-5)

    def construct(self, x: Tensor) -> Tensor:
        q = self.q(x)
        if self.sr_ratio > 1:
            x = self.norm(self.sr(x))  # (B, H, W, C) -> (B, H/sr, W/sr, C)
        return self.proj(self.inner_attn(q, self.kv(x)))


class WindowAttention(Attention):
    """Attention within w x w windows, (B, H, W, C) -> the same (section 3.2, LSA).

    Maps are padded on the right and at the bottom by zeros, which take part in the softmax as in
    the authors' code.
    """

    def __init__(self, dim: int, num_heads: int, *, window_size: int) -> None:
        super().__init__(dim, num_heads, qkv_bias=True)
        self.window_size = window_size

    def construct(self, x: Tensor) -> Tensor:
        side = self.window_size
        batch, height, width, dim = x.shape
        x = _pad(x, side)
        rows, columns = x.shape[1] // side, x.shape[2] // side
        # (B, rows w, columns w, C) -> (B rows columns, w w, C)
        x = x.reshape(batch, rows, side, columns, side, dim).transpose(0, 1, 3, 2, 4, 5)
        x = super().construct(x.reshape(batch * rows * columns, side * side, dim))
        # -> (B, rows w, columns w, C)
        x = x.reshape(batch, rows, columns, side, side, dim).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * side, columns * side, dim)
        return x[:, :height, :width, :]


def _pad(x: Tensor, side: int) -> Tensor:
    """Zeros on the right and at the bottom of (B, H, W, C), up to multiples of `side`."""
    batch, height, width, dim = x.shape
    if height % side:
        x = ops.concat((x, ops.zeros((batch, -height % side, width, dim), x.dtype)), axis=1)
    if width % side:
        x = ops.concat((x, ops.zeros((batch, x.shape[1], -width % side, dim), x.dtype)), axis=2)
    return x


class PositionEncoder(nn.Cell):
    """Conditional position encoding, x + depthwise 3x3 of x, on (B, H, W, C) (section 3.1, PEG)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.SequentialCell(DepthwiseConv(dim, 3, layout=NHWC, **conv_init(9)))

    def construct(self, x: Tensor) -> Tensor:
        return x + self.proj(x)
