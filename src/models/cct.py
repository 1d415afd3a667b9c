"""CCT, CVT and ViT-Lite: Escaping the Big Data Paradigm with Compact Transformers (Hassani 2021).

Legend: B batch, H W input size, N tokens, C embedding_dim. Names are the authors', but for norms.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, Tuple

from mindspore import Tensor, nn

from .cct_parts import TransformerClassifier
from .classifier import Classifier, FeatureInfo, check_img_size, equal_shares, tokens_as_map
from .family import Family, Naming, Variant
from .keywords import MAX_BLOCKS, Keyword
from .layers.conv_pool import Tokenizer
from .layers.linear import create_linear
from .layers.mlp import hidden_width
from .macs import attention_macs, mlp_macs


class CCT(Classifier):
    """Compact transformer, (B, in_chans, img_size, img_size) float -> (B, num_classes) logits.

    Args:
        kernel_size: of the tokenizer's convolutions; for CVT and ViT-Lite also the patch side.
        n_conv_layers: convolutions of the tokenizer; 0 means one patch embedding (CVT, ViT-Lite).
        seq_pool: pool by learnt weights; False: a class token (ViT-Lite).
        positional_embedding: `learnable` (it decays, as the class token does), `sine` or `none`.
        drop_path_rate: stochastic depth of the last layer, growing linearly from 0.

    Raises:
        ValueError: an image too small for the tokenizer, or no multiple of the patch side.
    """

    classifier_layers = ("classifier.fc",)
    position_table, position_filter = "classifier.positional_emb", "bilinear"
    has_attention_maps = True

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
        embedding_dim: int,
        kernel_size: int,
        n_conv_layers: int,
        img_size: int = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        seq_pool: bool = True,
        positional_embedding: str = "learnable",
        dropout: float = 0.0,
        attention_dropout: float = 0.1,
        drop_path_rate: float = 0.1,
        nonlinearity: str = "GELU",
    ) -> None:
        super().__init__()
        self.num_features, self.num_prefix_tokens = embedding_dim, 0 if seq_pool else 1
        pool = n_conv_layers > 0
        if not pool:
            check_img_size(img_size, kernel_size)
        self.tokenizer = Tokenizer(
            [in_chans, *[64] * (n_conv_layers - 1), embedding_dim],
            kernel_size=kernel_size,
            stride=max(1, kernel_size // 2 - 1) if pool else kernel_size,
            pool=pool,
        )
        self.grid_side = side = self.tokenizer.side(img_size)
        if side < 1:
            raise ValueError(
                f"image_size {img_size} is too small for n_conv_layers {n_conv_layers} with "
                f"kernel_size {kernel_size}; give a larger image_size (img_size in Python)"
            )
        self.classifier = TransformerClassifier(
            side * side,
            embedding_dim,
            num_layers=num_layers,
            seq_pool=seq_pool,
            positional_embedding=positional_embedding,
            dropout=dropout,
            drop_path_rate=drop_path_rate,
            num_heads=num_heads,
            hidden_dim=hidden_width(embedding_dim, mlp_ratio),
            attention_dropout=attention_dropout,
            nonlinearity=nonlinearity,
        )
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, C) normalised tokens."""
        return self.classifier.encode(self.tokenizer(x))

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """See `Classifier.feature_info`."""
        info = FeatureInfo(self.num_features, self.tokenizer.reduction)
        return (info,) * len(self.classifier.blocks)

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See `Classifier.layer_maps`."""
        x = self.classifier.embed(self.tokenizer(x))
        maps = ()
        for block in self.classifier.blocks:
            x = block(x)
            maps = maps + (tokens_as_map(x, self.num_prefix_tokens, self.grid_side),)
        return self.classifier.norm(x), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N, C) -> (B, num_classes); `pre_logits`: (B, C)."""
        x = self.classifier.pool(x)  # (B, N, C) -> (B, C)
        return x if pre_logits else self.classifier.fc(x)

    def attention_maps(self, x: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
        """See `Classifier.attention_maps`."""
        encoder = self.classifier
        x = encoder.embed(self.tokenizer(x))
        maps = ()
        for block in encoder.blocks:
            maps = maps + (block.self_attn.mean_weights(block.pre_norm(x)),)
            x = block(x)
        if encoder.seq_pool:
            return maps, encoder.pool_weights(encoder.norm(x)).squeeze(-1)
        return maps, equal_shares(x, self.num_prefix_tokens)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        dim, kernel_size, pool = model.embedding_dim, model.kernel_size, model.n_conv_layers > 0
        stride, padding = kernel_size, 0
        if pool:
            stride, padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        side, in_channels, total = model.img_size, model.in_chans, 0
        for width in [64] * (model.n_conv_layers - 1) + [dim]:
            side = (side + 2 * padding - kernel_size) // stride + 1
            total += side**2 * kernel_size**2 * in_channels * width
            in_channels = width
            if pool:
                side = (side - 1) // 2 + 1
        tokens = side**2 + (0 if model.seq_pool else 1)
        block = attention_macs(tokens, dim) + tokens * mlp_macs(dim, model.mlp_ratio)
        # SeqPool: one weight per token, and the weighted sum.
        pooling = 2 * tokens * dim if model.seq_pool else 0
        return total + model.num_layers * block + pooling + dim * model.num_classes

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes)

    def _layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "tokenizer" or rest[0] in ("class_emb", "positional_emb"):
            return 0
        return int(rest[1]) + 1 if rest[0] == "blocks" else len(self.classifier.blocks) + 1


