"""Every architecture that has timm's name computes timm's logits, and its weights go both ways."""

from __future__ import annotations

from typing import Any, Dict

import mindspore as ms
import numpy as np
import pytest
from model_parity import CLASSES, load_rule_weights, relative_error
from torch_oracle import timm, torch
from weight_rule import images

from src.checkpoints.weight_conversion import to_network_names, to_reference_names
from src.models.registry import create_model, list_models

# Compiling so many graphs takes minutes.
pytestmark = pytest.mark.usefixtures("pynative")

SHALLOW: Dict[str, Dict[str, Any]] = {"convnext": {"depths": (1, 1, 1, 1)}, "deit": {"depth": 2}}
NARROW: Dict[str, Dict[str, Any]] = {
    "convnext_large_mlp": {"dims": (16, 32, 64, 128)},
    "convnext_xxlarge": {"dims": (16, 32, 64, 128)},
    "deit3_huge_patch14_224": {"embed_dim": 64, "num_heads": 4},
}
# One of each structure that tests/model_parity.py has not, shallow: all at full depth are slow.
STRUCTURES = (
    *("convnext_atto", "convnext_nano_ols", "convnext_femto_ols", "convnext_zepto_rms"),
    *("convnext_zepto_rms_ols", "convnext_tiny_hnf", "convnext_large_mlp", "convnext_xxlarge"),
    *("convnextv2_nano", "convnextv2_tiny", "test_convnext", "test_convnext3"),
    *("deit3_small_patch16_224", "deit3_huge_patch14_224"),
)
SHARED = [name for name in list_models() if name in set(timm.list_models())]


def test_timm_publishes_weights_of_no_other() -> None:
    families = ("convmixer", "convnext*", "deit*", "test_convnext*", "twins*")
    published = [name for family in families for name in timm.list_models(family, pretrained=True)]
    assert {name.partition(".")[0] for name in published} <= set(SHARED)
    assert len(published) > 120


def check_parity(name: str, **changes: Any) -> None:
    side = 56 if "patch14" in name or name.startswith("convmixer") else 64
    ours = load_rule_weights(create_model(name, img_size=side, num_classes=CLASSES, **changes))
    arrays = {parameter.name: parameter.asnumpy() for parameter in ours.get_parameters()}
    theirs = to_reference_names(arrays, ours)
    sized = {"img_size": side} if name.startswith(("deit", "twins")) else {}
    network = timm.create_model(name, num_classes=CLASSES, **sized, **changes).eval()
    state = {key: torch.tensor(value) for key, value in theirs.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    back, _ = to_network_names(theirs, ours, arch=name)
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)
    image = images(2, side)
    with torch.no_grad():
        expected = network(torch.tensor(image)).numpy()
    found = ours.set_train(False)(ms.Tensor(image)).asnumpy()
    assert relative_error(found, expected) <= 1e-4


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_shallow_one_of_each_structure(name: str) -> None:
    depth = next(keywords for family, keywords in SHALLOW.items() if family in name)
    check_parity(name, **depth, **NARROW.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_all_at_full_depth(name: str) -> None:
    check_parity(name)


def isotropic_of_timms_blocks(dim: int, depth: int) -> Any:
    """The authors' network, which timm does not have, of the block that it has."""
    block = timm.models.convnext.ConvNeXtBlock

    class Isotropic(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, dim, 16, 16)
            self.blocks = torch.nn.Sequential(
                *[block(dim, ls_init_value=None) for _ in range(depth)]
            )
            self.norm = torch.nn.LayerNorm(dim, eps=1e-6)
            self.head = torch.nn.Linear(dim, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))

    return Isotropic().eval()


def test_isotropic_ones_under_the_authors_names() -> None:
    name = "convnext_isotropic_small"
    ours = load_rule_weights(create_model(name, img_size=64, num_classes=CLASSES, depth=2))
    arrays = {parameter.name: parameter.asnumpy() for parameter in ours.get_parameters()}
    network = isotropic_of_timms_blocks(384, 2)
    theirs = to_reference_names(arrays, ours)
    network.load_state_dict({key: torch.tensor(value) for key, value in theirs.items()})
    image = images(2, 64)
    with torch.no_grad():
        expected = network(torch.tensor(image)).numpy()
    found = ours.set_train(False)(ms.Tensor(image)).asnumpy()
    assert relative_error(found, expected) <= 1e-4
    authors = {
        key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv"): value
        for key, value in theirs.items()
    }
    back, naming = to_network_names(authors, ours, arch=name)
    assert naming.source == "the authors"
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)


def test_authors_names_of_version_2_and_of_deit_3() -> None:
    """Their GRN has axes of length 1, and linear layers where timm's small networks convolve."""
    ours = load_rule_weights(create_model("convnextv2_atto", depths=(1, 1, 1, 1), img_size=64))
    arrays = {parameter.name: parameter.asnumpy() for parameter in ours.get_parameters()}
    rules = ("stem. -> downsample_layers.0.", "conv_dw -> dwconv", "mlp.grn.weight -> grn.gamma")
    rules += ("mlp.grn.bias -> grn.beta", "mlp.fc -> pwconv", ".blocks. -> .", "head.fc. -> head.")
    rules += tuple(f"stages.{i}.downsample. -> downsample_layers.{i}." for i in (1, 2, 3))
    rules += ("head.norm. -> norm.",)
    authors = {}
    for key, value in to_reference_names(arrays, ours).items():
        value = value.reshape(value.shape[:2]) if "mlp.fc" in key and value.ndim == 4 else value
        value = value[None, None, None] if "grn" in key else value
        for rule in rules:
            key = key.replace(*rule.split(" -> "))
        authors[key] = value
    back, naming = to_network_names(authors, ours, arch="convnextv2_atto")
    assert naming.source == "the authors"
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)

    ours = load_rule_weights(create_model("deit3_small_patch16_224", depth=1, img_size=32))
    arrays = {parameter.name: parameter.asnumpy() for parameter in ours.get_parameters()}
    authors = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for key, value in to_reference_names(arrays, ours).items()
    }
    assert {"blocks.0.gamma_1", "blocks.0.gamma_2"} < set(authors)
    back, _ = to_network_names(authors, ours, arch="deit3_small_patch16_224")
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)
