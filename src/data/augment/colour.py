"""Colour jitter, grey and blur as timm 1.0.31 offers them, which are torchvision's transforms.

Sources: `torchvision/transforms/transforms.py` (ColorJitter, RandomGrayscale, GaussianBlur).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, NamedTuple, Tuple

import numpy as np
from PIL import Image
from scipy import ndimage

from . import image_ops

# timm's choice; the standard deviation is torchvision's default range.
_BLUR_RADIUS = 11
_BLUR_SIGMA = (0.1, 2.0)


class Adjustment(NamedTuple):
    """One step of a colour jitter: brightness, contrast or saturation by a factor, hue by a shift.

    Attributes:
        name: brightness, contrast, saturation or hue.
        amount: factor, 1: unchanged; for hue a share of the circle, 0: unchanged.
    """

    name: str
    amount: float


def shift_hue(image: np.ndarray, share: float) -> np.ndarray:
    """Turn the hue of an RGB image by a share of the circle, in Pillow's HSV of 8 bits."""
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    hue = hue.point([(i + int(share * 255)) % 256 for i in range(256)])
    return np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


_ADJUSTERS = {
    "brightness": image_ops.brightness,
    "contrast": image_ops.contrast,
    "saturation": image_ops.color,
    "hue": shift_hue,
}


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue in random order.

    Attributes:
        strengths: of the first three, largest distance of the factor from 1; optionally of the hue,
            at most 0.5. 0: that one is left out.
        probability: of jittering at all.
    """

    strengths: Tuple[float, ...]
    probability: float

    def draw(self, rng: np.random.Generator) -> List[Adjustment]:
        """The adjustments of one image, in order."""
        if rng.random() >= self.probability:
            return []
        adjustments = []
        for name, strength in zip(_ADJUSTERS, self.strengths):
            if strength > 0:
                middle = 0.0 if name == "hue" else 1.0
                low = middle - strength if name == "hue" else max(0.0, middle - strength)
                adjustments.append(Adjustment(name, rng.uniform(low, middle + strength)))
        return [adjustments[i] for i in rng.permutation(len(adjustments))]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for name, amount in self.draw(rng):
            image = _ADJUSTERS[name](image, amount)
        return image


@dataclass(frozen=True)
class RandomGrayscale:
    """Three equal channels, with this probability."""

    probability: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image_ops.color(image, 0.0) if rng.random() < self.probability else image


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of `sigma` pixels, cut off at 11, mirrored at the border.

    The policies' GaussianBlur is another one: `image_ops.extended_box_blur`.
    """
    offsets = np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    pixels = image.astype(np.float32)
    for axis in (0, 1):
        pixels = ndimage.correlate1d(pixels, weights, axis=axis, mode="mirror")
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class RandomGaussianBlur:
    """Blur by 0.1 to 2 pixels, with this probability."""

    probability: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.probability:
            return image
        return gaussian_blur(image, rng.uniform(*_BLUR_SIGMA))
