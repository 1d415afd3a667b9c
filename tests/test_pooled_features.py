"""Networks without a classifier: pooled features as timm's, for whoever builds upon them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, List, Set

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from model_parity import (
    CLASSES,
    GRADIENT_CASES,
    HAS_TIMM,
    Case,
    load_rule_weights,
    load_rule_weights_of_reference,
    relative_error,
)
from test_models import uninitialised
from weight_rule import images

from src.checkpoints.checkpoint import save_checkpoint
from src.errors import UserError
from src.models.classifier import Classifier
from src.models.registry import create_model
from src.models.weights import reference_names

needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="torch, timm, torchvision not installed")
CCT = Case("cct_2_3x2_32", 32, {"num_layers": 1})
VIT_LITE = Case("vit_lite_2_4_32", 32, {"num_layers": 1})
CASES = [*GRADIENT_CASES, CCT, VIT_LITE]
HEADS = ("head.weight", "head_dist.weight", "head.fc.weight", "classifier.fc.weight")


def case_id(case: Case) -> str:
    return f"{case.name}-{case.side}"


def names(model: nn.Cell) -> List[str]:
    return [parameter.name for parameter in model.get_parameters()]


def without_heads(parameters: List[str]) -> List[str]:
    layers = {head.rpartition(".")[0] for head in HEADS}
    return [name for name in parameters if name.rpartition(".")[0] not in layers]


def image_of(case: Case) -> np.ndarray:
    return images(2, case.side)


class Pooled(nn.Cell):
    """A network of somebody else's that reads the features."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


@needs_timm
@pytest.mark.parametrize("case", [GRADIENT_CASES[n] for n in (0, 2, 4, 5)], ids=case_id)
def test_a_network_without_classes_computes_timms_features(case: Case) -> None:
    import torch

    reference = load_rule_weights_of_reference(case.build_reference(num_classes=0)).eval()
    with torch.no_grad():
        expected = reference(torch.tensor(image_of(case))).numpy()
    model = load_rule_weights(case.build(num_classes=0)).set_train(False)
    found = model(ms.Tensor(image_of(case))).asnumpy()
    assert found.shape == (2, model.num_features) == (2, reference.num_features)
    assert relative_error(found, expected) <= 1e-4
    counters = [n for n in reference.state_dict() if n.endswith("num_batches_tracked")]
    assert {*reference_names(model).values(), *counters} == set(reference.state_dict())


@needs_timm
@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("case", GRADIENT_CASES, ids=case_id)
def test_pre_logits_are_timms(case: Case) -> None:
    import torch

    reference = load_rule_weights_of_reference(case.build_reference(num_classes=CLASSES)).eval()
    with torch.no_grad():
        features = reference.forward_features(torch.tensor(image_of(case)))
        pooled = reference.forward_head(features, pre_logits=True).numpy()
    model = load_rule_weights(case.build(num_classes=CLASSES)).set_train(False)
    found = model.forward_features(ms.Tensor(image_of(case)))
    assert found.shape == features.shape
    assert relative_error(found.asnumpy(), features.numpy()) <= 1e-4
    ours = model.forward_head(found, pre_logits=True).asnumpy()
    assert relative_error(ours, pooled) <= 1e-4
    model.reset_classifier(0)
    without = model(ms.Tensor(image_of(case))).asnumpy()
    np.testing.assert_array_equal(without, ours)


def test_features_of_cct_are_the_sum_weighted_by_seqpool() -> None:
    """Section 3.2 of the paper: softmax(g(x))^T x, g a linear layer."""
    model = load_rule_weights(CCT.build(num_classes=0)).set_train(False)
    x = model.forward_features(ms.Tensor(image_of(CCT))).asnumpy().astype(np.float64)
    pool = model.classifier.attention_pool
    scores = x @ pool.weight.asnumpy()[0] + pool.bias.asnumpy()
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = (shares[..., None] * x).sum(axis=1)
    assert relative_error(model(ms.Tensor(image_of(CCT))).asnumpy(), expected) <= 1e-5
    assert model.num_features == 128
    # Within a graph of somebody else's.
    trained = load_rule_weights(CCT.build(num_classes=CLASSES)).set_train(False)
    found = Pooled(trained).set_train(False)(ms.Tensor(image_of(CCT))).asnumpy()
    assert relative_error(found, expected) <= 1e-5


@pytest.mark.usefixtures("pynative")
def test_features_of_vit_lite_are_its_class_token() -> None:
    model = load_rule_weights(VIT_LITE.build(num_classes=0)).set_train(False)
    image = ms.Tensor(image_of(VIT_LITE))
    token = model.forward_features(image).asnumpy()[:, 0]
    np.testing.assert_allclose(model(image).asnumpy(), token, atol=1e-6)


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_the_classifier_goes_and_comes_back(case: Case) -> None:
    with uninitialised():
        model = case.build(num_classes=CLASSES)
        whole = names(model)
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert names(model) == without_heads(whole) != whole
        assert sum(map(len, model.layer_groups())) == len(list(model.trainable_params()))
        model.reset_classifier(7)
    assert names(model) == whole
    shapes = {p.name: p.shape for p in model.get_parameters()}
    due = (model.num_classes, model.num_features)
    assert {shapes[name] for name in HEADS if name in shapes} == {due} == {(7, due[1])}


def test_the_graph_of_the_old_classifier_is_not_used_again() -> None:
    model = CCT.build(num_classes=CLASSES).set_train(False)
    image = ms.Tensor(image_of(CCT))
    assert model(image).shape == (2, CLASSES)
    model.reset_classifier(0)
    assert model(image).shape == (2, model.num_features)


@pytest.mark.usefixtures("pynative")
def test_both_tokens_of_distilled_deit_in_training() -> None:
    keywords = {"distilled_training": True, "num_classes": 0}
    model = load_rule_weights(GRADIENT_CASES[4].build(**keywords)).set_train(True)
    token, dist_token = model(ms.Tensor(image_of(GRADIENT_CASES[4])))
    assert token.shape == dist_token.shape == (2, model.num_features)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_weights_with_a_classifier_start_a_network_without(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trained = load_rule_weights(case.build(num_classes=CLASSES))
    path = tmp_path / "weights.ckpt"
    save_checkpoint(path, trained.get_parameters(), {})
    model = case.build(num_classes=0, pretrained=str(path))
    held = {parameter.name: parameter.asnumpy() for parameter in trained.get_parameters()}
    assert names(model) == without_heads(list(held))
    for parameter in model.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), held[parameter.name])
    layers: Set[str] = {name.rpartition(".")[0] for name in held if name in HEADS}
    said = f"{', '.join(sorted(layers))}: left out, the network has no classifier"
    assert caplog.messages == [said, f"started from the weights of {path}"]


def test_weights_without_a_classifier_start_one_with_a_fresh_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.ckpt"
    save_checkpoint(path, CCT.build(num_classes=0).get_parameters(), {})
    same: Any = CCT.build(num_classes=0, pretrained=str(path))
    assert same.num_classes == 0
    assert "freshly" not in caplog.text
    other: Any = CCT.build(num_classes=CLASSES, pretrained=str(path))
    assert other.num_classes == CLASSES
    assert "classifier.fc: not in the weights, freshly initialised" in caplog.text


def test_fewer_than_no_classes_are_refused() -> None:
    with pytest.raises(UserError, match="-1"):
        create_model(CCT.name, num_classes=-1)
