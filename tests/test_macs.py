"""Multiply-accumulates against torch's own counter over timm's networks."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from torch_oracle import timm, torch

from src.errors import UserError
from src.models.registry import count_macs, list_models


def counted_by_torch(reference: str, side: int, **keywords: Any) -> int:
    """Half of the floating point operations, on a device that computes nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = timm.create_model(reference, **keywords).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "reference", "side"),
    [
        ("convmixer_1536_20", "", 224),
        ("convmixer_768_32", "", 224),
        ("convmixer_1024_20_ks9_p14", "", 224),
        ("convnext_tiny", "", 224),
        ("convnext_base_384_in1k", "convnext_base", 384),
        ("convnext_xlarge_in22k", "convnext_xlarge", 224),
        *((name, "", 224) for name in ("convnext_nano_ols", "convnext_atto_ols")),
        *((name, "", 224) for name in ("convnext_zepto_rms_ols", "convnext_tiny_hnf")),
        *((name, "", 224) for name in ("convnext_large_mlp", "convnext_xxlarge")),
        *((name, "", 224) for name in ("convnextv2_atto", "convnextv2_huge")),
        *((name, "", 160) for name in ("test_convnext", "test_convnext3")),
        ("deit3_huge_patch14_224", "", 224),
        ("deit3_base_patch16_384", "", 384),
        ("deit_small_patch16_224", "", 224),
        ("deit_base_distilled_patch16_384", "", 384),
        ("pcpvt_small_v0", "twins_pcpvt_small", 224),
        ("pcpvt_large_v0", "twins_pcpvt_large", 224),
        ("alt_gvt_small", "twins_svt_small", 224),
        ("alt_gvt_large", "twins_svt_large", 224),
    ],
)
def test_macs_equal_torchs_count(name: str, reference: str, side: int) -> None:
    classes = 21841 if name.endswith("in22k") else 1000
    assert count_macs(name) == counted_by_torch(reference or name, side, num_classes=classes)


@pytest.mark.parametrize(
    ("name", "changes", "reference"),
    [
        ("convnext_tiny", {"depths": (1, 2, 1, 1)}, "convnext_tiny"),
        ("deit_small_patch16_224", {"depth": 3, "mlp_ratio": 2.5}, "deit_small_patch16_224"),
        # 8x8, 4x4, 2x2, 1x1: every window of 7 is padded.
        ("alt_gvt_small", {"depths": (1, 2, 3, 4)}, "twins_svt_small"),
    ],
)
def test_macs_follow_the_keywords(name: str, changes: Dict[str, Any], reference: str) -> None:
    sized = {} if name.startswith("convnext") else {"img_size": 32}
    theirs = counted_by_torch(reference, 32, num_classes=7, **sized, **changes)
    assert count_macs(name, img_size=32, num_classes=7, **changes) == theirs


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cct_14_7x2_224", 5521.9),
        ("cct_14_7x2_384_fl", 18579.9),
        ("cct_7_7x2_224_sine_c102", 1604.6),
        ("cct_2_3x2_32", 35.3),
        ("cct_6_3x1_32", 1013.8),
        ("cct_7_3x1_32_c100", 1181.6),
        ("cvt_7_4_32", 250.4),
        ("vit_lite_2_4_32", 15.3),
        ("vit_lite_7_4_32_sine", 254.5),
    ],
)
def test_macs_of_cct_equal_a_count_over_the_authors_code(name: str, millions: float) -> None:
    """Counted by the same counter, over the code of SHI-Labs/Compact-Transformers."""
    assert count_macs(name) / 1e6 == pytest.approx(millions, abs=0.06)


def test_every_architecture_is_counted_and_a_wrong_name_is_refused() -> None:
    assert all(count_macs(name) > 1e6 for name in list_models())
    with pytest.raises(UserError, match="unknown architecture"):
        count_macs("deit_tiny")
    with pytest.raises(UserError, match="did you mean 'depth'"):
        count_macs("deit_tiny_patch16_224", deptth=3)
