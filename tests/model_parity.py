"""The same rule-filled weights in a model of ours and in timm's, and what both make of them.

Where torch, timm and torchvision are not installed, expected logits come from
tests/fixtures/timm_logits.npz, which tests/fixtures/make_timm_logits.py writes.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Dict, Tuple

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from weight_rule import fill, images

from src.models.registry import create_model
from src.models.weights import reference_names

STORED_LOGITS = Path(__file__).resolve().parent / "fixtures" / "timm_logits.npz"
HAS_TIMM = all(importlib.util.find_spec(name) for name in ("torch", "timm", "torchvision"))
BATCH = 2


@dataclass(frozen=True)
class Case:
    """One architecture on both sides.

    Attributes:
        name: ours.
        side: of the images.
        changes: constructor keywords that differ from the variant's own.
        reference: an entry or class of timm.models; None: `name`.
        reference_keywords: for it; None: `changes`.
    """

    name: str
    side: int = 224
    changes: Dict[str, Any] = field(default_factory=dict)
    reference: str = ""
    reference_keywords: Dict[str, Any] = field(default_factory=dict)

    def build(self, **keywords: Any) -> nn.Cell:
        return create_model(self.name, img_size=self.side, **{**self.changes, **keywords})

    def build_reference(self, **keywords: Any) -> Any:
        from torch_oracle import timm, torch

        keywords = {**self.reference_keywords, **keywords}
        if "act_layer" in keywords:
            keywords["act_layer"] = getattr(torch.nn, keywords["act_layer"])
        return getattr(timm.models, self.reference)(**keywords)


def convmixer(name: str, side: int, *, act: str = "GELU", **keywords: Any) -> Case:
    """timm's entries fix width and depth: take its class. `keywords` are all its keywords."""
    return Case(name, side, keywords, "ConvMixer", {**keywords, "act_layer": act})


def convnext(name: str, reference: str, side: int, **changes: Any) -> Case:
    return Case(name, side, changes, reference, changes)


def sized(name: str, reference: str, side: int, **changes: Any) -> Case:
    """Families of which timm wants to know the image size."""
    return Case(name, side, changes, reference, {"img_size": side, **changes})


def load_rule_weights(model: nn.Cell) -> nn.Cell:
    names = reference_names(model)
    for parameter in model.get_parameters():
        parameter.set_data(ms.Tensor(fill(names[parameter.name], parameter.shape)))
    return model


def load_rule_weights_of_reference(model: Any) -> Any:
    import torch

    state = model.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(fill(name, value.shape))
    model.load_state_dict(state)
    return model


def logits(case: Case) -> np.ndarray:
    model = load_rule_weights(case.build()).set_train(False)
    return model(ms.Tensor(images(BATCH, case.side))).asnumpy()


def reference_logits(case: Case) -> np.ndarray:
    import torch

    model = load_rule_weights_of_reference(case.build_reference()).eval()
    with torch.no_grad():
        return model(torch.tensor(images(BATCH, case.side))).numpy()