_SIZES: Dict[str, Dict[str, Any]] = {
    "2": {"num_layers": 2, "num_heads": 2, "mlp_ratio": 1, "embedding_dim": 128},
    "4": {"num_layers": 4, "num_heads": 2, "mlp_ratio": 1, "embedding_dim": 128},
    "6": {"num_layers": 6, "num_heads": 4, "mlp_ratio": 2, "embedding_dim": 256},
    "7": {"num_layers": 7, "num_heads": 4, "mlp_ratio": 2, "embedding_dim": 256},
    "14": {"num_layers": 14, "num_heads": 6, "mlp_ratio": 3, "embedding_dim": 384},
}

# cct: layers, kernel x convolutions, image side; cvt and vit: layers, patch, image side.
# "_sine": fixed positions; "_c100", "_c102", "_fl": classes other than the name without it.
_NAMES = """
    cct_2_3x2_32 cct_4_3x2_32 cct_6_3x1_32 cct_6_3x2_32 cct_7_3x1_32 cct_7_3x2_32 cct_2_3x2_32_sine
    cct_4_3x2_32_sine cct_6_3x1_32_sine cct_6_3x2_32_sine cct_7_3x1_32_sine cct_7_3x2_32_sine
    cct_7_3x1_32_c100 cct_7_3x1_32_sine_c100 cct_7_7x2_224 cct_7_7x2_224_c102 cct_7_7x2_224_sine
    cct_7_7x2_224_sine_c102 cct_14_7x2_224 cct_14_7x2_384 cct_14_7x2_384_fl cvt_2_4_32 cvt_4_4_32
    cvt_6_4_32 cvt_7_4_32 cvt_2_4_32_sine cvt_4_4_32_sine cvt_6_4_32_sine cvt_7_4_32_sine
    vit_2_4_32 vit_4_4_32 vit_6_4_32 vit_7_4_32 vit_2_4_32_sine vit_4_4_32_sine vit_6_4_32_sine
    vit_7_4_32_sine
"""
_CLASSES = {"c100": 100, "c102": 102, "fl": 102}


def _keywords(name: str) -> Dict[str, Any]:
    """What a name of `_NAMES` says, as keywords of `CCT`."""
    family, size, tokenizer, side, *suffixes = name.split("_")
    kernel_size, _, n_conv_layers = tokenizer.partition("x")
    classes = 10 if side == "32" else 1000
    return {
        **_SIZES[size],
        "kernel_size": int(kernel_size),
        "n_conv_layers": int(n_conv_layers or 0),
        "img_size": int(side),
        "num_classes": _CLASSES.get(suffixes[-1], classes) if suffixes else classes,
        "positional_embedding": "sine" if "sine" in suffixes else "learnable",
        "seq_pool": family != "vit",
    }


# What the paper calls the authors' vit_2_4_32.
_VIT_LITE = {name.replace("vit", "vit_lite"): name for name in _NAMES.split() if "vit" in name}
VARIANTS: Dict[str, Variant] = {
    name: (CCT, _keywords(authors))
    for name, authors in {**{name: name for name in _NAMES.split()}, **_VIT_LITE}.items()
}

FAMILY = Family(
    title="CCT, CVT or ViT-Lite",
    variants=VARIANTS,
    namings=(Naming("the authors", "tokenizer.conv_layers.0.0.weight"),),
    keywords={
        "num_layers": Keyword("encoder layers", high=MAX_BLOCKS),
        "num_heads": Keyword("attention heads of a layer; a divisor of embedding_dim"),
        "mlp_ratio": Keyword("hidden width of a layer's MLP / embedding_dim", float, 0.01, 64),
        "embedding_dim": Keyword("channels of a token"),
        "kernel_size": Keyword("kernel of the tokenizer's convolutions, or patch side", high=255),
        "n_conv_layers": Keyword(
            "convolutions of the tokenizer; 0: patches instead", low=0, high=8
        ),
        "seq_pool": Keyword("pool tokens by learnt weights; false: a class token", bool),
        "positional_embedding": Keyword(
            "kind of position embedding", str, choices=("learnable", "sine", "none")
        ),
        "dropout": Keyword("share of activations that is dropped", float, 0, below=1),
        "attention_dropout": Keyword(
            "share of attention weights that is dropped", float, 0, below=1
        ),
    },
)
