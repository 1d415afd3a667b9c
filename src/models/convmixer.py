"""ConvMixer: Patches Are All You Need? (Trockman and Kolter 2022).

Legend: B batch, H W image size, p patch size, C dim.
Parameter names are timm's but for the norms' gamma, beta, moving_mean and moving_variance.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Dict, List, Tuple

import numpy as np
from mindspore import Tensor, nn
from mindspore.common.initializer import Initializer, Uniform

from ..overrides import Overridable
from . import foreign_names
from .classifier import Classifier, FeatureInfo, check_img_size
from .family import Family, Naming
from .keywords import MAX_BLOCKS, Keyword
from .layers.activation import create_activation
from .layers.depthwise_conv import DepthwiseConv
from .layers.drop_path import DropPath
from .layers.global_pool import GlobalAveragePool
from .layers.layout import NCHW, Relayout
from .layers.norm import BatchNorm
from .layers.patch_embed import PatchConv
from .layers.pointwise_conv import PointwiseConv


def _init(fan_in: int) -> Dict[str, Initializer]:
    """PyTorch's default for weights and biases alike, which is all the authors use."""
    return {"weight_init": Uniform(fan_in**-0.5), "bias_init": Uniform(fan_in**-0.5)}


class Residual(nn.Cell):
    """x + fn(x), where stochastic depth may drop fn(x)."""

    def __init__(self, fn: nn.Cell, *, drop_path: float) -> None:
        super().__init__()
        self.fn = fn
        self.drop_path = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop_path.add(x, self.fn(x))


class ConvMixer(Overridable, Classifier):
    """Patch embedding and `depth` equal blocks (section 2, figure 2).

    Args:
        drop_path_rate: stochastic depth of the last block's residual branch, growing linearly from
            0. Not in the paper, whose models have none; the model zoo's recipe sets it.
        img_size: for the check only; every multiple of `patch_size` gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of `patch_size`.
    """

    # Of the maps between the layers, none of which needs one or the other.
    layout = NCHW

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        kernel_size: int,
        patch_size: int,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
    ) -> None:
        super().__init__()
        check_img_size(img_size, patch_size)
        self.num_features, self.depth, self.patch_size = dim, depth, patch_size

        def with_norm(layer: nn.Cell) -> List[nn.Cell]:
            # The activation comes before the norm (equations 2 and 3).
            return [layer, create_activation(nonlinearity), BatchNorm(dim, layout=self.layout)]

        layouts = {"in_layout": NCHW, "out_layout": self.layout}
        patches = PatchConv(in_chans, dim, patch_size, **layouts, **_init(in_chans * patch_size**2))
        self.stem = nn.SequentialCell(with_norm(patches))
        blocks = []
        for rate in np.linspace(0.0, drop_path_rate, depth):
            depthwise = DepthwiseConv(dim, kernel_size, layout=self.layout, **_init(kernel_size**2))
            pointwise = PointwiseConv(dim, dim, layout=self.layout, **_init(dim))
            mixing = Residual(nn.SequentialCell(with_norm(depthwise)), drop_path=float(rate))
            blocks.append(nn.SequentialCell([mixing, *with_norm(pointwise)]))
        self.blocks = nn.SequentialCell(blocks)
        self.to_map = Relayout(self.layout, NCHW)
        self.pool = GlobalAveragePool()
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H/p, W/p)."""
        return self.to_map(self.blocks(self.stem(x)))

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """See `Classifier.feature_info`."""
        return (FeatureInfo(self.num_features, self.patch_size),) * self.depth

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See `Classifier.layer_maps`."""
        x = self.stem(x)
        maps = ()
        for block in self.blocks:
            x = block(x)
            maps = maps + (self.to_map(x),)
        return self.to_map(x), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H/p, W/p) -> (B, num_classes); `pre_logits`: (B, C)."""
        x = self.pool(x)  # (B, C, H/p, W/p) -> (B, C)
        return x if pre_logits else self.head(x)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        positions = (model.img_size // model.patch_size) ** 2
        stem = model.in_chans * model.patch_size**2 * model.dim
        block = model.kernel_size**2 * model.dim + model.dim**2
        return positions * (stem + model.depth * block) + model.dim * model.num_classes

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return nn.Dense(self.num_features, num_classes, **_init(self.num_features))

    def _layer_of(self, name: str) -> int:
        part, index = name.split(".")[:2]
        if part == "blocks":
            return int(index) + 1
        return 0 if part == "stem" else self.depth + 1


VARIANTS = {
    "convmixer_1536_20": (
        ConvMixer,
        {"dim": 1536, "depth": 20, "kernel_size": 9, "patch_size": 7},
    ),
    "convmixer_1536_20_ks3_p7": (
        ConvMixer,
        {"dim": 1536, "depth": 20, "kernel_size": 3, "patch_size": 7},
    ),
    "convmixer_1024_20_ks9_p14": (
        ConvMixer,
        {"dim": 1024, "depth": 20, "kernel_size": 9, "patch_size": 14},
    ),
    "convmixer_768_32": (
        ConvMixer,
        {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "nonlinearity": "ReLU"},
    ),
    # The authors' example for CIFAR-10.
    "convmixer_256_8": (
        ConvMixer,
        {
            **{"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 2},
            **{"img_size": 32, "num_classes": 10},
        },
    ),
}


def _from_the_authors(name: str) -> str:
    """Their network is one nn.Sequential: three cells of the stem, blocks, pool, head."""
    index, _, rest = name.partition(".")
    if not re.fullmatch("[0-9]{1,4}", index):
        return name
    if int(index) < 3:
        return f"stem.{name}"
    return f"blocks.{int(index) - 3}.{rest}" if "." in rest else f"head.{rest}"


FAMILY = Family(
    title="ConvMixer",
    variants=VARIANTS,
    namings=(
        Naming("timm", "blocks.0.0.fn.0.weight"),
        Naming("the authors", "3.0.fn.0.weight", _from_the_authors),
        *foreign_names.CONVMIXER,
    ),
    keywords={
        "dim": Keyword("channels of all layers"),
        "depth": Keyword("number of blocks", high=MAX_BLOCKS),
        "kernel_size": Keyword("kernel of the depthwise convolutions, odd", high=255),
        "patch_size": Keyword("side of a patch, pixels; a divisor of image_size", high=4096),
    },
)
