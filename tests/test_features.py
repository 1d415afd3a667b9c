"""Maps of the layers as timm's, and networks under another head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from mindspore import nn
from model_parity import (
    GRADIENT_CASES,
    HAS_TIMM,
    Case,
    convnext,
    load_rule_weights,
    load_rule_weights_of_reference,
    relative_error,
)
from PIL import Image
from test_pooled_features import CCT, VIT_LITE, case_id, image_of

import predict as predict_program
from src.args import DataConfig, parse_args, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.data.augment.batch_transform import normalize_pixels
from src.errors import UserError
from src.models.features import FeatureMaps
from src.models.registry import create_model

needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="torch, timm, torchvision not installed")
CONVNEXT = convnext("convnext_tiny", "convnext_tiny", 64, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
DEIT, TWINS = GRADIENT_CASES[4], GRADIENT_CASES[5]
OF_TIMM = [GRADIENT_CASES[0], CONVNEXT, DEIT, GRADIENT_CASES[9], TWINS]


@pytest.fixture(scope="module")
def network() -> Any:
    """Of four layers."""
    return CONVNEXT.build()


@needs_timm
@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("case", OF_TIMM, ids=case_id)
def test_maps_are_timms(case: Case) -> None:
    import torch

    reference = load_rule_weights_of_reference(case.build_reference(num_classes=0)).eval()
    with torch.no_grad():
        features, maps = reference.forward_intermediates(torch.tensor(image_of(case)))
    model = load_rule_weights(case.build(num_classes=0)).set_train(False)
    found, ours = model.forward_intermediates(ms.Tensor(image_of(case)))
    assert relative_error(found.asnumpy(), features.numpy()) <= 1e-4
    assert len(ours) == len(maps) == len(model.feature_info)
    for mine, theirs in zip(ours, maps):
        assert mine.shape == tuple(theirs.shape)
        assert relative_error(mine.asnumpy(), theirs.numpy()) <= 1e-4


@needs_timm
@pytest.mark.parametrize("case", [CONVNEXT, DEIT], ids=case_id)
def test_features_only_is_timms(case: Case) -> None:
    """In a graph, with the kernels; which layers, channels and strides by default."""
    from timm.models._features import FeatureGetterNet
    from torch_oracle import torch

    reference = case.build_reference(num_classes=0)
    load_rule_weights_of_reference(reference).eval()
    net: Any = FeatureMaps(load_rule_weights(case.build(num_classes=0))).set_train(False)
    getter = FeatureGetterNet(reference, out_indices=list(net.layers))
    if case is not DEIT:  # whose depth is less than timm takes
        own = case.build_reference(features_only=True)
        assert net.layers == tuple(own.feature_info.out_indices)
    assert net.channels == tuple(getter.feature_info.channels())
    assert net.reduction == tuple(getter.feature_info.reduction())
    with torch.no_grad():
        expected = getter(torch.tensor(image_of(case)))
    found = net(ms.Tensor(image_of(case)))
    assert len(found) == len(expected) == (2 if case is DEIT else 4)
    for mine, theirs in zip(found, expected):
        assert relative_error(mine.asnumpy(), theirs.numpy()) <= 1e-4


@pytest.mark.usefixtures("pynative")
@pytest.mark.parametrize("case", [CCT, VIT_LITE], ids=case_id)
def test_maps_of_cct_are_what_shorter_networks_end_with(case: Case) -> None:
    """timm has none of them: a network of one layer less, and the last norm in NumPy."""
    deep = load_rule_weights(Case(case.name, case.side, {"num_layers": 2}).build(num_classes=0))
    features, maps = deep.set_train(False).forward_intermediates(ms.Tensor(image_of(case)))
    gamma, beta = (getattr(deep.classifier.norm, key).asnumpy() for key in ("gamma", "beta"))
    for layers, found in zip((1, 2), maps):
        short = load_rule_weights(Case(case.name, case.side, {"num_layers": layers}).build())
        expected = short.set_train(False).forward_features(ms.Tensor(image_of(case))).asnumpy()
        expected = expected[:, short.num_prefix_tokens :]
        tokens = found.asnumpy().reshape(2, found.shape[1], -1).transpose(0, 2, 1)
        centred = tokens - tokens.mean(axis=2, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-5)
        assert relative_error(normed * gamma + beta, expected) <= 1e-4
        assert found.shape[2:] == (case.side // deep.feature_info[0].reduction,) * 2
    np.testing.assert_allclose(features.asnumpy()[:, deep.num_prefix_tokens :], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [(None, [0, 1, 2, 3]), (2, [2, 3]), ([-1, 0], [0, 3]), ([1, 1], [1]), ((2,), [2])],
)
def test_layers_are_named_as_in_timm(network: Any, layers: Any, numbers: Any) -> None:
    assert network.layer_numbers(layers) == numbers


@pytest.mark.parametrize("layers", [0, 5, -1, [4], [-5], []])
def test_layers_that_are_not_there(network: Any, layers: Any) -> None:
    with pytest.raises(UserError, match="from -4 to 3, or one number from 1 to 4"):
        network.layer_numbers(layers)
    with pytest.raises(UserError, match="features_only=True"):
        create_model("cct_2_3x2_32", out_indices=[0])


class Dense(nn.Cell):
    """A head of somebody else's over two maps."""

    def __init__(self, backbone: FeatureMaps) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(sum(backbone.channels), 2, 1)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        first, second = self.backbone(x)
        return self.head(ms.ops.concat((first, second), axis=1))