def relative_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest error over largest magnitude."""
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


class _Loss(nn.Cell):
    def __init__(self, model: nn.Cell) -> None:
        super().__init__()
        self.model = model

    def construct(self, image: ms.Tensor, label: ms.Tensor) -> ms.Tensor:
        return ops.cross_entropy(self.model(image), label)


CLASSES = 10
LABELS = np.array([3, 1, 8, 1], np.int32)


@cache
def training_pass(number: int) -> Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    """Gradients and running statistics after one pass of GRADIENT_CASES[number], by timm's names.

    Cross-entropy in training mode, batch statistics and all, without stochastic depth.
    """
    case = GRADIENT_CASES[number]
    model = load_rule_weights(case.build(num_classes=CLASSES, drop_path_rate=0.0))
    names = reference_names(model)
    weights = model.trainable_params()
    loss = _Loss(model).set_train(True)
    gradient = ops.GradOperation(get_by_list=True)(loss, ms.ParameterTuple(weights))
    values = gradient(ms.Tensor(images(len(LABELS), case.side)), ms.Tensor(LABELS))
    prefix = len("model.")
    gradients = {names[w.name[prefix:]]: v.asnumpy() for w, v in zip(weights, values)}
    statistics = {
        names[p.name[prefix:]]: p.asnumpy() for p in model.get_parameters() if not p.requires_grad
    }
    return gradients, statistics


def reference_training_pass(case: Case) -> Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    import torch

    model = load_rule_weights_of_reference(case.build_reference(num_classes=CLASSES)).train()
    image = torch.tensor(images(len(LABELS), case.side))
    torch.nn.functional.cross_entropy(model(image), torch.tensor(LABELS).long()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    statistics = {
        name: value.numpy() for name, value in model.named_buffers() if "running_" in name
    }
    return gradients, statistics


_SHALLOW_1024 = {"dim": 1024, "depth": 3, "kernel_size": 9, "patch_size": 14}
_SHALLOW_1536 = {"dim": 1536, "depth": 2, "kernel_size": 9, "patch_size": 7}

CASES = {
    "convmixer_768_32": Case("convmixer_768_32", reference="convmixer_768_32"),
    "convmixer_1536_20, 2 blocks": convmixer("convmixer_1536_20", 224, **_SHALLOW_1536),
    "convmixer_1024_20_ks9_p14, 3 blocks, 112": convmixer(
        "convmixer_1024_20_ks9_p14", 112, **_SHALLOW_1024
    ),
    "convnext_tiny": convnext("convnext_tiny", "convnext_tiny", 224),
    "convnext_base, 5 blocks, 160": convnext(
        "convnext_base", "convnext_base", 160, depths=(1, 1, 2, 1)
    ),
    "deit_small_patch16_224": sized("deit_small_patch16_224", "deit_small_patch16_224", 224),
    "deit_tiny_distilled_patch16_224": sized(
        "deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224", 224
    ),
    "deit_tiny_patch16_384, 4 blocks, 96": sized(
        "deit_tiny_patch16_384", "deit_tiny_patch16_224", 96, depth=4
    ),
    "pcpvt_small_v0": sized("pcpvt_small_v0", "twins_pcpvt_small", 224),
    "pcpvt_base_v0, 5 blocks, 96": sized(
        "pcpvt_base_v0", "twins_pcpvt_base", 96, depths=(1, 1, 2, 1)
    ),
    "alt_gvt_small, 6 blocks": sized("alt_gvt_small", "twins_svt_small", 224, depths=(1, 1, 2, 2)),
    "alt_gvt_base, 6 blocks, 160": sized(
        "alt_gvt_base", "twins_svt_base", 160, depths=(2, 1, 2, 1)
    ),
}

SLOW_CASES = {
    "convmixer_1536_20": Case("convmixer_1536_20", reference="convmixer_1536_20"),
    "convmixer_1024_20_ks9_p14": Case(
        "convmixer_1024_20_ks9_p14", reference="convmixer_1024_20_ks9_p14"
    ),
    "convnext_small": convnext("convnext_small", "convnext_small", 224),
    "convnext_tiny_in22k_ft_in1k_384": convnext(
        "convnext_tiny_in22k_ft_in1k_384", "convnext_tiny", 384
    ),
    "deit_base_distilled_patch16_384": sized(
        "deit_base_distilled_patch16_384", "deit_base_distilled_patch16_384", 384
    ),
    "pcpvt_large_v0": sized("pcpvt_large_v0", "twins_pcpvt_large", 224),
    "alt_gvt_small": sized("alt_gvt_small", "twins_svt_small", 224),
    "alt_gvt_large": sized("alt_gvt_large", "twins_svt_large", 224),
}

GRADIENT_CASES = (
    convmixer("convmixer_768_32", 56, act="ReLU", dim=64, depth=2, kernel_size=7, patch_size=7),
    convmixer("convmixer_1536_20", 56, dim=48, depth=2, kernel_size=9, patch_size=7),
    convnext("convnext_tiny", "convnext_tiny", 64, depths=(1, 1, 2, 1)),
    sized("deit_tiny_patch16_224", "deit_tiny_patch16_224", 64, depth=2),
    sized("deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224", 64, depth=2),
    sized("pcpvt_small_v0", "twins_pcpvt_small", 64, depths=(2, 1, 1, 1)),
    sized("alt_gvt_small", "twins_svt_small", 96, depths=(2, 2, 1, 1)),
    convnext("convnextv2_atto", "convnextv2_atto", 64, depths=(1, 1, 2, 1)),
    convnext("convnext_zepto_rms_ols", "convnext_zepto_rms_ols", 64, depths=(1, 1, 1, 1)),
    sized("deit3_small_patch16_224", "deit3_small_patch16_224", 64, depth=2),
)
