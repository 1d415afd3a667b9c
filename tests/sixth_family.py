"""A family that the package does not know, as somebody would add it: one file, for the tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Tuple

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from src.models.classifier import Classifier, check_img_size, equal_shares
from src.models.family import Family, Naming
from src.models.layers.attention import Attention
from src.models.layers.linear import create_linear
from src.models.layers.norm import LayerNorm
from src.models.layers.transformer_block import TransformerBlock
from src.models.macs import attention_macs, mlp_macs


class Sixth(Classifier):
    """Patches and one further token, equal stochastic depth everywhere, mean of all tokens."""

    classifier_layers = ("logits",)
    num_prefix_tokens = 1
    position_table, position_filter = "places", "bilinear"
    has_attention_maps = True

    def __init__(
        self,
        *,
        dim: int,
        depth: int = 2,
        patch_size: int = 8,
        img_size: int = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
    ) -> None:
        super().__init__()
        check_img_size(img_size, patch_size)
        self.num_features, self.depth = dim, depth
        init = {"weight_init": TruncatedNormal(0.1), "bias_init": "zeros"}
        self.patches = nn.Conv2d(
            in_chans, dim, patch_size, patch_size, pad_mode="valid", has_bias=True, **init
        )
        self.token = Parameter(initializer(TruncatedNormal(0.02), (1, 1, dim)), name="token")
        places = (1, (img_size // patch_size) ** 2 + 1, dim)
        self.places = Parameter(initializer(TruncatedNormal(0.2), places), name="places")
        block = {"mlp_ratio": 2, "drop_path": drop_path_rate, "nonlinearity": nonlinearity}
        self.layers = nn.SequentialCell(
            [TransformerBlock(dim, Attention(dim, 2), **block) for _ in range(depth)]
        )
        self.norm = LayerNorm(dim, epsilon=1e-6)
        self.reset_classifier(num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, C), what the first layer reads."""
        x = self.patches(x)  # -> (B, C, H/p, W/p)
        x = x.reshape(x.shape[0], self.num_features, -1).swapaxes(1, 2)  # -> (B, patches, C)
        token = ops.broadcast_to(self.token.astype(x.dtype), (x.shape[0], 1, self.num_features))
        return ops.concat((token, x), axis=1) + self.places.astype(x.dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.layers(self.embed(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean(axis=1)  # (B, N, C) -> (B, C)
        return x if pre_logits else self.logits(x)

    def attention_maps(self, x: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
        x = self.embed(x)
        maps = ()
        for layer in self.layers:
            maps = maps + (layer.attn.mean_weights(layer.norm1(x)),)
            x = layer(x)
        return maps, equal_shares(x, x.shape[1])

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        patches = (model.img_size // model.patch_size) ** 2
        stem = patches * model.in_chans * model.patch_size**2 * model.dim
        layer = attention_macs(patches + 1, model.dim) + (patches + 1) * mlp_macs(model.dim, 2)
        return stem + model.depth * layer + model.dim * model.num_classes

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        return create_linear(self.num_features, num_classes)

    def _layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        if part == "layers":
            return int(rest[0]) + 1
        return self.depth + 1 if part in ("norm", "logits") else 0


FAMILY = Family(
    title="Sixth",
    variants={"sixth_tiny": (Sixth, {"dim": 32}), "sixth_small": (Sixth, {"dim": 64})},
    namings=(
        Naming("timm", "layers.0.attn.qkv.weight"),
        Naming("the authors", "net.layers.0.attn.qkv.weight", lambda name: name[4:]),
    ),
)
