"""ConvNeXt: A ConvNet for the 2020s (Liu et al. 2022).

Legend: B batch, H W map size, C channels of the stage. Maps are (B, H, W, C) throughout.
Parameter names are timm's but for the norms' gamma and beta; a block's own `gamma` is its layer
scale.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Dict, Optional, Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Constant, Initializer, TruncatedNormal, Zero, initializer

from .classifier import Classifier, check_img_size
from .family import Family, Naming
from .keywords import MAX_BLOCKS, Keyword
from .layers.depthwise_conv import DepthwiseConv
from .layers.drop_path import DropPath
from .layers.global_pool import GlobalAveragePool
from .layers.layout import NCHW, NHWC, Relayout
from .layers.linear import create_linear
from .layers.mlp import Mlp
from .layers.norm import LayerNorm
from .layers.patch_embed import PatchConv
from .macs import mlp_macs

_TOTAL_STRIDE = 32


def _conv_init() -> Dict[str, Initializer]:
    return {"weight_init": TruncatedNormal(0.02), "bias_init": Zero()}


class ConvNeXtBlock(nn.Cell):
    """Depthwise convolution and inverted bottleneck, (B, H, W, C) -> the same (figure 4).

    `gamma` (C,) scales the branch per channel.
    """

    def __init__(
        self, dim: int, *, drop_path: float, layer_scale_init_value: float, nonlinearity: str
    ) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv(dim, 7, layout=NHWC, **_conv_init())
        self.norm = LayerNorm(dim, epsilon=1e-6)
        self.mlp = Mlp(dim, 4 * dim, nonlinearity=nonlinearity)
        self.gamma = Parameter(initializer(Constant(layer_scale_init_value), (dim,)), name="gamma")
        self.drop_path = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        branch = self.mlp(self.norm(self.conv_dw(x)))
        return self.drop_path.add_scaled(x, branch, self.gamma)


class Stage(nn.Cell):
    """Blocks of one resolution, after halving it unless this is the first stage.

    Shapes: (B, 2H, 2W, C') -> (B, H, W, C), for the first stage (B, H, W, C) -> the same.

    Args:
        in_dim: C'; None: the first stage.
    """

    def __init__(
        self, in_dim: Optional[int], dim: int, *, drop_path_rates: Sequence[float], **block: Any
    ) -> None:
        super().__init__()
        self.downsample = nn.Identity()
        if in_dim is not None:
            self.downsample = nn.SequentialCell(
                LayerNorm(in_dim, epsilon=1e-6),
                PatchConv(in_dim, dim, 2, in_layout=NHWC, out_layout=NHWC, **_conv_init()),
            )
        self.blocks = nn.SequentialCell(
            [ConvNeXtBlock(dim, drop_path=float(rate), **block) for rate in drop_path_rates]
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Head(nn.Cell):
    """Norm and classifier of pooled features, (B, C) -> (B, num_classes)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, epsilon=1e-6)
        self.fc = nn.Identity()  # until `reset_classifier`

    def construct(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x))


