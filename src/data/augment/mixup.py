"""What Mixup and CutMix draw for a batch: one row (lam, x0, y0, x1, y1) per image.

Mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899. Semantics are those of
timm 1.0.31 (`timm/data/mixup.py`): item i is mixed with item B-1-i of the same batch, and a cut of
odd side keeps its size (before timm 1.0.31 it lost one pixel). Applied by `batch_transform.py`.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

_UNTOUCHED = (1.0, 0.0, 0.0, 0.0, 0.0)
# (lam, x0, y0, x1, y1)
MixRow = Tuple[float, float, float, float, float]
# (x0, y0, x1, y1), pixels, upper ends exclusive
CutBox = Tuple[int, int, int, int]


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


def _draw_cutmix(alpha: float, image_size: int, rng: np.random.Generator) -> MixRow:
    lam = rng.beta(alpha, alpha)
    center_x, center_y = (int(center) for center in rng.integers(image_size, size=2))
    x0, y0, x1, y1 = cut_box(lam, center_x, center_y, image_size)
    area = (x1 - x0) * (y1 - y0)
    if area == 0:
        return _UNTOUCHED
    # The label follows the area that was really pasted, which the border may have clipped.
    return 1.0 - area / image_size**2, x0, y0, x1, y1


def _draw_row(
    image_size: int,
    *,
    mix_up: float,
    cutmix: float,
    mixup_prob: float,
    switch_prob: float,
    rng: np.random.Generator,
) -> MixRow:
    if (mix_up == 0 and cutmix == 0) or rng.random() >= mixup_prob:
        return _UNTOUCHED
    if cutmix > 0 and (mix_up == 0 or rng.random() < switch_prob):
        return _draw_cutmix(cutmix, image_size, rng)
    return rng.beta(mix_up, mix_up), 0.0, 0.0, 0.0, 0.0


def draw_mix(
    batch_size: int,
    image_size: int,
    *,
    mix_up: float,
    cutmix: float,
    mixup_prob: float,
    switch_prob: float,
    mixup_mode: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw how a batch is mixed.

    In an odd batch the middle item is its own partner, so mixing leaves it as it is.

    Args:
        batch_size: B, of this rank.
        image_size: side of the square images, pixels.
        mix_up: alpha of Mixup's Beta(alpha, alpha); 0: no Mixup.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0: no CutMix.
        mixup_prob: probability that a draw mixes at all.
        switch_prob: probability of CutMix when both are on.
        mixup_mode: what shares one draw: the `batch`, a `pair` of partners, or nothing (`elem`).
        rng: generator of this batch.

    Returns:
        (B, 5) float32: lam, the share of the item's own label, in [0, 1]; x0, y0, x1, y1, the box
        pasted from the partner, pixels, upper ends exclusive. Box area 0: Mixup with lam; lam 1
        and box area 0: untouched.
    """
    num_draws = {"batch": 1, "pair": (batch_size + 1) // 2, "elem": batch_size}[mixup_mode]
    rows = [
        _draw_row(
            image_size,
            mix_up=mix_up,
            cutmix=cutmix,
            mixup_prob=mixup_prob,
            switch_prob=switch_prob,
            rng=rng,
        )
        for _ in range(num_draws)
    ]
    if mixup_mode == "batch":
        rows = rows * batch_size
    elif mixup_mode == "pair":
        rows = rows + rows[: batch_size // 2][::-1]
    return np.array(rows, np.float32)
