"""What other publishers call the weights of our families, as tables of regular expressions.

Each rule is applied to what the rules before it made of a name. As their files have them:
torchvision 0.28, transformers 5.24, mmpretrain 1.2, open_clip 3.3, mindcv 0.3.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Optional, Tuple

from .family import LEFT_OUT, Naming, Rename

Rules = Tuple[Tuple[str, str], ...]


def rename(rules: Rules) -> Rename:
    """The rules as a function of one name."""
    return partial(_renamed, rules)


def _renamed(rules: Rules, name: str) -> Optional[str]:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return None if name == LEFT_OUT else name


def _within_stages(folder: str) -> Rules:
    """Of networks that are one row of cells: stem, stage, downsampling, stage, ..."""
    return (
        (rf"^{folder}\.0\.", r"stem."),
        *((rf"^{folder}\.{2 * i + 1}\.", rf"stages.{i}.blocks.") for i in range(4)),
        *((rf"^{folder}\.{2 * i}\.", rf"stages.{i}.downsample.") for i in range(1, 4)),
    )


AUTHORS_CONVNEXT_BLOCK: Rules = (
    (r"\.dwconv\.", r".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.(gamma|weight)$", r".mlp.grn.weight"),
    (r"\.grn\.(beta|bias)$", r".mlp.grn.bias"),
)
AUTHORS_CONVNEXT: Rules = (
    (r"^downsample_layers\.0\.", r"stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    *AUTHORS_CONVNEXT_BLOCK,
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"^norm\.", r"head.norm."),
)

_TORCHVISION_CONVNEXT: Rules = (
    *_within_stages("features"),
    (r"\.layer_scale$", r".gamma"),
    (r"\.block\.0\.", r".conv_dw."),
    (r"\.block\.2\.", r".norm."),
    (r"\.block\.3\.", r".mlp.fc1."),
    (r"\.block\.5\.", r".mlp.fc2."),
    (r"^classifier\.0\.", r"head.norm."),
    (r"^classifier\.2\.", r"head.fc."),
)
_TRANSFORMERS_CONVNEXT: Rules = (
    (r"^convnext(v2)?\.", r""),
    (r"^embeddings\.patch_embeddings\.", r"stem.0."),
    (r"^embeddings\.layernorm\.", r"stem.1."),
    (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
    (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
    (r"\.layernorm\.", r".norm."),
    (r"\.layer_scale_parameter$", r".gamma"),
    *AUTHORS_CONVNEXT_BLOCK,
    (r"^layernorm\.", r"head.norm."),
    (r"^classifier\.", r"head.fc."),
)
_MMPRETRAIN_CONVNEXT: Rules = (
    (r"^backbone\.", r""),
    (r"\.depthwise_conv\.", r".dwconv."),
    (r"\.pointwise_conv", r".pwconv"),
    (r"^norm3\.", r"norm."),
    *AUTHORS_CONVNEXT,
)
_MINDCV_CONVNEXT: Rules = (
    *_within_stages("feature"),
    *AUTHORS_CONVNEXT_BLOCK,
    (r"\.gamma_$", r".gamma"),
    (r"^(stem\.1|stages\.\d+\.downsample\.0|.*\bnorm)\.gamma$", r"\1.weight"),
    (r"^(stem\.1|stages\.\d+\.downsample\.0|.*\bnorm)\.beta$", r"\1.bias"),
    (r"^norm\.", r"head.norm."),
    (r"^classifier\.", r"head.fc."),
)
# The text's network is beside the image's.
_OPEN_CLIP: Rules = (
    (r"^(?!visual\.).*", LEFT_OUT),
    (r"^visual\.trunk\.", r""),
    (r"^visual\.head\.mlp\.fc1\.", r"head.pre_logits.fc."),
    (r"^visual\.head\.(proj|mlp\.fc2)\.", r"head.fc."),
)

CONVNEXT = (
    Naming("torchvision", "features.1.0.block.0.weight", rename(_TORCHVISION_CONVNEXT)),
    *(
        Naming(
            "transformers",
            f"{model}.encoder.stages.0.layers.0.dwconv.weight",
            rename(_TRANSFORMERS_CONVNEXT),
        )
        for model in ("convnext", "convnextv2")
    ),
    Naming("mmpretrain", "backbone.stages.0.0.depthwise_conv.weight", rename(_MMPRETRAIN_CONVNEXT)),
    Naming(
        "mindcv",
        "feature.1.0.dwconv.weight",
        rename(_MINDCV_CONVNEXT),
        remark="their GELU is the tanh approximation; give --nonlinearity GELU_tanh with them",
    ),
    Naming(
        "open_clip",
        "visual.trunk.stages.0.blocks.0.conv_dw.weight",
        rename(_OPEN_CLIP),
        without_bias=("head.fc",),
    ),
)

_MMPRETRAIN_CONVMIXER: Rules = (
    (r"^backbone\.stages\.", r"blocks."),
    (r"^backbone\.", r""),
    (r"^head\.fc\.", r"head."),
)
CONVMIXER = (
    Naming("mmpretrain", "backbone.stages.0.0.fn.0.weight", rename(_MMPRETRAIN_CONVMIXER)),
)

# Files keep the names of before version 5; the networks have the others.
_TRANSFORMERS_DEIT: Rules = (
    (r"^(deit|vit)\.", r""),
    (r"^embeddings\.cls_token$", r"cls_token"),
    (r"^embeddings\.distillation_token$", r"dist_token"),
    (r"^embeddings\.position_embeddings$", r"pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", r"patch_embed.proj."),
    (r"^(encoder\.layer|layers)\.", r"blocks."),
    (r"\.layernorm_before\.", r".norm1."),
    (r"\.layernorm_after\.", r".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", r".attn.proj."),
    (r"\.attention\.(?:attention\.query|q_proj)\.(\w+)$", r".attn.qkv.\1#0"),
    (r"\.attention\.(?:attention\.key|k_proj)\.(\w+)$", r".attn.qkv.\1#1"),
    (r"\.attention\.(?:attention\.value|v_proj)\.(\w+)$", r".attn.qkv.\1#2"),
    (r"\.intermediate\.dense\.", r".mlp.fc1."),
    (r"\.output\.dense\.", r".mlp.fc2."),
    (r"^layernorm\.", r"norm."),
    (r"^(cls_)?classifier\.", r"head."),
    (r"^distillation_classifier\.", r"head_dist."),
)
_MMPRETRAIN_DEIT: Rules = (
    (r"^backbone\.", r""),
    (r"^patch_embed\.projection\.", r"patch_embed.proj."),
    (r"^(ln|norm)1\.", r"norm."),
    (r"^layers\.", r"blocks."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.ffn\.layers\.0\.0\.", r".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", r".mlp.fc2."),
    (r"\.(?:attn|ffn)\.gamma([12])\.weight$", r".ls\1.gamma"),
    (r"^head\.layers\.", r""),
)
DEIT = (
    Naming("transformers", "deit.embeddings.cls_token", rename(_TRANSFORMERS_DEIT)),
    Naming("transformers", "vit.embeddings.cls_token", rename(_TRANSFORMERS_DEIT)),
    Naming("mmpretrain", "backbone.patch_embed.projection.weight", rename(_MMPRETRAIN_DEIT)),
)

_MMPRETRAIN_TWINS: Rules = (
    (r"^backbone\.", r""),
    (r"^(patch_embeds\.\d+)\.projection\.", r"\1.proj."),
    (r"^position_encodings\.(\d+)\.proj\.", r"pos_block.\1.proj.0."),
    (r"^stages\.", r"blocks."),
    (r"\.ffn\.layers\.0\.0\.", r".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", r".mlp.fc2."),
    (r"^norm_after_stage3\.", r"norm."),
    (r"^head\.fc\.", r"head."),
)
TWINS = (
    Naming("mmpretrain", "backbone.patch_embeds.0.projection.weight", rename(_MMPRETRAIN_TWINS)),
)