class ConvNeXt(Classifier):
    """Four stages of blocks (section 2.2 and appendix A.4).

    Args:
        depths: blocks of each stage.
        dims: channels of each stage.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 over all stages.
        layer_scale_init_value: initial layer scale of every channel.
        head_init_scale: factor of the classifier's initial weights; the authors fine-tune with
            0.001.
        img_size: for the check only; every multiple of 32 gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of 32.
    """

    classifier_layers = ("head.fc",)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        dims: Sequence[int],
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
        layer_scale_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_img_size(img_size, _TOTAL_STRIDE)
        self.num_features, self.depths = dims[-1], tuple(depths)
        self.stem = nn.SequentialCell(
            PatchConv(in_chans, dims[0], 4, in_layout=NCHW, out_layout=NHWC, **_conv_init()),
            LayerNorm(dims[0], epsilon=1e-6),
        )
        rates = np.split(np.linspace(0.0, drop_path_rate, sum(depths)), np.cumsum(self.depths)[:-1])
        self.stages = nn.SequentialCell(
            [
                Stage(
                    in_dim,
                    dim,
                    drop_path_rates=stage_rates,
                    layer_scale_init_value=layer_scale_init_value,
                    nonlinearity=nonlinearity,
                )
                for in_dim, dim, stage_rates in zip([None, *dims], dims, rates)
            ]
        )
        self.to_map = Relayout(NHWC, NCHW)
        self.pool = GlobalAveragePool()
        self.head, self.head_init_scale = Head(dims[-1]), head_init_scale
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H/32, W/32)."""
        return self.to_map(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H/32, W/32) -> (B, num_classes); `pre_logits`: (B, C), normalised."""
        x = self.pool(x)  # (B, C, H/32, W/32) -> (B, C)
        return self.head.norm(x) if pre_logits else self.head(x)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        side = model.img_size // 4
        total = side**2 * 16 * model.in_chans * model.dims[0]
        for in_dim, dim, depth in zip([None, *model.dims], model.dims, model.depths):
            if in_dim is not None:
                side //= 2
                total += side**2 * 4 * in_dim * dim
            total += side**2 * depth * (49 * dim + mlp_macs(dim, 4))
        return total + model.dims[-1] * model.num_classes

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes, sigma=0.02 * self.head_init_scale)

    def _layer_of(self, name: str) -> int:
        """The authors' groups: stage 3 by three blocks, a downsampling with what follows it.

        With their 27 blocks there the ids are 0 to 13. They have no rule for 9 blocks; here the
        later groups move up, to 0 to 7, so that no id is empty.
        """
        last_stage = 3 + -(-self.depths[2] // 3)
        part, *rest = name.split(".")
        if part == "stem":
            return 0
        if part == "head":
            return last_stage + 1
        stage = int(rest[0])
        if stage == 2 and rest[1] == "blocks":
            return 3 + int(rest[2]) // 3
        return last_stage if stage == 3 else stage + 1


_SIZES: Dict[str, Dict[str, Any]] = {
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048)},
}

# What a name says after the size, as keywords.
_SUFFIXES: Dict[str, Dict[str, Any]] = {
    "": {},
    "_384_in1k": {"img_size": 384},
    "_in22k": {"num_classes": 21841},
    "_in22k_ft_in1k": {},
    "_in22k_ft_in1k_384": {"img_size": 384},
}

_NAMES = """
    convnext_tiny convnext_small convnext_base convnext_large
    convnext_base_384_in1k convnext_large_384_in1k
    convnext_tiny_in22k convnext_tiny_in22k_ft_in1k convnext_tiny_in22k_ft_in1k_384
    convnext_small_in22k convnext_small_in22k_ft_in1k convnext_small_in22k_ft_in1k_384
    convnext_base_in22k convnext_base_in22k_ft_in1k convnext_base_in22k_ft_in1k_384
    convnext_large_in22k convnext_large_in22k_ft_in1k convnext_large_in22k_ft_in1k_384
    convnext_xlarge_in22k convnext_xlarge_in22k_ft_in1k convnext_xlarge_in22k_ft_in1k_384
"""


def _keywords(name: str) -> Dict[str, Any]:
    size = name.split("_")[1]
    return {**_SIZES[size], **_SUFFIXES[name[len(f"convnext_{size}") :]]}


VARIANTS = {name: (ConvNeXt, _keywords(name)) for name in _NAMES.split()}

_RULES_OF_THE_AUTHORS = (
    (r"^downsample_layers\.0\.", r"stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", r".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"^norm\.", r"head.norm."),
)


def _from_the_authors(name: str) -> str:
    for pattern, replacement in _RULES_OF_THE_AUTHORS:
        name = re.sub(pattern, replacement, name)
    return name


FAMILY = Family(
    title="ConvNeXt",
    variants=VARIANTS,
    namings=(
        Naming("timm", "stages.0.blocks.0.conv_dw.weight"),
        Naming("the authors", "stages.0.0.dwconv.weight", _from_the_authors),
    ),
    keywords={
        "depths": Keyword("blocks of each stage", high=MAX_BLOCKS, length=4),
        "dims": Keyword("channels of each stage", length=4),
        "layer_scale_init_value": Keyword("initial layer scale of every channel", float, 0, 1e3),
        "head_init_scale": Keyword("factor of the classifier's initial weights", float, 1e-6, 1e3),
    },
)