def test_a_backbone_learns_under_another_head(tmp_path: Any) -> None:
    keywords = {**CCT.changes, "num_layers": 2, "img_size": 32}
    deep = load_rule_weights(create_model(CCT.name, num_classes=3, **keywords))
    save_checkpoint(tmp_path / "w.ckpt", deep.get_parameters(), {})
    backbone = create_model(
        CCT.name, features_only=True, pretrained=str(tmp_path / "w.ckpt"), **keywords
    )
    held = {parameter.name: parameter.asnumpy() for parameter in deep.get_parameters()}
    for parameter in backbone.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), held[parameter.name])
    net = Dense(backbone).set_train(True)
    names = [parameter.name for parameter in net.trainable_params()]
    assert len(set(names)) == len(names)

    def loss(image: ms.Tensor) -> ms.Tensor:
        return net(image).square().mean()

    value_and_grad = ms.value_and_grad(loss, None, net.trainable_params())
    value, gradients = value_and_grad(ms.Tensor(image_of(CCT)))
    largest = {n: float(np.abs(g.asnumpy()).max()) for n, g in zip(names, gradients)}
    assert np.isfinite(value.asnumpy())
    assert all(largest[name] > 0 for name in names if "tokenizer" in name or "head" in name)


def test_predict_writes_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the network without classifier, in both files; of weights without one too."""
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "d.png").write_bytes(b"")
    model = load_rule_weights(CCT.build(num_classes=3))
    words = ["--arch", CCT.name, "--image_size", "32", "--model_args", "{num_layers: 1}"]
    recipe = {"config": to_yaml(parse_args([*words, "--crop_pct", "1.0", "--num_classes", "3"]))}
    save_checkpoint(tmp_path / "w.ckpt", model.get_parameters(), {"arch": CCT.name, **recipe})
    model.reset_classifier(0)
    bare = {"arch": CCT.name, "num_classes": 0}
    save_checkpoint(tmp_path / "bare.ckpt", model.get_parameters(), bare)
    given = ["--input", str(tmp_path / "in"), "--output", "embeddings", "--batch_size", "2"]
    for weights, name in (("w", "x.npz"), ("w", "x.parquet"), ("bare", "bare.npz")):
        more = ["--pretrained", str(tmp_path / f"{weights}.ckpt")]
        more += ["--output_file", str(tmp_path / name)]
        more += [*words, "--crop_pct", "1.0"] if weights == "bare" else []
        assert predict_program.main([*given, *more]) == 0
    found = np.load(tmp_path / "x.npz")
    assert [Path(image).name for image in found["image"]] == ["a.png", "b.png", "c.png"]
    pixels = np.stack([np.asarray(Image.open(image)) for image in found["image"]])
    inputs = normalize_pixels(pixels, mean=DataConfig().mean, std=DataConfig().std)
    expected = model.set_train(False)(ms.Tensor(inputs)).asnumpy()
    assert relative_error(found["embedding"], expected) <= 1e-5
    assert found["embedding"].dtype == np.float32
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pydict()
    assert table["image"] == found["image"].tolist()
    np.testing.assert_array_equal(np.array(table["embedding"], np.float32), found["embedding"])
    np.testing.assert_array_equal(np.load(tmp_path / "bare.npz")["embedding"], found["embedding"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output_file", "x.csv"], "give --output_file FILE.npz or FILE.parquet"),
        ([], "give --output_file FILE.npz or FILE.parquet"),
        (["--output_file", "x.npz", "--labels", "y"], "labels: is for predictions"),
        (
            ["--output_file", "x.npz", "--pretrained", "y.onnx"],
            "are those of a checkpoint",
        ),
    ],
)
def test_embeddings_that_cannot_be_made(
    words: List[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "y.onnx").write_bytes(b"x")
    placed = [word if not word.startswith(("x.", "y.")) else str(tmp_path / word) for word in words]
    given = ["--input", str(tmp_path / "a.png"), "--output", "embeddings"]
    assert said in failure(capsys, predict_program, [*given, *placed])
