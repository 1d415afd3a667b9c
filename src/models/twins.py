"""Twins: Revisiting the Design of Spatial Attention in Vision Transformers (Chu et al. 2021).

Legend: B batch, H W map size of the stage, C its channels, h heads, d = C / h, N = H W queries,
M keys, w window side. Maps are (B, H, W, C) throughout.
Parameter names are timm's, which are the authors', but for the norms' gamma and beta.
"""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any, Dict, Optional, Sequence, Set, Tuple

import numpy as np
from mindspore import Tensor, nn

from . import foreign_names
from .classifier import Classifier, FeatureInfo, check_img_size
from .family import Family, Naming
from .keywords import MAX_BLOCKS, Keyword
from .layers.layout import NCHW, NHWC
from .layers.linear import create_linear
from .layers.norm import LayerNorm
from .layers.patch_embed import PatchEmbed
from .layers.transformer_block import TransformerBlock
from .macs import attention_macs, mlp_macs
from .twins_parts import PositionEncoder, SubSampledAttention, WindowAttention, conv_init

# Of the patch embedding of each stage.
_STRIDES = (4, 2, 2, 2)
_TOTAL_STRIDE = 32


class Twins(Classifier):
    """Four stages with global attention to sub-sampled maps: PCPVT (section 3.1, figure 1).

    Args:
        embed_dims, depths, num_heads, mlp_ratios, sr_ratios: per stage.
        window_size: every other block, from each stage's first on, attends within windows: SVT
            (section 3.2). None: no block does.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 over all stages.
        img_size: for the check only; every multiple of 32 gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of 32, channels not of heads, or a map is smaller
            than its `sr_ratios`, or all than the window.
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[float],
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        window_size: Optional[int] = None,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
    ) -> None:
        super().__init__()
        _check_maps(img_size, sr_ratios, window_size)
        self.num_features, self.depths = embed_dims[-1], tuple(depths)
        widths = zip([in_chans, *embed_dims], embed_dims, _STRIDES)
        self.patch_embeds = nn.CellList(
            [
                PatchEmbed(
                    in_dim,
                    dim,
                    stride,
                    in_layout=NHWC if stage else NCHW,
                    norm_epsilon=1e-5,
                    **conv_init(stride**2 * dim),
                )
                for stage, (in_dim, dim, stride) in enumerate(widths)
            ]
        )
        rates = iter(np.linspace(0.0, drop_path_rate, sum(depths)))
        self.blocks = nn.CellList(
            [
                _create_blocks(
                    embed_dims[stage],
                    num_heads[stage],
                    sr_ratio=sr_ratios[stage],
                    window_size=window_size,
                    drop_path_rates=list(islice(rates, depth)),
                    mlp_ratio=mlp_ratios[stage],
                    nonlinearity=nonlinearity,
                )
                for stage, depth in enumerate(depths)
            ]
        )
        self.pos_block = nn.CellList([PositionEncoder(dim) for dim in embed_dims])
        self.norm = LayerNorm(embed_dims[-1], epsilon=1e-6)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, H W / 32^2, C) normalised tokens."""
        for stage in range(len(self.depths)):
            x = self._stage(x, stage)
        return self.norm(x.reshape(x.shape[0], -1, self.num_features))  # -> (B, N, C)

    def _stage(self, x: Tensor, stage: int) -> Tensor:
        """(B, H, W, C) -> (B, H/2, W/2, C'); the first takes images, -> (B, H/4, W/4, C')."""
        x = self.patch_embeds[stage](x)
        for index in range(self.depths[stage]):
            x = self.blocks[stage][index](x)
            if index == 0:
                x = self.pos_block[stage](x)
        return x

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """See `Classifier.feature_info`."""
        widths = [embed.proj.out_channels for embed in self.patch_embeds]
        return tuple(FeatureInfo(dim, 4 * 2**stage) for stage, dim in enumerate(widths))

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See `Classifier.layer_maps`."""
        maps = ()
        for stage in range(len(self.depths)):
            x = self._stage(x, stage)
            maps = maps + (x.transpose(0, 3, 1, 2),)  # (B, h, w, C) -> (B, C, h, w)
        return self.norm(x.reshape(x.shape[0], -1, self.num_features)), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N, C) -> (B, num_classes); `pre_logits`: (B, C)."""
        x = x.mean(axis=1)  # (B, N, C) -> (B, C)
        return x if pre_logits else self.head(x)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        side, in_dim, total = model.img_size, model.in_chans, 0
        for stage, (dim, depth) in enumerate(zip(model.embed_dims, model.depths)):
            side //= _STRIDES[stage]
            total += side**2 * _STRIDES[stage] ** 2 * in_dim * dim  # patch embedding
            total += side**2 * 9 * dim  # position encoder
            total += depth * side**2 * mlp_macs(dim, model.mlp_ratios[stage])
            in_windows = 0 if model.window_size is None else (depth + 1) // 2
            if in_windows:
                total += in_windows * _window_attention_macs(side, dim, model.window_size)
            sub_sampled = _sub_sampled_attention_macs(side, dim, model.sr_ratios[stage])
            total += (depth - in_windows) * sub_sampled
            in_dim = dim
        return total + in_dim * model.num_classes

    def no_weight_decay(self) -> Set[str]:
        """The position encoders, as the authors."""
        return {p.name for p in self.get_parameters() if p.name.startswith("pos_block.")}

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes)

    def _layer_of(self, name: str) -> int:
        """Blocks are counted over all stages; a stage's other cells go with its first block."""
        part, *rest = name.split(".")
        if part in ("norm", "head"):
            return sum(self.depths) + 1
        stage = int(rest[0])
        if part == "patch_embeds" and stage == 0:
            return 0
        block = int(rest[1]) if part == "blocks" else 0
        return sum(self.depths[:stage]) + block + 1


