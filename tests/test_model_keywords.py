"""What networks cannot be built of: every family, every keyword, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import mindspore as ms
import numpy as np
import pytest
from digits_run import failure
from test_scripts import script

import train
from src.args import parse_args
from src.errors import UserError
from src.models.keywords import STANDARD, Keyword
from src.models.registry import FAMILIES, create_model, resolve
from src.trainer.build import build_network

SMALL: Dict[str, Dict[str, Any]] = {
    "convmixer_768_32": {"dim": 8, "depth": 1, "patch_size": 4, "kernel_size": 3},
    "convnext_tiny": {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]},
    "cct_2_3x2_32": {"embedding_dim": 8},
    "deit_tiny_patch16_224": {"depth": 1, "embed_dim": 12},
    "pcpvt_small_v0": {"depths": [1, 1, 1, 1], "embed_dims": [4, 8, 20, 16]},
}
# In the order of FAMILIES; the distilled class has all keywords of DeiT and one more.
ARCHS = [name.replace("deit_tiny_", "deit_tiny_distilled_") for name in SMALL]
KEYWORDS = [
    # ConvNeXt has a class with other keywords.
    (next(name for name in (arch, *family.variants) if key in resolve(name)[1]), key, keyword)
    for arch, family in zip(ARCHS, FAMILIES.values())
    for key, keyword in {**family.keywords, **STANDARD}.items()
]


def wrong_values(keyword: Keyword) -> List[Any]:
    """Well-typed YAML that this keyword must refuse."""
    ones: List[Any] = ["x", "", {}, [], float("nan"), -1, -0.5]
    if keyword.kind is not bool:
        ones += [True, False]
    if keyword.kind is int:
        ones += [keyword.low - 1, keyword.high + 1, 10**12, 2.0]
    if keyword.kind is float:
        ones += [float("inf"), min(keyword.high + 1, keyword.below)]
    if keyword.kind in (bool, str):
        ones += [0, 1]
    if not keyword.length:
        return [*ones, [keyword.low], [keyword.low] * 4]
    right = [max(keyword.low, 1)] * keyword.length
    return [*ones, right[1:], [*right, right[0]], *([*right[1:], one] for one in ones), None]


@pytest.mark.parametrize(
    ("arch", "key", "keyword"), KEYWORDS, ids=[f"{arch}-{key}" for arch, key, _ in KEYWORDS]
)
def test_every_wrong_value_is_refused_in_one_line(arch: str, key: str, keyword: Keyword) -> None:
    title = "image_size" if key == "img_size" else key
    for value in wrong_values(keyword):
        with pytest.raises(UserError) as refused:
            resolve(arch, **{key: value})
        message = str(refused.value)
        assert f"{title} {str(value)[:80]}: expected {keyword.allowed()}" in message
        assert "\n" not in message


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_knows_every_keyword_and_every_variant_keeps_to_it(family: str) -> None:
    for name in FAMILIES[family].variants:
        values = resolve(name)[1]
        table = {**FAMILIES[family].keywords, **STANDARD}
        assert set(values) <= set(table)
        assert not [key for key, value in values.items() if not table[key].takes(value)]
    assert not set(FAMILIES[family].keywords) & set(STANDARD)


IMPOSSIBLE = [
    ("convmixer_768_32", {"kernel_size": 4}, "odd"),
    ("convmixer_768_32", {"patch_size": 5}, "image_size 32: expected a multiple of 5"),
    ("convmixer_768_32", {"patch_size": 64}, "image_size 32: expected a multiple of 64"),
    ("cct_2_3x2_32", {"num_heads": 3}, "num_heads 3"),
    ("cct_2_3x2_32", {"n_conv_layers": 0, "kernel_size": 5}, "image_size 32: expected a multiple"),
    ("cct_2_3x2_32", {"mlp_ratio": 0.1}, "mlp_ratio 0.1: of 8 channels that is no hidden one"),
    ("deit_tiny_patch16_224", {"num_heads": 5}, "num_heads 5"),
    ("deit_tiny_patch16_224", {"mlp_ratio": 0.01}, "mlp_ratio 0.01: of 12 channels"),
    ("pcpvt_small_v0", {"num_heads": [3, 2, 5, 8]}, "num_heads 3"),
    ("pcpvt_small_v0", {"window_size": 9}, "window_size 9: the largest map of image_size 32"),
    ("pcpvt_small_v0", {"sr_ratios": [16, 4, 2, 1]}, "[16, 4, 2, 1]: the maps of image_size 32"),
]


@pytest.mark.parametrize(("arch", "keywords", "said"), IMPOSSIBLE)
def test_values_that_do_not_go_together(arch: str, keywords: Dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        create_model(arch, **{**SMALL[arch], "img_size": 32, **keywords})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


EXTREMES = [
    ("convmixer_768_32", {"kernel_size": 33, "dim": 1, "in_chans": 1}),
    ("convnext_tiny", {"dims": [1, 2, 1, 2], "layer_scale_init_value": 0}),
    ("cct_2_3x2_32", {"n_conv_layers": 3, "kernel_size": 1, "mlp_ratio": 0.125}),
    ("cct_2_3x2_32", {"positional_embedding": "none", "seq_pool": False, "dropout": 0.99}),
    ("deit_tiny_patch16_224", {"patch_size": 32, "num_heads": 12, "drop_path_rate": 0.99}),
    ("pcpvt_small_v0", {"window_size": 8, "sr_ratios": [1, 1, 1, 1]}),
    ("pcpvt_small_v0", {"window_size": 3, "sr_ratios": [3, 3, 2, 1]}),
]


@pytest.mark.parametrize(("arch", "keywords"), EXTREMES)
def test_what_is_allowed_runs(arch: str, keywords: Dict[str, Any]) -> None:
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model(arch, **{**SMALL[arch], "img_size": 32, "num_classes": 3, **keywords})
    image = np.zeros((1, keywords.get("in_chans", 3), 32, 32), np.float32)
    logits = network.set_train(False)(ms.Tensor(image)).asnumpy()
    ms.set_context(mode=before)
    assert logits.shape == (1, 3)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{in_chans: 1}", "model_args 'in_chans': has a key of its own; give --in_chans"),
        ("{img_size: 32}", "model_args 'img_size': has a key of its own; give --image_size"),
        ("{num_classes: 3}", "give --num_classes"),
        ("{pretrained: x}", "give --pretrained"),
        ("{name: x}", "give --arch"),
        ("{drop_path_rate: 0.1}", "give --drop_path_rate"),
        ("{num_heads: 0}", "num_heads 0: expected an integer from 1"),
        ("{dropout: 1.0}", "dropout 1.0: expected a number from 0 below 1"),
    ],
)
def test_recipes_are_refused_in_one_line(given: str, said: str) -> None:
    sizes = ["--num_classes", "10", "--image_size", "32"]
    with pytest.raises(UserError) as refused:
        build_network(parse_args(["--arch", "cct_2_3x2_32", *sizes, "--model_args", given]))
    assert said in str(refused.value)


def test_train_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(Path(train.__file__).parent / "src" / "configs" / "cct_2_3x2_32_digits.yaml")
    words = ["--config", recipe, "--model_args", "{in_chans: 1}", "--train_url", str(tmp_path)]
    message = failure(capsys, train, [*words, "--data_url", str(tmp_path / "digits")])
    assert "model_args 'in_chans': has a key of its own; give --in_chans" in message


@pytest.mark.parametrize("key", ["num_classes", "image_size"])
def test_sizes_left_open_build_nothing(key: str) -> None:
    words = ["--arch", "cct_2_3x2_32", "--num_classes", "10", "--image_size", "32", f"--{key}", "0"]
    with pytest.raises(UserError, match=f"{key} 0: stands for"):
        build_network(parse_args(words))


def test_the_keywords_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("list_models").main(["--model_args", "--filter", "deit"]) == 0
    listed = capsys.readouterr().out
    for key in FAMILIES["deit"].keywords:
        assert f"  {key}: " in listed
    assert "cct" not in listed
