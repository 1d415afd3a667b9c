"""Every registered name, shallow, on a small image: output shape, and gradients everywhere."""

from __future__ import annotations

from typing import Any, Dict, Iterator

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops
from model_parity import load_rule_weights
from test_models import ALIASES, PUBLISHED, uninitialised
from weight_rule import images

from src.models.registry import create_model, list_models

# Compiling so many graphs takes minutes.
pytestmark = pytest.mark.usefixtures("pynative")

BATCH = 2
# Start of the name -> the fewest blocks that have every kind of layer, and a side for them.
SHALLOW: Dict[str, Dict[str, Any]] = {
    "convmixer": {"depth": 1, "img_size": 28},
    "convnext_isotropic": {"depth": 1, "img_size": 32},
    "convnext": {"depths": (1, 1, 1, 1), "img_size": 64},
    "test_convnext": {"depths": (1, 1, 1, 1), "img_size": 64},
    "deit3_huge": {"depth": 1, "img_size": 28},
    "deit": {"depth": 1, "img_size": 32},
    "pcpvt": {"depths": (1, 1, 1, 1), "img_size": 64},
    "alt_gvt": {"depths": (2, 2, 2, 2), "img_size": 64},
    "twins_pcpvt": {"depths": (1, 1, 1, 1), "img_size": 64},
    "twins_svt": {"depths": (2, 2, 2, 2), "img_size": 64},
    "cct": {"num_layers": 1, "img_size": 32},
    "cvt": {"num_layers": 1, "img_size": 32},
    "vit": {"num_layers": 1, "img_size": 32},
}


def published(name: str) -> Dict[str, int]:
    return PUBLISHED[ALIASES.get(name, name)]


def names() -> Iterator[Any]:
    """All of them; the largest, of which smaller sizes and heads are here, as slow tests."""
    for name in list_models():
        is_large = published(name)["params"] > 60e6
        yield pytest.param(name, marks=[pytest.mark.slow] if is_large else [])


def shallow(name: str) -> Dict[str, Any]:
    return next(keywords for start, keywords in SHALLOW.items() if name.startswith(start))


@pytest.mark.parametrize("name", list(names()))
def test_output_shape_and_gradients(name: str) -> None:
    keywords = shallow(name)
    with uninitialised():
        # With two samples, stochastic depth may drop a branch of both.
        model = create_model(name, drop_path_rate=0.0, **keywords)
    load_rule_weights(model).set_train(True)
    image = ms.Tensor(images(BATCH, keywords["img_size"]))
    label = ms.Tensor(np.array([1, 0], np.int32))
    weights = model.trainable_params()

    def forward(image: ms.Tensor) -> Any:
        logits = model(image)
        return ops.cross_entropy(logits, label), logits

    (_, logits), gradients = ms.value_and_grad(forward, None, weights, has_aux=True)(image)
    assert logits.shape == (BATCH, published(name)["num_classes"])
    without = [
        weight.name
        for weight, gradient in zip(weights, gradients)
        if not (np.isfinite(gradient.asnumpy()).all() and np.abs(gradient.asnumpy()).max() > 0)
        # What is added to all scores before a softmax changes nothing: its gradient is rounding.
        and not weight.name.endswith("attention_pool.bias")
    ]
    assert not without
