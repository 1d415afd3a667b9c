"""Gradient clipping against torch and timm."""

from __future__ import annotations

from typing import Any, Dict, List

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor
from torch_oracle import timm, torch

from src.models.registry import create_model
from src.optim.clipping import GradientClip

SHAPES = [(7, 5), (5,), (3, 4, 2, 2), (1, 6, 8), (6,), (4, 7), (4,)]


def random_tensors(seed: int) -> List[np.ndarray]:
    """Tensors whose rows differ in size by up to 1e8, the first ones zero."""
    rng = np.random.default_rng(seed)
    tensors = [rng.normal(size=shape) * 10.0 ** rng.uniform(-7, 1) for shape in SHAPES]
    for tensor in tensors:
        tensor *= 10.0 ** rng.uniform(-3, 1, (len(tensor),) + (1,) * (tensor.ndim - 1))
    tensors[0][0] = tensors[4][:] = 0.0
    return [tensor.astype(np.float32) for tensor in tensors]


def clipped_by_torch(
    mode: str, limit: float, weights: List[np.ndarray], grads: List[np.ndarray]
) -> List[np.ndarray]:
    module = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(w)) for w in weights])
    for weight, grad in zip(module, grads):
        weight.grad = torch.tensor(grad)
    mode = {"adaptive": "agc"}.get(mode, mode)
    clipped = timm.models.model_parameters(module, exclude_head=mode == "agc")
    timm.utils.dispatch_clip_grad(clipped, limit, mode=mode)
    return [weight.grad.numpy() for weight in module]


def clip(cell: GradientClip, grads: List[np.ndarray]) -> List[np.ndarray]:
    norm = np.sqrt(sum(np.square(grad.astype(np.float64)).sum() for grad in grads))
    clipped = cell(ms.mutable(tuple(Tensor(grad) for grad in grads)), Tensor(norm, ms.float32))
    return [grad.asnumpy() for grad in clipped]


@pytest.mark.parametrize(
    ("mode", "limit"),
    [
        *[("norm", 1e-3), ("norm", 20.0)],
        *[("value", 1e-3), ("value", 0.5)],
        *[("adaptive", 1e-6), ("adaptive", 0.3)],
    ],
)
def test_clipping_equals_torch(mode: str, limit: float) -> None:
    parameters = [Parameter(Tensor(w), name=f"w{i}") for i, w in enumerate(random_tensors(0))]
    cell = GradientClip(mode, limit, parameters)
    clips = []
    for seed in range(6):
        weights, grads = random_tensors(seed), random_tensors(seed + 50)
        for parameter, weight in zip(parameters, weights):
            parameter.set_data(Tensor(weight))
        clipped = clip(cell, grads)
        for ours, theirs in zip(clipped, clipped_by_torch(mode, limit, weights, grads)):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=0)
        clips += [not np.allclose(ours, grad) for ours, grad in zip(clipped[:-2], grads)]
    assert any(clips)


def test_adaptive_leaves_the_classifier_alone() -> None:
    parameters = [Parameter(Tensor(w), name=f"w{i}") for i, w in enumerate(random_tensors(0))]
    grads = [np.ones(shape, np.float32) for shape in SHAPES]
    clipped = clip(GradientClip("adaptive", 1e-9, parameters), grads)
    same = [np.array_equal(ours, grad) for ours, grad in zip(clipped, grads)]
    assert same == [False] * 5 + [True] * 2


FAMILIES: Dict[str, Dict[str, Any]] = {
    "convmixer_1024_20_ks9_p14": {"dim": 8, "depth": 1},
    "convnext_tiny": {"dims": [2, 2, 2, 2], "depths": [1, 1, 1, 1]},
    "cct_2_3x2_32": {},
    "deit_tiny_patch16_224": {"embed_dim": 12, "depth": 1},
    "pcpvt_small_v0": {"depths": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_last_two_parameters_are_the_classifier(arch: str) -> None:
    network = create_model(arch, num_classes=11, **FAMILIES[arch])
    for num_classes in (11, 13):
        weight, bias = network.trainable_params()[-2:]
        assert (weight.shape[0], bias.shape) == (num_classes, (num_classes,))
        network.reset_classifier(13)
