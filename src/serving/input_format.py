"""What a network in a file takes: pixels (`uint8_nhwc`), or what they become (`float32_nchw`)."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from mindspore import nn

from ..args import Config
from ..data.augment.batch_transform import normalize_pixels
from ..trainer.build import build_normalize


def takes_pixels(form: str) -> bool:
    """Whether the network in the file normalises; otherwise whoever calls it does.

    Args:
        form: uint8_nhwc or float32_nchw.
    """
    return form == "uint8_nhwc"


def image_shape(form: str, config: Config) -> Tuple[int, ...]:
    """(H, W, C) or (C, H, W)."""
    side, channels = config.model.image_size, config.model.in_chans
    return (side, side, channels) if takes_pixels(form) else (channels, side, side)


def as_input(form: str, config: Config, pixels: np.ndarray) -> np.ndarray:
    """Images (B, H, W, C) uint8 -> what the file takes of them: themselves, or (B, C, H, W)."""
    if takes_pixels(form):
        return pixels
    return normalize_pixels(pixels, mean=config.data.mean, std=config.data.std)


def normalize_before(form: str, config: Config) -> nn.Cell:
    """What is done to pixels before the file's network, as a cell."""
    return nn.Identity() if takes_pixels(form) else build_normalize(config)


def normalize_within(form: str, config: Config) -> nn.Cell:
    """What the file's network itself does first, as a cell."""
    return build_normalize(config) if takes_pixels(form) else nn.Identity()
