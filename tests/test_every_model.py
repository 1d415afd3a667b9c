"""Every registered name, shallow, on a small image: output shape, and gradients everywhere."""

from __future__ import annotations

from typing import Any, Dict, Iterator

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops
from model_parity import load_rule_weights
from test_models import ALIASES, PUBLISHED
from weight_rule import images

from src.models.registry import create_model, list_models

BATCH = 2
# Start of the name -> the fewest blocks that have every kind of layer, and a side for them.
SHALLOW: Dict[str, Dict[str, Any]] = {
    "convmixer": {"depth": 1, "img_size": 28},
    "convnext": {"depths": (1, 1, 1, 1), "img_size": 64},
    "deit": {"depth": 1, "img_size": 32},
    "pcpvt": {"depths": (1, 1, 1, 1), "img_size": 64},
    "alt_gvt": {"depths": (2, 2, 2, 2), "img_size": 64},
    "twins_pcpvt": {"depths": (1, 1, 1, 1), "img_size": 64},
    "twins_svt": {"depths": (2, 2, 2, 2), "img_size": 64},
    "cct": {"num_layers": 1, "img_size": 32},
    "cvt": {"num_layers": 1, "img_size": 32},
    "vit_lite": {"num_layers": 1, "img_size": 32},
}


@pytest.fixture(autouse=True)
def pynative() -> Iterator[None]:
    """Compiling 84 graphs takes minutes."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


def shallow(name: str) -> Dict[str, Any]:
    return next(keywords for start, keywords in SHALLOW.items() if name.startswith(start))


@pytest.mark.parametrize("name", list_models())
def test_output_shape_and_gradients(name: str) -> None:
    classes = PUBLISHED[ALIASES.get(name, name)]["num_classes"]
    keywords = shallow(name)
    # With two samples, stochastic depth may drop a branch of both.
    model = load_rule_weights(create_model(name, drop_path_rate=0.0, **keywords)).set_train(True)
    image = ms.Tensor(images(BATCH, keywords["img_size"]))
    label = ms.Tensor(np.array([1, 0], np.int32))
    weights = model.trainable_params()

    def forward(image: ms.Tensor) -> Any:
        logits = model(image)
        return ops.cross_entropy(logits, label), logits

    (_, logits), gradients = ms.value_and_grad(forward, None, weights, has_aux=True)(image)
    assert logits.shape == (BATCH, classes)
    without = [
        weight.name
        for weight, gradient in zip(weights, gradients)
        if not (np.isfinite(gradient.asnumpy()).all() and np.abs(gradient.asnumpy()).max() > 0)
    ]
    assert not without