def _check_maps(img_size: int, sr_ratios: Sequence[int], window_size: Optional[int]) -> None:
    check_img_size(img_size, _TOTAL_STRIDE)
    sides = [int(side) for side in img_size // np.cumprod(_STRIDES)]
    if any(ratio > side for ratio, side in zip(sr_ratios, sides)):
        raise ValueError(
            f"sr_ratios {list(sr_ratios)}: the maps of image_size {img_size} have the sides "
            f"{sides}; give sr_ratios up to them"
        )
    if window_size is not None and window_size > sides[0]:
        raise ValueError(
            f"window_size {window_size}: the largest map of image_size {img_size} has the side "
            f"{sides[0]}; give one up to that"
        )


def _create_blocks(
    dim: int,
    num_heads: int,
    *,
    sr_ratio: int,
    window_size: Optional[int],
    drop_path_rates: Sequence[float],
    **block: Any,
) -> nn.CellList:
    """The blocks of one stage."""
    cells = []
    for index, rate in enumerate(drop_path_rates):
        if window_size is not None and index % 2 == 0:
            attention: nn.Cell = WindowAttention(dim, num_heads, window_size=window_size)
        else:
            attention = SubSampledAttention(dim, num_heads, sr_ratio=sr_ratio)
        cells.append(TransformerBlock(dim, attention, drop_path=float(rate), **block))
    return nn.CellList(cells)


def _window_attention_macs(side: int, dim: int, window_size: int) -> int:
    """Padding takes part, but for the last projection."""
    windows, padded = -(-side // window_size), -side % window_size + side
    whole = windows**2 * attention_macs(window_size**2, dim)
    return whole - (padded**2 - side**2) * dim**2


def _sub_sampled_attention_macs(side: int, dim: int, sr_ratio: int) -> int:
    queries, keys = side**2, (side // sr_ratio) ** 2
    convolution = keys * sr_ratio**2 * dim**2 if sr_ratio > 1 else 0
    return 2 * (queries + keys) * dim**2 + convolution + 2 * queries * keys * dim


def _pcpvt(*depths: int) -> Dict[str, Any]:
    return {
        "embed_dims": (64, 128, 320, 512),
        "depths": depths,
        "num_heads": (1, 2, 5, 8),
        "mlp_ratios": (8, 8, 4, 4),
    }


def _svt(dim: int, *depths: int) -> Dict[str, Any]:
    embed_dims = (dim, 2 * dim, 4 * dim, 8 * dim)
    return {
        "embed_dims": embed_dims,
        "depths": depths,
        "num_heads": tuple(width // 32 for width in embed_dims),
        "mlp_ratios": (4, 4, 4, 4),
        "window_size": 7,
    }


# The authors' name, timm's name, keywords.
_NAMES = (
    ("pcpvt_small_v0", "twins_pcpvt_small", _pcpvt(3, 4, 6, 3)),
    ("pcpvt_base_v0", "twins_pcpvt_base", _pcpvt(3, 4, 18, 3)),
    ("pcpvt_large_v0", "twins_pcpvt_large", _pcpvt(3, 8, 27, 3)),
    ("alt_gvt_small", "twins_svt_small", _svt(64, 2, 2, 10, 4)),
    ("alt_gvt_base", "twins_svt_base", _svt(96, 2, 2, 18, 2)),
    ("alt_gvt_large", "twins_svt_large", _svt(128, 2, 2, 18, 2)),
)

VARIANTS = {name: (Twins, keywords) for *names, keywords in _NAMES for name in names}

FAMILY = Family(
    title="Twins",
    variants=VARIANTS,
    namings=(
        Naming("timm and the authors", "patch_embeds.0.proj.weight"),
        *foreign_names.TWINS,
    ),
    keywords={
        "embed_dims": Keyword("channels of each stage", length=4),
        "depths": Keyword("blocks of each stage", high=MAX_BLOCKS, length=4),
        "num_heads": Keyword("attention heads of each stage; divisors of embed_dims", length=4),
        "mlp_ratios": Keyword(
            "hidden width of each stage's MLPs / embed_dims", float, 0.01, 64, length=4
        ),
        "sr_ratios": Keyword("side of the squares that become one key and value each", length=4),
        "window_size": Keyword(
            "side of the windows of every other block; null: no windows", high=1024, optional=True
        ),
    },
)
