"""ConvNeXt: A ConvNet for the 2020s (Liu et al. 2022).

Legend: B batch, H W map size, C channels of the stage. Maps are (B, H, W, C) throughout.
Parameter names are timm's but for the norms' gamma and beta; a block's own `gamma` is its layer
scale.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Dict, Optional, Sequence, Set, Tuple

import numpy as np
from mindspore import Tensor, nn

from . import foreign_names
from .classifier import Classifier, FeatureInfo, check_img_size
from .convnext_isotropic import IsotropicConvNeXt
from .convnext_parts import NORMS, STEMS, Head, Parts, Stage, create_stem, tiered_width
from .family import Family, Naming, Variant
from .keywords import MAX_BLOCKS, Keyword
from .layers.global_pool import GlobalAveragePool
from .layers.layout import NCHW, NHWC, Relayout
from .layers.linear import create_linear
from .macs import mlp_macs

_TOTAL_STRIDE = 32


class ConvNeXt(Classifier):
    """Four stages of blocks (section 2.2 and appendix A.4).

    Args:
        depths: blocks of each stage.
        dims: channels of each stage.
        kernel_sizes: of the depthwise convolutions of each stage.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 over all stages.
        stem_type: patches, or two convolutions that overlap, as timm has them.
        norm_layer, norm_eps: of all norms.
        layer_scale_init_value: initial layer scale of every channel; None: there is none.
        use_grn: global response norms in the perceptrons (ConvNeXt V2, Woo et al. 2023).
        conv_mlp: convert_weights.py --to torch writes the perceptrons' weights as 1x1 convolutions,
            which timm's smaller networks have.
        head_norm_first: the last norm comes before the pooling.
        head_hidden_size: of a layer before the classifier; None: there is none.
        head_init_scale: factor of the classifier's initial weights; the authors fine-tune with
            0.001.
        img_size: for the check only; every multiple of 32 gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of 32.
    """

    classifier_layers = ("head.fc",)
    head_norm = "head.norm"

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
        kernel_sizes: Sequence[int] = (7, 7, 7, 7),
        stem_type: str = "patch",
        norm_layer: str = "layernorm",
        norm_eps: float = 1e-6,
        layer_scale_init_value: Optional[float] = 1e-6,
        use_grn: bool = False,
        conv_mlp: bool = False,
        head_norm_first: bool = False,
        head_hidden_size: Optional[int] = None,
        head_init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_img_size(img_size, _TOTAL_STRIDE)
        self.num_features, self.depths = head_hidden_size or dims[-1], tuple(depths)
        self.dims = tuple(dims)
        self.conv_mlp = conv_mlp
        parts = Parts(
            norm_layer=norm_layer,
            norm_eps=norm_eps,
            layer_scale_init_value=layer_scale_init_value,
            use_grn=use_grn,
            nonlinearity=nonlinearity,
        )
        self.stem = create_stem(parts, stem_type, in_chans, dims[0])
        rates = np.split(np.linspace(0.0, drop_path_rate, sum(depths)), np.cumsum(self.depths)[:-1])
        self.stages = nn.SequentialCell(
            [
                Stage(parts, in_dim, dim, kernel_size=size, drop_path_rates=stage_rates)
                for in_dim, dim, size, stage_rates in zip([None, *dims], dims, kernel_sizes, rates)
            ]
        )
        self.norm_pre = parts.norm(dims[-1]) if head_norm_first else nn.Identity()
        self.to_map = Relayout(NHWC, NCHW)
        self.pool = GlobalAveragePool()
        self.head_init_scale = head_init_scale
        self.head = Head(
            parts, dims[-1], hidden_size=head_hidden_size, is_normed=not head_norm_first
        )
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H/32, W/32)."""
        return self.to_map(self.norm_pre(self.stages(self.stem(x))))

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """See `Classifier.feature_info`."""
        return tuple(FeatureInfo(dim, 4 * 2**stage) for stage, dim in enumerate(self.dims))

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See `Classifier.layer_maps`."""
        x = self.stem(x)
        maps = ()
        for stage in self.stages:
            x = stage(x)
            maps = maps + (self.to_map(x),)
        return self.to_map(self.norm_pre(x)), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H/32, W/32) -> (B, num_classes); `pre_logits`: (B, num_features), normalised."""
        x = self.pool(x)  # (B, C, H/32, W/32) -> (B, C)
        return self.head.features(x) if pre_logits else self.head(x)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        side, dims, hidden = model.img_size // 4, model.dims, model.head_hidden_size
        total = side**2 * 16 * model.in_chans * dims[0]
        if model.stem_type != "patch":
            width = tiered_width(dims[0]) if model.stem_type == "overlap_tiered" else dims[0]
            total = side**2 * 9 * width * (4 * model.in_chans + dims[0])
        for in_dim, dim, depth, size in zip([None, *dims], dims, model.depths, model.kernel_sizes):
            if in_dim is not None:
                side //= 2
                total += side**2 * 4 * in_dim * dim
            total += side**2 * depth * (size**2 * dim + mlp_macs(dim, 4))
        return total + (hidden or 0) * dims[-1] + (hidden or dims[-1]) * model.num_classes

    def pointwise_convs(self) -> Set[str]:
        """Those of the perceptrons, with `conv_mlp`."""
        names = (parameter.name for parameter in self.get_parameters())
        is_conv = re.compile(r"\.mlp\.fc[12]\.weight$").search
        return set(filter(is_conv, names)) if self.conv_mlp else set()

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
        if part in ("norm_pre", "head"):
            return last_stage + 1
        stage = int(rest[0])
        if stage == 2 and rest[1] == "blocks":
            return 3 + int(rest[2]) // 3
        return last_stage if stage == 3 else stage + 1


