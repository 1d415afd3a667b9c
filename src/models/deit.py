"""DeiT: Training data-efficient image transformers & distillation through attention (Touvron 2021).

And DeiT III: Revenge of the ViT (Touvron et al. 2022).

Legend: B batch, H W image size, p patch size, N tokens (class, distillation, patches), C embed_dim.
Parameter names are timm's, which are the authors', but for the norms' gamma and beta.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Dict, Optional, Set, Tuple, Union

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, Uniform, initializer

from . import foreign_names
from .classifier import Classifier, FeatureInfo, check_img_size, equal_shares, tokens_as_map
from .family import Family, Naming
from .keywords import MAX_BLOCKS, Keyword
from .layers.attention import Attention
from .layers.linear import create_linear
from .layers.norm import LayerNorm
from .layers.patch_embed import PatchEmbed
from .layers.transformer_block import TransformerBlock
from .macs import attention_macs, mlp_macs


def _token_table(name: str, length: int, dim: int) -> Parameter:
    return Parameter(initializer(TruncatedNormal(0.02), (1, length, dim)), name=name)


class DeiT(Classifier):
    """Vision transformer with a class token (section 3; ViT, section 3.1).

    Args:
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        img_size: side of the images; decides the length of `pos_embed`.
        init_values: initial layer scale of all blocks; None: there is none.
        no_embed_class: the class token has no position.

    Raises:
        ValueError: `img_size` is not a multiple of `patch_size`, or `embed_dim` not of `num_heads`.
    """

    num_prefix_tokens = 1
    position_table, position_filter = "pos_embed", "bicubic"
    has_attention_maps = True

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
        init_values: Optional[float] = None,
        no_embed_class: bool = False,
    ) -> None:
        super().__init__()
        check_img_size(img_size, patch_size)
        self.num_features, self.depth = embed_dim, depth
        self.patch_size, self.grid_side = patch_size, img_size // patch_size
        bound = (in_chans * patch_size**2) ** -0.5
        self.patch_embed = PatchEmbed(
            in_chans,
            embed_dim,
            patch_size,
            weight_init=Uniform(bound),
            bias_init=Uniform(bound),
        )
        self.no_embed_class = no_embed_class
        length = self.grid_side**2 + self.num_prefix_positions
        self.cls_token = _token_table("cls_token", 1, embed_dim)
        self.pos_embed = _token_table("pos_embed", length, embed_dim)
        self.blocks = nn.SequentialCell(
            [
                TransformerBlock(
                    embed_dim,
                    Attention(embed_dim, num_heads, qkv_bias=True),
                    mlp_ratio=mlp_ratio,
                    drop_path=float(rate),
                    nonlinearity=nonlinearity,
                    init_values=init_values,
                )
                for rate in np.linspace(0.0, drop_path_rate, depth)
            ]
        )
        self.norm = LayerNorm(embed_dim, epsilon=1e-6)
        self.reset_classifier(num_classes)

    @property
    def num_prefix_positions(self) -> int:
        return 0 if self.no_embed_class else self.num_prefix_tokens

    def prefix(self) -> Tensor:
        """(1, prefix tokens, C), what precedes the patches."""
        return self.cls_token

    def embed(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, C), what the first block reads."""
        x = self.patch_embed(x)  # (B, H/p, W/p, C)
        x = x.reshape(x.shape[0], -1, self.num_features)  # -> (B, patches, C)
        positions = self.pos_embed.astype(x.dtype)
        if self.no_embed_class:
            x = x + positions
        prefix = self.prefix().astype(x.dtype)
        prefix = ops.broadcast_to(prefix, (x.shape[0], self.num_prefix_tokens, self.num_features))
        x = ops.concat((prefix, x), axis=1)  # -> (B, N, C)
        return x if self.no_embed_class else x + positions

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, C) normalised tokens."""
        return self.norm(self.blocks(self.embed(x)))

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """See `Classifier.feature_info`."""
        return (FeatureInfo(self.num_features, self.patch_size),) * self.depth

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """See `Classifier.layer_maps`."""
        x = self.embed(x)
        maps = ()
        for block in self.blocks:
            x = block(x)
            maps = maps + (tokens_as_map(x, self.num_prefix_tokens, self.grid_side),)
        return self.norm(x), maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N, C) -> (B, num_classes), from the class token; `pre_logits`: the token, (B, C)."""
        x = x[:, 0]  # (B, N, C) -> (B, C)
        return x if pre_logits else self.head(x)

    def attention_maps(self, x: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
        """See `Classifier.attention_maps`."""
        x = self.embed(x)
        maps = ()
        for block in self.blocks:
            maps = maps + (block.attn.mean_weights(block.norm1(x)),)
            x = block(x)
        # Distilled heads are averaged, and so are their tokens.
        return maps, equal_shares(x, self.num_prefix_tokens)

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """See `Classifier.count_macs`."""
        patches, dim = (model.img_size // model.patch_size) ** 2, model.embed_dim
        tokens = patches + cls.num_prefix_tokens
        stem = patches * model.in_chans * model.patch_size**2 * dim
        block = attention_macs(tokens, dim) + tokens * mlp_macs(dim, model.mlp_ratio)
        heads = len(cls.classifier_layers) * dim * model.num_classes
        return stem + model.depth * block + heads

    def no_weight_decay(self) -> Set[str]:
        """Tokens and positions, as the authors."""
        return {"pos_embed", "cls_token"}

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes)

    def _layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.depth + 1 if part in ("norm", "head", "head_dist") else 0


class DistilledDeiT(DeiT):
    """DeiT with a distillation token and a head for it (section 4).

    Args:
        distilled_training: in training return both heads' logits, class head first, instead of
            their mean.
        keywords: those of `DeiT`.
    """

    classifier_layers = ("head", "head_dist")
    num_prefix_tokens = 2

    def __init__(self, *, distilled_training: bool = False, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.dist_token = _token_table("dist_token", 1, self.num_features)
        self.distilled_training = distilled_training

    def prefix(self) -> Tensor:
        """(1, prefix tokens, C), what precedes the patches."""
        return ops.concat((self.cls_token, self.dist_token), axis=1)

    def forward_head(
        self, x: Tensor, pre_logits: bool = False
    ) -> Union[Tensor, Tuple[Tensor, Tensor]]:
        """(B, N, C) -> (B, num_classes), the mean of both heads; see `distilled_training`.

        `pre_logits`: the mean of both tokens, (B, C).
        """
        token, dist_token = x[:, 0], x[:, 1]  # (B, N, C) -> 2 x (B, C)
        if pre_logits:
            return (token + dist_token) / 2
        logits, dist_logits = self.head(token), self.head_dist(dist_token)
        if self.training and self.distilled_training:
            return logits, dist_logits
        return (logits + dist_logits) / 2

    def no_weight_decay(self) -> Set[str]:
        """Tokens and positions. The authors' code forgets `dist_token`; timm does not."""
        return {"pos_embed", "cls_token", "dist_token"}


_SIZES: Dict[str, Dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "medium": {"embed_dim": 512, "depth": 12, "num_heads": 8},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}
_DEIT_3 = {"init_values": 1e-6, "no_embed_class": True}

_NAMES = """
    deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224
    deit_tiny_patch16_384 deit_small_patch16_384 deit_base_patch16_384
    deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224
    deit_base_distilled_patch16_224 deit_base_distilled_patch16_384
    deit3_small_patch16_224 deit3_small_patch16_384 deit3_medium_patch16_224
    deit3_base_patch16_224 deit3_base_patch16_384
    deit3_large_patch16_224 deit3_large_patch16_384 deit3_huge_patch14_224
"""


def _keywords(name: str) -> Dict[str, Any]:
    family, size, *_, patch, side = name.split("_")
    own = {"patch_size": int(patch[len("patch") :]), "img_size": int(side)}
    return {**_SIZES[size], **own, **(_DEIT_3 if family == "deit3" else {})}


VARIANTS = {
    name: (DistilledDeiT if "distilled" in name else DeiT, _keywords(name))
    for name in _NAMES.split()
}


def _from_the_authors(name: str) -> str:
    """Only the layer scales of DeiT III have other names than timm's."""
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)


FAMILY = Family(
    title="DeiT",
    variants=VARIANTS,
    namings=(
        Naming("timm and the authors", "cls_token", _from_the_authors),
        *foreign_names.DEIT,
    ),
    keywords={
        "embed_dim": Keyword("channels of a token"),
        "depth": Keyword("number of blocks", high=MAX_BLOCKS),
        "num_heads": Keyword("attention heads of a block; a divisor of embed_dim"),
        "patch_size": Keyword("side of a patch, pixels; a divisor of image_size", high=4096),
        "mlp_ratio": Keyword("hidden width of a block's MLP / embed_dim", float, 0.01, 64),
        "init_values": Keyword(
            "initial layer scale of every channel", float, 0, 1e3, optional=True
        ),
        "no_embed_class": Keyword("the class token has no position embedding", bool),
        "distilled_training": Keyword(
            "training gives the logits of both heads; recipes set distillation_type instead", bool
        ),
    },
)
