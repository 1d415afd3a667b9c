"""Transforms of single images, (H, W, 3) uint8: crop, resize, flip; a seeded generator passed in.

Semantics and pixels are those of timm 1.0.31 (`timm/data/transforms.py`,
`timm/data/transforms_factory.py`). What is drawn is separate from how it is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from .auto_augment import create_policy
from .colour import ColorJitter, RandomGaussianBlur, RandomGrayscale
from .image_ops import Rgb8
from .parts import CropBox, Part, whole
from .resampling import FILTERS, box_seen, draw_filter, resize_box
from .transposing import mirrored

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_CROP_TRIES = 10

# Arguments of `resize_box` behind the image.
_Resize = Tuple[CropBox, Tuple[int, int], Image.Resampling, Tuple[int, int, int, int]]


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


def resized_crop(image: Part, box: CropBox, *, size: int, resample: Image.Resampling) -> np.ndarray:
    """Cut `box` out, then resize it to (size, size): the filter sees nothing outside the box."""
    return resize_box(image, box, (size, size), resample, (0, 0, size, size))


@dataclass(frozen=True)
class RandomResizedCrop:
    """Random part of the image at (size, size); arguments as of `draw_crop_box`."""

    size: int
    scale: Tuple[float, float]
    ratio: Tuple[float, float]
    interpolation: str

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return DrawnCrop(self, rng)(whole(image))


class DrawnCrop:
    """A random resized crop of one image, drawn as soon as that one's size is known."""

    def __init__(self, crop: RandomResizedCrop, rng: np.random.Generator) -> None:
        self._crop, self._rng = crop, rng
        self._drawn: Optional[Tuple[CropBox, Image.Resampling]] = None

    def _draw(self, height: int, width: int) -> Tuple[CropBox, Image.Resampling]:
        if self._drawn is None:
            crop, rng = self._crop, self._rng
            box = draw_crop_box(width, height, scale=crop.scale, ratio=crop.ratio, rng=rng)
            self._drawn = box, draw_filter(crop.interpolation, rng)
        return self._drawn

    def box_seen(self, height: int, width: int) -> CropBox:
        """What it reads of an image of this size."""
        return self._draw(height, width)[0]

    def __call__(self, image: Part) -> np.ndarray:
        box, resample = self._draw(*image.size)
        return resized_crop(image, box, size=self._crop.size, resample=resample)


@dataclass(frozen=True)
class PaddedCrop:
    """Random (size, size) part of the image with `padding` black pixels on each side.

    torchvision's `Resize(size)` and `RandomCrop(size, padding)`. `padding` is less than `size`, so
    that something of the image is seen.
    """

    size: int
    padding: int
    interpolation: str

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        box = (0, 0, image.shape[0], image.shape[1])
        width, height = shorter_side_to(self.size, image.shape[1], image.shape[0])
        top = int(rng.integers(height + 2 * self.padding - self.size, endpoint=True)) - self.padding
        left = int(rng.integers(width + 2 * self.padding - self.size, endpoint=True)) - self.padding
        # Only what is seen is resized: one side may be far longer than the other.
        part = (
            max(left, 0),
            max(top, 0),
            min(left + self.size, width),
            min(top + self.size, height),
        )
        crop = np.zeros((self.size, self.size, image.shape[2]), np.uint8)
        seen = crop[part[1] - top : part[3] - top, part[0] - left : part[2] - left]
        if (height, width) == image.shape[:2]:
            seen[:] = image[part[1] : part[3], part[0] : part[2]]
        else:
            resample = draw_filter(self.interpolation, rng)
            seen[:] = resize_box(whole(image), box, (width, height), resample, part)
        return crop


def shorter_side_to(size: int, width: int, height: int) -> Tuple[int, int]:
    """Width and height of an image whose shorter side is resized to `size`, as torchvision's."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


@dataclass(frozen=True)
class RandomFlip:
    """Mirror with this probability; `axis` 1: left and right, 0: top and bottom."""

    probability: float
    axis: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.probability:
            return image
        if self.axis == 1 and image.shape[2] == 3:
            return mirrored(image)
        return np.ascontiguousarray(image[::-1] if self.axis == 0 else image[:, ::-1])


def mean_colour(mean: Sequence[float]) -> Rgb8:
    """The nearest RGB, 0..255, to a mean of images scaled to [0, 1]; of grey ones it has one."""
    of_colours = mean[:3] if len(mean) > 1 else (*mean,) * 3
    red, green, blue = (min(255, round(255 * value)) for value in of_colours)
    return red, green, blue


def create_train_transforms(
    image_size: int,
    *,
    scale: Tuple[float, float],
    ratio: Tuple[float, float],
    interpolation: str,
    crop_padding: int = 0,
    hflip: float,
    vflip: float = 0.0,
    auto_augment: Optional[str] = None,
    color_jitter: Tuple[float, ...] = (),
    color_jitter_prob: float = 1.0,
    grayscale_prob: float = 0.0,
    gaussian_blur_prob: float = 0.0,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
) -> List[Transform]:
    """The training pipeline, in the order of application; what is off is left out.

    Raises:
        UserError: `auto_augment` is not in the grammar of `parse_policy`.
    """
    transforms: List[Transform] = [RandomResizedCrop(image_size, scale, ratio, interpolation)]
    if crop_padding > 0:
        transforms = [PaddedCrop(image_size, crop_padding, interpolation)]
    if hflip > 0:
        transforms.append(RandomFlip(hflip, axis=1))
    if vflip > 0:
        transforms.append(RandomFlip(vflip, axis=0))
    if auto_augment is not None:
        fill = mean_colour(mean)
        transforms.append(
            create_policy(
                auto_augment, image_size=image_size, interpolation=interpolation, fill=fill
            )
        )
    if color_jitter:
        transforms.append(ColorJitter(color_jitter, color_jitter_prob))
    if grayscale_prob > 0:
        transforms.append(RandomGrayscale(grayscale_prob))
    if gaussian_blur_prob > 0:
        transforms.append(RandomGaussianBlur(gaussian_blur_prob))
    return transforms


@dataclass(frozen=True)
class ResizeCenterCrop:
    """The evaluation transform: resize to floor(image_size / crop_pct), cut the central square.

    `crop_pct` lies in (0, 1], so the square always fits. `interpolation` `random` means bicubic.
    `crop_mode` `center` resizes the shorter side, `squash` both.
    """

    image_size: int
    crop_pct: float
    interpolation: str
    crop_mode: str = "center"

    def _resized(self, width: int, height: int) -> Tuple[int, int]:
        short = math.floor(self.image_size / self.crop_pct)
        if self.crop_mode == "squash":
            return short, short
        return shorter_side_to(short, width, height)

    def _resize(self, height: int, width: int) -> _Resize:
        resample = FILTERS.get(self.interpolation, FILTERS["bicubic"])
        resized = self._resized(width, height)
        left, top = (round((side - self.image_size) / 2) for side in resized)
        part = (left, top, left + self.image_size, top + self.image_size)
        return (0, 0, height, width), resized, resample, part

    def box_seen(self, height: int, width: int) -> CropBox:
        """What it reads of an image of this size."""
        return box_seen(*self._resize(height, width))

    def __call__(self, image: Part) -> np.ndarray:
        return resize_box(image, *self._resize(*image.size))