# Size -> blocks of each stage, and channels of the first, which double from stage to stage.
_SIZES = {
    "zepto": ((2, 2, 4, 2), 32),
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
    "xxlarge": ((3, 4, 30, 3), 384),
}
_SMALL_OF_TIMM = ("zepto", "atto", "femto", "pico", "nano")

# What a name says beside the size, as keywords.
_SUFFIXES: Dict[str, Dict[str, Any]] = {
    "384_in1k": {"img_size": 384},
    "in22k": {"num_classes": 21841},
    "in22k_ft_in1k": {},
    "in22k_ft_in1k_384": {"img_size": 384},
    "hnf": {"head_norm_first": True, "conv_mlp": True},
    "mlp": {"head_hidden_size": 1536},
    "ols": {"stem_type": "overlap_tiered"},
    "rms": {"norm_layer": "simplenorm"},
    "rms_ols": {"norm_layer": "simplenorm", "stem_type": "overlap_act"},
}

_NAMES = """
    convnext_tiny convnext_small convnext_base convnext_large convnext_xlarge convnext_xxlarge
    convnext_base_384_in1k convnext_large_384_in1k
    convnext_tiny_in22k convnext_tiny_in22k_ft_in1k convnext_tiny_in22k_ft_in1k_384
    convnext_small_in22k convnext_small_in22k_ft_in1k convnext_small_in22k_ft_in1k_384
    convnext_base_in22k convnext_base_in22k_ft_in1k convnext_base_in22k_ft_in1k_384
    convnext_large_in22k convnext_large_in22k_ft_in1k convnext_large_in22k_ft_in1k_384
    convnext_xlarge_in22k convnext_xlarge_in22k_ft_in1k convnext_xlarge_in22k_ft_in1k_384
    convnext_atto convnext_femto convnext_pico convnext_nano convnext_zepto_rms
    convnext_atto_ols convnext_femto_ols convnext_pico_ols convnext_nano_ols convnext_zepto_rms_ols
    convnext_tiny_hnf convnext_large_mlp
    convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano convnextv2_tiny
    convnextv2_small convnextv2_base convnextv2_large convnextv2_huge
"""
_V2 = {"use_grn": True, "layer_scale_init_value": None}
# timm's, for tests of programs.
_TEST = {"norm_eps": 1e-5, "nonlinearity": "GELU_tanh", "img_size": 160}


