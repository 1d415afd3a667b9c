"""CCT, CVT and ViT-Lite against the authors' code (stored logits) and published counts."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from weight_rule import fill, images

from src.errors import UserError
from src.models.layers.positions import sinusoidal_embedding
from src.models.registry import create_model, list_models, resolve

HERE = Path(__file__).resolve().parent
COUNTS = json.loads((HERE / "fixtures" / "cct_params.json").read_text())
LOGITS = np.load(HERE / "fixtures" / "cct_logits.npz")


def test_every_published_name_is_registered() -> None:
    assert sorted(COUNTS) == [n for n in list_models() if n.startswith(("cct", "cvt", "vit_lite"))]
    # The authors' own name of what the paper calls ViT-Lite.
    for name in (n for n in list_models() if n.startswith("vit_lite")):
        assert resolve(name.replace("vit_lite", "vit")) == resolve(name)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_parameter_count(name: str) -> None:
    parameters = list(create_model(name).get_parameters())
    assert sum(p.size for p in parameters) == COUNTS[name]["params"]
    trainable = sum(p.size for p in parameters if p.requires_grad)
    assert trainable == COUNTS[name]["trainable"]


@pytest.mark.parametrize("name", sorted(LOGITS.files))
def test_logits_equal_the_authors(name: str) -> None:
    model = create_model(name)
    for parameter in model.trainable_params():
        reference = parameter.name.replace(".gamma", ".weight").replace(".beta", ".bias")
        parameter.set_data(ms.Tensor(fill(reference, parameter.shape)))
    model.set_train(False)
    expected = LOGITS[name]
    side = next(side for side in (384, 224, 32) if f"_{side}" in name)
    logits = model(ms.Tensor(images(2, side))).asnumpy()
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_sine_table_equals_the_authors() -> None:
    from torch_oracle import torch

    # The rule of their sinusoidal_embedding, in torch.
    length, dim = 65, 128
    table = torch.tensor(
        [[p / (10000 ** (2 * (i // 2) / dim)) for i in range(dim)] for p in range(length)]
    )
    table[:, 0::2], table[:, 1::2] = torch.sin(table[:, 0::2]), torch.cos(table[:, 1::2])
    ours = sinusoidal_embedding(length, dim)
    assert ours.shape == (1, length, dim)
    np.testing.assert_allclose(ours[0], table.numpy(), atol=5e-6)


def test_every_trainable_parameter_gets_a_gradient() -> None:
    for name in ("cct_2_3x2_32", "cvt_2_4_32", "vit_lite_2_4_32"):
        # Stochastic depth may drop the same branch of both samples, and its gradient with it.
        model = create_model(name, drop_path_rate=0.0).set_train(True)
        weights = model.trainable_params()
        gradient = ms.ops.GradOperation(get_by_list=True)(model, ms.ParameterTuple(weights))
        for value, parameter in zip(gradient(ms.Tensor(images(2, 32))), weights):
            assert np.abs(value.asnumpy()).max() > 0, parameter.name


def test_features_head_and_reset() -> None:
    model = create_model("cct_2_3x2_32").set_train(False)
    image = ms.Tensor(images(2, 32))
    features = model.forward_features(image)
    assert features.shape == (2, 64, 128)
    np.testing.assert_array_equal(model.forward_head(features).asnumpy(), model(image).asnumpy())
    model = create_model("cct_2_3x2_32").set_train(False)
    model.reset_classifier(7)
    assert model(image).shape == (2, 7)
    names = [p.name for p in model.get_parameters()]
    assert names == [p.name for p in create_model("cct_2_3x2_32").get_parameters()]


@pytest.mark.parametrize(
    ("name", "keywords", "words"),
    [
        ("cct_2_3x2_3", {}, ["cct_2_3x2_3", "cct_2_3x2_32"]),
        ("cct_2_3x2_32", {"num_layer": 1}, ["num_layer", "num_layers"]),
        ("cct_2_3x2_32", {"img_size": 1, "num_layers": "x"}, ["cct_2_3x2_32"]),
        ("cvt_2_4_32", {"img_size": 30}, ["30", "multiple of 4"]),
        ("cct_2_3x2_32", {"nonlinearity": "Swish"}, ["Swish", "GELU"]),
        ("cct_2_3x2_32", {"positional_embedding": "cosine"}, ["cosine", "sine"]),
    ],
)
def test_bad_requests_say_what_is_allowed(name: str, keywords: dict, words: list) -> None:
    with pytest.raises(UserError) as caught:
        create_model(name, **keywords)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
