"""What ConvNeXts are made of (Liu et al. 2022, and for version 2 Woo et al. 2023).

Legend: B batch, H W map size, C channels of the stage. Maps are (B, H, W, C) throughout.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Type, Union

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Constant, Initializer, TruncatedNormal, Zero, initializer

from .layers.activation import create_activation
from .layers.depthwise_conv import DepthwiseConv
from .layers.drop_path import DropPath
from .layers.layout import NCHW, NHWC, relayout
from .layers.linear import create_linear
from .layers.mlp import GrnMlp, Mlp
from .layers.norm import LayerNorm, SimpleNorm
from .layers.patch_embed import PatchConv

NORMS: Dict[str, Type[Union[LayerNorm, SimpleNorm]]] = {
    "layernorm": LayerNorm,
    "simplenorm": SimpleNorm,
}
STEMS = ("patch", "overlap", "overlap_tiered", "overlap_act")


def conv_init() -> Dict[str, Initializer]:
    return {"weight_init": TruncatedNormal(0.02), "bias_init": Zero()}


class Parts:
    """The layers that all parts of one network have in common.

    Args:
        norm_layer: of NORMS.
        norm_eps: added to each variance.
        layer_scale_init_value: None: no layer scale.
        use_grn: perceptrons of version 2.
    """

    def __init__(
        self,
        *,
        norm_layer: str = "layernorm",
        norm_eps: float = 1e-6,
        layer_scale_init_value: Optional[float],
        use_grn: bool = False,
        nonlinearity: str,
    ) -> None:
        self.norm_layer, self.norm_eps = NORMS[norm_layer], norm_eps
        self.layer_scale_init_value = layer_scale_init_value
        self.mlp = GrnMlp if use_grn else Mlp
        self.nonlinearity = nonlinearity

    def norm(self, dim: int) -> nn.Cell:
        return self.norm_layer(dim, epsilon=self.norm_eps)


class ConvNeXtBlock(nn.Cell):
    """Depthwise convolution and inverted bottleneck, (B, H, W, C) -> the same (figure 4).

    `gamma` (C,) scales the branch per channel, where there is a layer scale.
    """

    def __init__(self, parts: Parts, dim: int, *, kernel_size: int, drop_path: float) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv(dim, kernel_size, layout=NHWC, **conv_init())
        self.norm = parts.norm(dim)
        self.mlp = parts.mlp(dim, 4 * dim, nonlinearity=parts.nonlinearity)
        self.gamma = None
        if parts.layer_scale_init_value is not None:
            scale = Constant(parts.layer_scale_init_value)
            self.gamma = Parameter(initializer(scale, (dim,)), name="gamma")
        self.drop_path = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        branch = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is None:
            return self.drop_path.add(x, branch)
        return self.drop_path.add_scaled(x, branch, self.gamma)


class Stage(nn.Cell):
    """Blocks of one resolution, after halving it unless this is the first stage.

    Shapes: (B, 2H, 2W, C') -> (B, H, W, C), for the first stage (B, H, W, C) -> the same.

    Args:
        in_dim: C'; None: the first stage.
    """

    def __init__(
        self,
        parts: Parts,
        in_dim: Optional[int],
        dim: int,
        *,
        kernel_size: int,
        drop_path_rates: Sequence[float],
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if in_dim is not None:
            self.downsample = nn.SequentialCell(
                parts.norm(in_dim),
                PatchConv(in_dim, dim, 2, in_layout=NHWC, out_layout=NHWC, **conv_init()),
            )
        self.blocks = nn.SequentialCell(
            [
                ConvNeXtBlock(parts, dim, kernel_size=kernel_size, drop_path=float(rate))
                for rate in drop_path_rates
            ]
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class OverlapConv(nn.Conv2d):
    """3x3 convolution that halves a map, (B, C, 2H, 2W) -> (B, C', H, W), in `out_layout`."""

    def __init__(self, in_dim: int, dim: int, *, out_layout: str = NCHW) -> None:
        super().__init__(in_dim, dim, 3, 2, pad_mode="pad", padding=1, has_bias=True, **conv_init())
        self.out_layout = out_layout

    def construct(self, x: Tensor) -> Tensor:
        return relayout(super().construct(x), NCHW, self.out_layout)


def create_stem(parts: Parts, kind: str, in_chans: int, dim: int) -> nn.SequentialCell:
    """(B, in_chans, 4H, 4W) -> (B, H, W, C): patches, or two convolutions that overlap.

    Args:
        kind: of STEMS. `_tiered`: the first of two has half as many channels, see `tiered_width`.
            `_act`: an activation stands between them.
    """
    if kind == "patch":
        patches = PatchConv(in_chans, dim, 4, in_layout=NCHW, out_layout=NHWC, **conv_init())
        return nn.SequentialCell(patches, parts.norm(dim))
    width = tiered_width(dim) if kind == "overlap_tiered" else dim
    cells: List[nn.Cell] = [OverlapConv(in_chans, width)]
    if kind == "overlap_act":
        cells.append(create_activation(parts.nonlinearity))
    cells += [OverlapConv(width, dim, out_layout=NHWC), parts.norm(dim)]
    return nn.SequentialCell(cells)


def tiered_width(dim: int) -> int:
    """Half of the channels, to the nearest multiple of 8 that takes off a tenth at most."""
    half = dim // 2
    width = max(8, (half + 4) // 8 * 8)
    return width + 8 if width < 0.9 * half else width


class Head(nn.Cell):
    """Norm, maybe a hidden layer, and classifier of pooled features, (B, C) -> (B, num_classes).

    Args:
        hidden_size: of the layer before the classifier; None: there is none.
        is_normed: whether the norm is here; else it stood before the pooling.
    """

    def __init__(
        self, parts: Parts, dim: int, *, hidden_size: Optional[int], is_normed: bool
    ) -> None:
        super().__init__()
        self.norm = parts.norm(dim) if is_normed else nn.Identity()
        self.pre_logits = nn.Identity() if hidden_size is None else _Hidden(dim, hidden_size)
        self.fc = nn.Identity()  # until `reset_classifier`

    def features(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, num_features), what the classifier reads."""
        return self.pre_logits(self.norm(x))

    def construct(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class _Hidden(nn.Cell):
    def __init__(self, dim: int, hidden_size: int) -> None:
        super().__init__()
        self.fc = create_linear(dim, hidden_size)
        self.act = create_activation("GELU")

    def construct(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x))
