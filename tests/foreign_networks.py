"""Small networks of other publishers, built by their own code, and the same networks of ours.

What their code makes of rule-filled weights is in tests/fixtures/foreign_logits.npz, which
tests/fixtures/make_foreign_logits.py writes: the tests need none of these libraries.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
from weight_rule import fill, images

STORED = Path(__file__).resolve().parent / "fixtures" / "foreign_logits.npz"
CLASSES = 5
DEPTHS, DIMS = (1, 1, 2, 1), (8, 16, 24, 32)
Shapes = Dict[str, Tuple[int, ...]]
Arrays = Dict[str, np.ndarray]

_CONVNEXT = {"depths": DEPTHS, "dims": DIMS}
_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8}
_TWINS = {
    "depths": (2, 1, 2, 1),
    "embed_dims": (8, 16, 24, 32),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (4, 4, 2, 2),
    "sr_ratios": (4, 2, 2, 1),
}


@dataclass(frozen=True)
class Foreign:
    """One network on both sides.

    Attributes:
        library: whose code builds it.
        build: the network, in evaluation mode.
        arch, keywords: ours.
        side: of the images.
        num_classes: that both have.
        logits: (network, images) -> (B, num_classes).
    """

    library: str
    build: Callable[[], Any]
    arch: str
    keywords: Dict[str, Any] = field(default_factory=dict)
    side: int = 32
    num_classes: int = CLASSES
    logits: Callable[[Any, Any], Any] = lambda network, image: network(image)


def rule_weights(shapes: Shapes) -> Arrays:
    return {name: np.asarray(fill(name, shape)) for name, shape in shapes.items()}


def stored(name: str) -> Tuple[Shapes, np.ndarray]:
    """Shapes by name as the file of that library has them, and its logits."""
    with np.load(STORED) as held:
        shapes = json.loads(str(held[f"{name}: shapes"]))
        return {n: tuple(shape) for n, shape in shapes.items()}, held[f"{name}: logits"]


def library_logits(case: Foreign) -> Tuple[Shapes, np.ndarray]:
    """As `stored`, by the library itself."""
    special = {"mindcv": _mindcv_logits, "transformers": _transformers_logits}
    if case.library in special:
        return special[case.library](case)
    import torch

    network = case.build().eval()
    state = {n: v for n, v in network.state_dict().items() if v.is_floating_point()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    weights = {name: torch.tensor(value) for name, value in rule_weights(shapes).items()}
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        logits = case.logits(network, torch.tensor(images(2, case.side)))
    return shapes, logits.numpy()


def _transformers_logits(case: Foreign) -> Tuple[Shapes, np.ndarray]:
    """By the names in its files, which are others than those of its networks."""
    import torch
    from safetensors.numpy import load_file, save_file

    network = case.build()
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        path = f"{folder}/model.safetensors"
        shapes = {name: array.shape for name, array in load_file(path).items()}
        save_file(rule_weights(shapes), path, {"format": "pt"})
        network = type(network).from_pretrained(folder).eval()
    with torch.no_grad():
        return shapes, network(pixel_values=torch.tensor(images(2, case.side))).logits.numpy()


def _mindcv_logits(case: Foreign) -> Tuple[Shapes, np.ndarray]:
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = case.build().set_train(False)
    shapes = {p.name: tuple(p.shape) for p in network.get_parameters()}
    for parameter in network.get_parameters():
        parameter.set_data(ms.Tensor(fill(parameter.name, parameter.shape)))
    return shapes, network(ms.Tensor(images(2, case.side))).asnumpy()


def _torchvision_convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    sizes = zip(DIMS, (*DIMS[1:], None), DEPTHS)
    return ConvNeXt([CNBlockConfig(*size) for size in sizes], num_classes=CLASSES)


def _transformers(model: str, config: str, **keywords: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        settings = getattr(transformers, config)(num_labels=CLASSES, **keywords)
        return getattr(transformers, model)(settings)

    return build


def _mmpretrain(backbone: Dict[str, Any], head: Dict[str, Any]) -> Callable[[], Any]:
    def build() -> Any:
        from mmpretrain.registry import MODELS

        head_of = {"num_classes": CLASSES, "loss": {"type": "CrossEntropyLoss"}, **head}
        neck = {"neck": {"type": "GlobalAveragePooling"}} if "neck" in head_of else {}
        head_of.pop("neck", None)
        return MODELS.build(
            {"type": "ImageClassifier", "backbone": backbone, "head": head_of, **neck}
        )

    return build


def _mmpretrain_deit_3() -> Any:
    network = _mmpretrain(
        {"type": "DeiT3", **_MM_VIT}, {"type": "VisionTransformerClsHead", "in_channels": 48}
    )()
    for layer in network.backbone.layers:
        # Version 1.2.0 applies the first norm twice; the authors, whose the weights are, both.
        layer.ffn.register_forward_pre_hook(partial(_second_norm, layer), with_kwargs=True)
    return network


def _second_norm(layer: Any, _: Any, inputs: Any, keywords: Dict[str, Any]) -> Any:
    del inputs
    return (layer.ln2(keywords["identity"]),), keywords


_MM_CONVNEXT = {"type": "ConvNeXt", "arch": {"depths": list(DEPTHS), "channels": list(DIMS)}}
_MM_VIT = {
    "img_size": 32,
    "patch_size": 8,
    "arch": {"embed_dims": 48, "num_layers": 2, "num_heads": 3, "feedforward_channels": 192},
}
_MM_TWINS = {name: list(value) for name, value in _TWINS.items()}
_MM_TWINS.update(patch_sizes=[4, 2, 2, 2], strides=[4, 2, 2, 2])
_MM_LAST_NORM = {
    "norm_cfg": {"type": "LN", "eps": 1e-6},
    "qkv_bias": True,
    "norm_after_stage": [False, False, False, True],
}


def _open_clip(proj: str, embed_dim: int) -> Callable[[], Any]:
    def build() -> Any:
        import timm
        import torch
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

        @timm.models.register_model
        def convnext_of_tests(pretrained: bool = False, **keywords: Any) -> Any:
            del pretrained, keywords
            network = timm.models.ConvNeXt(depths=DEPTHS, dims=DIMS)
            network.default_cfg = {"pool_size": (1, 1)}
            return network

        torch.manual_seed(0)
        vision = CLIPVisionCfg(
            timm_model_name="convnext_of_tests",
            timm_pool="",
            timm_proj=proj,
            timm_proj_bias=False,
            image_size=32,
        )
        text = CLIPTextCfg(context_length=4, vocab_size=8, width=16, heads=2, layers=1)
        return CustomTextCLIP(embed_dim, vision, text)

    return build


def _mindcv_convnext(**keywords: Any) -> Callable[[], Any]:
    def build() -> Any:
        from mindcv.models.convnext import ConvNeXt

        return ConvNeXt(3, CLASSES, list(DEPTHS), list(DIMS), **keywords)

    return build


_HF_CONVNEXT = {"depths": list(DEPTHS), "hidden_sizes": list(DIMS)}
_HF_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "image_size": 32,
    "patch_size": 8,
}


CASES: Dict[str, Foreign] = {
    "torchvision, ConvNeXt": Foreign(
        "torchvision", _torchvision_convnext, "convnext_tiny", _CONVNEXT
    ),
    "transformers, ConvNeXt": Foreign(
        "transformers",
        _transformers("ConvNextForImageClassification", "ConvNextConfig", **_HF_CONVNEXT),
        "convnext_tiny",
        _CONVNEXT,
    ),
    "transformers, ConvNeXt V2": Foreign(
        "transformers",
        _transformers("ConvNextV2ForImageClassification", "ConvNextV2Config", **_HF_CONVNEXT),
        "convnextv2_tiny",
        _CONVNEXT,
    ),
    "transformers, ViT": Foreign(
        "transformers",
        _transformers("ViTForImageClassification", "ViTConfig", **_HF_VIT),
        "deit_tiny_patch16_224",
        _VIT,
    ),
    "transformers, DeiT distilled": Foreign(
        "transformers",
        _transformers("DeiTForImageClassificationWithTeacher", "DeiTConfig", **_HF_VIT),
        "deit_tiny_distilled_patch16_224",
        _VIT,
    ),
    "mmpretrain, ConvNeXt": Foreign(
        "mmpretrain",
        _mmpretrain(_MM_CONVNEXT, {"type": "LinearClsHead", "in_channels": 32}),
        "convnext_tiny",
        _CONVNEXT,
    ),
    "mmpretrain, ConvNeXt V2": Foreign(
        "mmpretrain",
        _mmpretrain(
            {**_MM_CONVNEXT, "use_grn": True, "layer_scale_init_value": 0.0},
            {"type": "LinearClsHead", "in_channels": 32},
        ),
        "convnextv2_tiny",
        _CONVNEXT,
    ),
    "mmpretrain, DeiT": Foreign(
        "mmpretrain",
        _mmpretrain(
            {"type": "VisionTransformer", **_MM_VIT},
            {"type": "VisionTransformerClsHead", "in_channels": 48},
        ),
        "deit_tiny_patch16_224",
        _VIT,
    ),
    "mmpretrain, DeiT distilled": Foreign(
        "mmpretrain",
        _mmpretrain(
            {"type": "DistilledVisionTransformer", **_MM_VIT, "out_type": "cls_token"},
            {"type": "DeiTClsHead", "in_channels": 48},
        ),
        "deit_tiny_distilled_patch16_224",
        _VIT,
    ),
    "mmpretrain, DeiT III": Foreign(
        "mmpretrain",
        _mmpretrain_deit_3,
        "deit3_small_patch16_224",
        _VIT,
    ),
    "mmpretrain, PCPVT": Foreign(
        "mmpretrain",
        _mmpretrain(
            {"type": "PCPVT", "arch": _MM_TWINS, **_MM_LAST_NORM},
            {"type": "LinearClsHead", "in_channels": 32, "neck": True},
        ),
        "pcpvt_small_v0",
        _TWINS,
        side=64,
    ),
    "mmpretrain, SVT": Foreign(
        "mmpretrain",
        _mmpretrain(
            {"type": "SVT", "arch": {**_MM_TWINS, "window_sizes": [2] * 4}, **_MM_LAST_NORM},
            {"type": "LinearClsHead", "in_channels": 32, "neck": True},
        ),
        "alt_gvt_small",
        {**_TWINS, "window_size": 2},
        side=64,
    ),
    "mmpretrain, ConvMixer": Foreign(
        "mmpretrain",
        _mmpretrain(
            {
                "type": "ConvMixer",
                "arch": {"embed_dims": 32, "depth": 2, "kernel_size": 5, "patch_size": 4},
            },
            {"type": "LinearClsHead", "in_channels": 32, "neck": True},
        ),
        "convmixer_1536_20",
        {"dim": 32, "depth": 2, "kernel_size": 5, "patch_size": 4},
    ),
    "open_clip, linear head": Foreign(
        "open_clip",
        _open_clip("linear", 12),
        "convnext_base",
        _CONVNEXT,
        num_classes=12,
        logits=lambda network, image: network.visual(image),
    ),
    "open_clip, head of two layers": Foreign(
        "open_clip",
        _open_clip("mlp", 12),
        "convnext_large_mlp",
        {**_CONVNEXT, "head_hidden_size": 24},
        num_classes=12,
        logits=lambda network, image: network.visual(image),
    ),
    # MindSpore's GELU is the tanh approximation, which mindcv takes.
    "mindcv, ConvNeXt": Foreign(
        "mindcv",
        _mindcv_convnext(),
        "convnext_tiny",
        {**_CONVNEXT, "nonlinearity": "GELU_tanh"},
    ),
    "mindcv, ConvNeXt V2": Foreign(
        "mindcv",
        _mindcv_convnext(use_grn=True, layer_scale_init_value=0.0),
        "convnextv2_tiny",
        {**_CONVNEXT, "nonlinearity": "GELU_tanh"},
    ),
}