def _keywords(name: str) -> Dict[str, Any]:
    version, size, *suffix = name.split("_", 2)
    depths, dim = _SIZES[size]
    keywords = {"depths": depths, "dims": (dim, 2 * dim, 4 * dim, 8 * dim)}
    keywords.update(_SUFFIXES[suffix[0]] if suffix else {})
    keywords.update(_V2 if version == "convnextv2" else {})
    keywords.update({"conv_mlp": True} if size in _SMALL_OF_TIMM else {})
    return keywords


_SPECIAL: Dict[str, Dict[str, Any]] = {
    # Its stem is that of timm's first overlapping networks.
    "convnext_nano_ols": {"stem_type": "overlap"},
    "convnext_xxlarge": {"norm_eps": 1e-5},
}

_FOUR = {"depths": (1, 1, 1, 1), "dims": (32, 64, 96, 128), **_TEST}
_SILU = {"kernel_sizes": (7, 5, 5, 3), "nonlinearity": "SiLU"}

VARIANTS: Dict[str, Variant] = {
    **{name: (ConvNeXt, {**_keywords(name), **_SPECIAL.get(name, {})}) for name in _NAMES.split()},
    "test_convnext": (ConvNeXt, {"depths": (1, 2, 4, 2), "dims": (24, 32, 48, 64), **_TEST}),
    "test_convnext2": (ConvNeXt, _FOUR),
    "test_convnext3": (ConvNeXt, {**_FOUR, **_SILU}),
    "convnext_isotropic_small": (IsotropicConvNeXt, {"depth": 18, "dim": 384}),
    "convnext_isotropic_base": (IsotropicConvNeXt, {"depth": 18, "dim": 768}),
    "convnext_isotropic_large": (IsotropicConvNeXt, {"depth": 36, "dim": 1024}),
}

FAMILY = Family(
    title="ConvNeXt",
    variants=VARIANTS,
    namings=(
        Naming("timm", "stages.0.blocks.0.conv_dw.weight"),
        Naming(
            "the authors",
            "stages.0.0.dwconv.weight",
            foreign_names.rename(foreign_names.AUTHORS_CONVNEXT),
        ),
        # Isotropic ones.
        Naming(
            "the authors",
            "blocks.0.dwconv.weight",
            foreign_names.rename(foreign_names.AUTHORS_CONVNEXT_BLOCK),
        ),
        Naming("timm's blocks", "blocks.0.conv_dw.weight"),
        *foreign_names.CONVNEXT,
    ),
    keywords={
        "depths": Keyword("blocks of each stage", high=MAX_BLOCKS, length=4),
        "dims": Keyword("channels of each stage", length=4),
        "kernel_sizes": Keyword(
            "kernel of each stage's depthwise convolutions, odd", high=255, length=4
        ),
        "stem_type": Keyword("stem: patches or overlapping convolutions", str, choices=STEMS),
        "norm_layer": Keyword("kind of all norms", str, choices=tuple(NORMS)),
        "norm_eps": Keyword("epsilon that norms add to the variance", float, 0, 1),
        "layer_scale_init_value": Keyword(
            "initial layer scale of every channel", float, 0, 1e3, optional=True
        ),
        "use_grn": Keyword("global response norms, as in ConvNeXt V2", bool),
        "conv_mlp": Keyword(
            "exported to torch, MLPs are 1x1 convolutions, as in timm's small networks", bool
        ),
        "head_norm_first": Keyword("put the last norm before the pooling", bool),
        "head_hidden_size": Keyword(
            "width of a further layer before the classifier", optional=True
        ),
        "head_init_scale": Keyword("factor of the classifier's initial weights", float, 1e-6, 1e3),
        "depth": Keyword("number of blocks of an isotropic network", high=MAX_BLOCKS),
        "dim": Keyword("channels of all layers of an isotropic network"),
        "patch_size": Keyword("side of a patch of an isotropic network, pixels", high=4096),
    },
)
