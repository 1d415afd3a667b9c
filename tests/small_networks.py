"""One small instance of each family, for the digits at 32x32, with weights from the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import mindspore as ms
from model_parity import load_rule_weights

from src.args import Config, parse_args
from src.trainer.build import build_network

ARGUMENTS: Dict[str, str] = {
    "convmixer_768_32": "{dim: 32, depth: 2, patch_size: 4, kernel_size: 5}",
    "convnext_tiny": "{depths: [1, 1, 2, 1], dims: [8, 16, 24, 32]}",
    "cct_2_3x2_32": "{}",
    "deit_tiny_patch16_224": "{depth: 2, patch_size: 8}",
    "pcpvt_small_v0": "{depths: [2, 1, 1, 1]}",
}


def words(arch: str) -> List[str]:
    """Options that select the instance."""
    options = ["--arch", arch, "--image_size", "32", "--num_classes", "10", "--set", "Digits"]
    options += ["--model_args", ARGUMENTS[arch], "--crop_pct", "1.0", "--nonlinearity", "GELU"]
    return options


def write_checkpoint(arch: str, path: Path) -> Path:
    """A checkpoint of the instance at `path`."""
    config: Config = parse_args(words(arch))
    ms.save_checkpoint(load_rule_weights(build_network(config)), str(path))
    return path
