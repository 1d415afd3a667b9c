"""Isotropic ConvNeXt: one resolution throughout (Liu et al. 2022, section 3.3).

Legend: B batch, H W image size, p patch size, C dim.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Optional, Tuple

import numpy as np
from mindspore import Tensor, nn

from .classifier import Classifier, FeatureInfo, check_img_size
from .convnext_parts import ConvNeXtBlock, Parts, conv_init
from .layers.global_pool import GlobalAveragePool
from .layers.layout import NCHW, NHWC, Relayout
from .layers.linear import create_linear
from .layers.patch_embed import PatchConv
from .macs import mlp_macs


class IsotropicConvNeXt(Classifier):
    """Patches and `depth` equal blocks; names of parameters are those of timm's blocks.

    Args:
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        layer_scale_init_value: initial layer scale of every channel; None: there is none, as in the
            authors' networks.
        head_init_scale: factor of the classifier's initial weights.
        img_size: for the check only; every multiple of `patch_size` gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of `patch_size`.
    """

    def __init__(
        self,
        *,
        depth: int,
        dim: int,
        patch_size: int = 16,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
        layer_scale_init_value: Optional[float] = None,
        head_init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_img_size(img_size, patch_size)
        self.num_features, self.depth, self.patch_size = dim, depth, patch_size
        self.head_init_scale = head_init_scale
        self.stem = PatchConv(
            in_chans, dim, patch_size, in_layout=NCHW, out_layout=NHWC, **conv_init()
        )
        parts = Parts(nonlinearity=nonlinearity, layer_scale_init_value=layer_scale_init_value)
        self.blocks = nn.SequentialCell(
            [
                ConvNeXtBlock(parts, dim, kernel_size=7, drop_path=float(rate))
                for rate in np.linspace(0.0, drop_path_rate, depth)
            ]
        )
        self.to_map = Relayout(NHWC, NCHW)
        self.pool = GlobalAveragePool()
        self.norm = parts.norm(dim)
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
        """(B, C, H/p, W/p) -> (B, num_classes); `pre_logits`: (B, C), normalised."""
        x = self.norm(self.pool(x))  # (B, C, H/p, W/p) -> (B, C)
        return x if pre_logits else self.head(x)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        places, dim = (model.img_size // model.patch_size) ** 2, model.dim
        stem = model.in_chans * model.patch_size**2 * dim
        return (
            places * (stem + model.depth * (49 * dim + mlp_macs(dim, 4))) + dim * model.num_classes
        )

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes, sigma=0.02 * self.head_init_scale)

    def _layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return 0 if part == "stem" else self.depth + 1
