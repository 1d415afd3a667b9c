"""What Mixup and CutMix draw for a batch: one row (lam, x0, y0, x1, y1) per image.

Mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899. Semantics are those of
timm 1.0.31 (`timm/data/mixup.py`): item i is mixed with item B-1-i of the same batch, and a cut of
odd side keeps its size (before timm 1.0.31 it lost one pixel). Applied by `batch_transform.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

_UNTOUCHED = (1.0, 0.0, 0.0, 0.0, 0.0)
# (lam, x0, y0, x1, y1)
MixRow = Tuple[float, float, float, float, float]
# (x0, y0, x1, y1), pixels, upper ends exclusive
CutBox = Tuple[int, int, int, int]


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Attributes:
        mix_up: alpha of Mixup's Beta(alpha, alpha); 0: no Mixup.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0: no CutMix.
        cutmix_minmax: range of the box's sides, as shares of the image's, instead of that; None:
            not used.
        correct_lam: the label follows the area that was really pasted, which the border may have
            clipped; with cutmix_minmax it always does.
        mixup_prob: probability that a draw mixes at all.
        switch_prob: probability of CutMix when both are on.
        mixup_mode: what shares one draw: the `batch`, a `pair` of partners, or nothing (`elem`).
    """

    mix_up: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: Optional[Tuple[float, float]] = None
    correct_lam: bool = True
    mixup_prob: float = 1.0
    switch_prob: float = 0.5
    mixup_mode: str = "batch"


def cut_box(lam: float, center_x: int, center_y: int, image_size: int) -> CutBox:
    """Square with 1 - lam of the image's area about a centre, clipped to the image."""
    side = int(image_size * math.sqrt(1.0 - lam))
    low, high = side // 2, (side + 1) // 2
    return (
        max(center_x - low, 0),
        max(center_y - low, 0),
        min(center_x + high, image_size),
        min(center_y + high, image_size),
    )


def draw_minmax_box(
    minmax: Tuple[float, float], image_size: int, rng: np.random.Generator
) -> CutBox:
    """Box inside the image whose sides are uniform between two shares of the image's."""
    low, high = (int(image_size * share) for share in minmax)
    # timm fails where a small image leaves one length only.
    height, width = (int(side) for side in rng.integers(low, max(high, low + 1), size=2))
    y0 = int(rng.integers(image_size - height, endpoint=True))
    x0 = int(rng.integers(image_size - width, endpoint=True))
    return x0, y0, x0 + width, y0 + height


def _draw_cutmix(mixing: Mixing, image_size: int, rng: np.random.Generator) -> MixRow:
    if mixing.cutmix_minmax is not None:
        lam = 0.0
        box = draw_minmax_box(mixing.cutmix_minmax, image_size, rng)
    else:
        lam = rng.beta(mixing.cutmix, mixing.cutmix)
        center_x, center_y = (int(center) for center in rng.integers(image_size, size=2))
        box = cut_box(lam, center_x, center_y, image_size)
    x0, y0, x1, y1 = box
    area = (x1 - x0) * (y1 - y0)
    # Without a pixel to paste, timm with correct_lam off still mixes labels, by less than one
    # pixel's share.
    if area == 0:
        return _UNTOUCHED
    if mixing.correct_lam or mixing.cutmix_minmax is not None:
        lam = 1.0 - area / image_size**2
    return lam, x0, y0, x1, y1


def _draw_row(mixing: Mixing, image_size: int, rng: np.random.Generator) -> MixRow:
    has_cutmix = mixing.cutmix > 0 or mixing.cutmix_minmax is not None
    if not (has_cutmix or mixing.mix_up > 0) or rng.random() >= mixing.mixup_prob:
        return _UNTOUCHED
    if has_cutmix and (mixing.mix_up == 0 or rng.random() < mixing.switch_prob):
        return _draw_cutmix(mixing, image_size, rng)
    return rng.beta(mixing.mix_up, mixing.mix_up), 0.0, 0.0, 0.0, 0.0


def draw_mix(
    mixing: Mixing, batch_size: int, image_size: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Draw how a batch is mixed.

    In an odd batch the middle item is its own partner, so mixing leaves it as it is.

    Args:
        mixing: the settings.
        batch_size: B, of this rank.
        image_size: side of the square images, pixels.
        rng: generator of this batch.

    Returns:
        (B, 5) float32: lam, the share of the item's own label, in [0, 1]; x0, y0, x1, y1, the box
        pasted from the partner, pixels, upper ends exclusive. Box area 0: Mixup with lam; lam 1
        and box area 0: untouched.
    """
    num_draws = {"batch": 1, "pair": (batch_size + 1) // 2, "elem": batch_size}[mixing.mixup_mode]
    rows = [_draw_row(mixing, image_size, rng) for _ in range(num_draws)]
    if mixing.mixup_mode == "batch":
        rows = rows * batch_size
    elif mixing.mixup_mode == "pair":
        rows = rows + rows[: batch_size // 2][::-1]
    return np.array(rows, np.float32)
