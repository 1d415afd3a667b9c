"""Transforms of single images: crop, resize, flip. Pillow images, a seeded generator passed in.

Semantics and pixels are those of timm 1.0.31 (`timm/data/transforms.py`,
`timm/data/transforms_factory.py`). What is drawn is separate from how it is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, List, Tuple

import numpy as np
from PIL import Image

Transform = Callable[[Image.Image, np.random.Generator], Image.Image]
# (top, left, height, width), pixels
CropBox = Tuple[int, int, int, int]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_CROP_TRIES = 10


def draw_filter(interpolation: str, rng: np.random.Generator) -> Image.Resampling:
    """The named filter; for `random` either of the two, each with probability 1/2."""
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    return _FILTERS[interpolation]


def draw_crop_box(
    width: int,
    height: int,
    *,
    scale: Tuple[float, float],
    ratio: Tuple[float, float],
    rng: np.random.Generator,
) -> CropBox:
    """Draw the box of a random resized crop (Szegedy et al., "Going Deeper with Convolutions").

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        scale: range of the box's area as a share of the image's, uniform.
        ratio: range of the box's width / height, log-uniform.
        rng: generator of this image.

    Returns:
        A box inside the image. When ten draws do not fit, the largest centred box whose aspect
        lies in `ratio`.
    """
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_CROP_TRIES):
        area = rng.uniform(*scale) * width * height
        aspect = math.exp(rng.uniform(*log_ratio))
        crop_width = round(math.sqrt(area * aspect))
        crop_height = round(math.sqrt(area / aspect))
        # timm accepts empty boxes, which images of a few pixels do draw, and they turn out black.
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height, endpoint=True))
            left = int(rng.integers(width - crop_width, endpoint=True))
            return top, left, crop_height, crop_width
    return _largest_centred_box(width, height, ratio)


def _largest_centred_box(width: int, height: int, ratio: Tuple[float, float]) -> CropBox:
    crop_width, crop_height = width, height
    if width / height < ratio[0]:
        crop_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        crop_width = round(height * ratio[1])
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def resized_crop(
    image: Image.Image, box: CropBox, *, size: int, resample: Image.Resampling
) -> Image.Image:
    """Cut `box` out, then resize it to (size, size): the filter sees nothing outside the box."""
    top, left, height, width = box
    crop = image.crop((left, top, left + width, top + height))
    return crop.resize((size, size), resample)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Random part of the image at (size, size); arguments as of `draw_crop_box`."""

    size: int
    scale: Tuple[float, float]
    ratio: Tuple[float, float]
    interpolation: str

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        box = draw_crop_box(image.width, image.height, scale=self.scale, ratio=self.ratio, rng=rng)
        resample = draw_filter(self.interpolation, rng)
        return resized_crop(image, box, size=self.size, resample=resample)


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left and right with this probability."""

    probability: float

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        if rng.random() < self.probability:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


def create_train_transforms(
    image_size: int,
    *,
    scale: Tuple[float, float],
    ratio: Tuple[float, float],
    interpolation: str,
    hflip: float,
) -> List[Transform]:
    """The training pipeline, in the order of application."""
    return [
        RandomResizedCrop(image_size, scale, ratio, interpolation),
        RandomHorizontalFlip(hflip),
    ]


@dataclass(frozen=True)
class ResizeCenterCrop:
    """The evaluation transform: shorter side to floor(image_size / crop_pct), central square.

    `crop_pct` lies in (0, 1], so the square always fits. `interpolation` `random` means bicubic.
    """

    image_size: int
    crop_pct: float
    interpolation: str

    def __call__(self, image: Image.Image) -> Image.Image:
        short = math.floor(self.image_size / self.crop_pct)
        if image.width <= image.height:
            resized = (short, int(short * image.height / image.width))
        else:
            resized = (int(short * image.width / image.height), short)
        image = image.resize(resized, _FILTERS.get(self.interpolation, _FILTERS["bicubic"]))
        left = round((image.width - self.image_size) / 2)
        top = round((image.height - self.image_size) / 2)
        return image.crop((left, top, left + self.image_size, top + self.image_size))
