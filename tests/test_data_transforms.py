"""Crops, resizes and flips against timm 1.0.31, pixel for pixel on photographs."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest, ks_2samp
from sklearn.datasets import load_sample_images
from torch_oracle import seeded, timm, torch, torchvision

from src.data.augment.parts import whole
from src.data.augment.transforms import (
    PaddedCrop,
    RandomFlip,
    RandomResizedCrop,
    ResizeCenterCrop,
    draw_crop_box,
    draw_filter,
    resized_crop,
)
from src.data.sampler import sample_generator

RandomResizedCropAndInterpolation = timm.data.transforms.RandomResizedCropAndInterpolation
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
NUM_DRAWS = 20_000
# (width, height): as loaded, upright, ImageNet's mean, odd, panorama, column, tiny
SIZES = [(640, 427), (427, 640), (500, 375), (97, 61), (1200, 90), (33, 700), (8, 8), (3, 5)]


@pytest.fixture(scope="module")
def photographs() -> List[Image.Image]:
    china, flower = (Image.fromarray(array) for array in load_sample_images().images)
    return [(china, flower)[i % 2].resize(size) for i, size in enumerate(SIZES)]


def timm_crop(image: Image.Image, box: Tuple[int, ...], size: int, name: str) -> np.ndarray:
    crop = RandomResizedCropAndInterpolation(size, interpolation=name)
    crop.get_params = lambda *_: box  # type: ignore[method-assign]
    return np.asarray(crop(image))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 97, 224])
def test_resized_crop_has_the_pixels_of_timm(photographs, name, size):
    rng = np.random.default_rng(0)
    for image in photographs:
        for _ in range(3):
            box = draw_crop_box(image.width, image.height, scale=SCALE, ratio=RATIO, rng=rng)
            ours = resized_crop(
                whole(np.asarray(image)), box, size=size, resample=draw_filter(name, rng)
            )
            np.testing.assert_array_equal(ours, timm_crop(image, box, size, name))


@pytest.mark.parametrize(("image_width", "image_height"), [(500, 375), (12, 9)])
def test_crop_boxes_are_distributed_as_those_of_timm(image_width, image_height):
    image = Image.new("RGB", (image_width, image_height))
    # As a run draws them: a generator for every image.
    ours = [
        draw_crop_box(
            image_width, image_height, scale=SCALE, ratio=RATIO, rng=sample_generator(1, 0, index)
        )
        for index in range(NUM_DRAWS)
    ]
    with seeded(1):
        theirs = [
            RandomResizedCropAndInterpolation.get_params(image, SCALE, RATIO)
            for _ in range(NUM_DRAWS)
        ]
    for name, describe in {
        "area": lambda top, left, height, width: height * width,
        "aspect": lambda top, left, height, width: width / height,
        "top": lambda top, left, height, width: top,
        "left": lambda top, left, height, width: left,
        "bottom margin": lambda top, left, height, width: image_height - top - height,
        "right margin": lambda top, left, height, width: image_width - left - width,
    }.items():
        mine, other = (describe(*np.array(boxes, np.float64).T) for boxes in (ours, theirs))
        assert ks_2samp(mine, other).pvalue > 1e-3, name


@pytest.mark.parametrize("size", [(1200, 91), (91, 1200), (1203, 90), (500, 400)])
def test_box_that_never_fits_falls_back_as_in_timm(size):
    scale = (1.0, 1.0)
    ours = draw_crop_box(*size, scale=scale, ratio=RATIO, rng=np.random.default_rng(2))
    with seeded(2):
        theirs = RandomResizedCropAndInterpolation.get_params(Image.new("L", size), scale, RATIO)
    assert ours == theirs


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (8, 8), (12, 9)])
def test_boxes_of_tiny_images_are_inside_and_not_empty(size):
    rng = np.random.default_rng(3)
    boxes = [draw_crop_box(*size, scale=SCALE, ratio=RATIO, rng=rng) for _ in range(500)]
    top, left, height, width = np.array(boxes).T
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) > 0
    assert (left + width).max() <= size[0]
    assert (top + height).max() <= size[1]


def test_image_of_one_pixel_keeps_its_colour():
    crop = RandomResizedCrop(8, SCALE, RATIO, "bicubic")
    for seed in range(20):
        image = crop(np.full((1, 1, 3), (250, 120, 3), np.uint8), np.random.default_rng(seed))
        np.testing.assert_array_equal(image, np.full((8, 8, 3), (250, 120, 3)))


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(("size", "padding"), [(32, 4), (28, 0), (91, 90)])
def test_padded_crop_has_the_pixels_of_torchvision(monkeypatch, photographs, index, size, padding):
    image = photographs[index].resize((size, size)) if index == 0 else photographs[index]
    resize = torchvision.transforms.Resize(size, torchvision.transforms.InterpolationMode.BICUBIC)
    for seed in range(6):
        ours = PaddedCrop(size, padding, "bicubic")(np.asarray(image), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(
            torch, "randint", lambda low, high, size, rng=rng: torch.tensor(rng.integers(low, high))
        )
        theirs = torchvision.transforms.RandomCrop(size, padding)(resize(image))
        monkeypatch.undo()
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_padded_crop_of_a_line_does_not_unroll_it():
    line = np.full((1, 2_000_000, 3), 7, np.uint8)
    crop = PaddedCrop(224, 4, "bicubic")(line, np.random.default_rng(0))
    assert crop.shape == (224, 224, 3)
    assert set(np.unique(crop)) <= {0, 7}


def test_random_interpolation_takes_both_filters_equally_often(photographs):
    rng = np.random.default_rng(3)
    drawn = [draw_filter("random", rng) for _ in range(NUM_DRAWS)]
    assert set(drawn) == {Image.Resampling.BILINEAR, Image.Resampling.BICUBIC}
    assert binomtest(drawn.count(Image.Resampling.BICUBIC), NUM_DRAWS).pvalue > 1e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_flip_mirrors_with_its_probability(photographs, axis):
    image = np.asarray(photographs[3])
    mirrored = np.flip(image, axis)
    rng = np.random.default_rng(4)
    np.testing.assert_array_equal(RandomFlip(1.0, axis)(image, rng), mirrored)
    assert RandomFlip(0.0, axis)(image, rng) is image
    image = image[:4, :4]
    flips = sum(RandomFlip(0.3, axis)(image, rng) is not image for _ in range(NUM_DRAWS))
    assert binomtest(flips, NUM_DRAWS, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 0.96, 1.0])
@pytest.mark.parametrize("size", [32, 97, 224])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_evaluation_has_the_pixels_of_timm(photographs, size, crop_pct, name, crop_mode):
    theirs = timm.data.create_transform(
        size, interpolation=name, crop_pct=crop_pct, crop_mode=crop_mode, normalize=False
    )
    ours = ResizeCenterCrop(size, crop_pct, name, crop_mode)
    for image in photographs:
        np.testing.assert_array_equal(
            ours(whole(np.asarray(image))), theirs(image).numpy().transpose(1, 2, 0)
        )


def test_evaluation_with_random_interpolation_is_bicubic(photographs):
    bicubic, random = (ResizeCenterCrop(64, 0.875, name) for name in ("bicubic", "random"))
    image = whole(np.asarray(photographs[0]))
    np.testing.assert_array_equal(random(image), bicubic(image))
