"""Random erasing against timm 1.0.31: geometry, filling, noise."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor
from scipy.stats import chisquare, ks_1samp, ks_2samp, norm
from torch_oracle import seeded, timm, torch

from src.data.augment.batch_transform import (
    BatchTransform,
    EraseBoxes,
    ImageNormalize,
    NormalNoise,
)
from src.data.augment.random_erasing import RandomErasing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, NUM_DRAWS = 224, 20_000
timm_erasing = timm.data.random_erasing


class Canvas:
    """Stands for an image of timm's, and records its boxes: (x0, y0, x1, y1)."""

    def __init__(self):
        self.boxes = []

    def __setitem__(self, key, value):
        _, rows, columns = key
        self.boxes.append((columns.start, rows.start, columns.stop, rows.stop))


def without_empty(boxes):
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def timm_boxes(count, probability, size, num_draws):
    erasing = timm_erasing.RandomErasing(probability, max_count=count, device="cpu")
    canvases = [Canvas() for _ in range(num_draws)]
    with seeded(0):
        for canvas in canvases:
            erasing._erase(canvas, 3, size, size, torch.float32)
    return [without_empty(np.array(canvas.boxes).reshape(-1, 4)) for canvas in canvases]


def our_boxes(count, probability, size, num_draws):
    erasing = RandomErasing(size, probability, "pixel", count)
    rng = np.random.default_rng(1)
    drawn = [erasing.draw(rng) for _ in range(num_draws)]
    assert all(boxes.shape == (count, 7) and boxes.dtype == np.float32 for boxes in drawn)
    assert not any(boxes[:, 4:].any() for boxes in drawn)
    return [without_empty(boxes[:, :4]) for boxes in drawn]


@pytest.mark.parametrize(
    ("count", "probability", "size"), [(1, 0.25, SIZE), (1, 1.0, SIZE), (3, 0.8, 32), (1, 1.0, 3)]
)
def test_boxes_are_distributed_as_those_of_timm(count, probability, size):
    ours = our_boxes(count, probability, size, NUM_DRAWS)
    theirs = timm_boxes(count, probability, size, NUM_DRAWS)
    numbers = [
        np.bincount([len(b) for b in boxes], minlength=count + 1) for boxes in (ours, theirs)
    ]
    table = np.array(numbers)[:, np.sum(numbers, axis=0) > 0]
    if table.shape[1] > 1:
        pooled = table.sum(0) / 2
        assert chisquare(table.ravel(), np.tile(pooled, 2), ddof=table.shape[1]).pvalue > 1e-3
    mine, other = (np.concatenate(boxes).astype(float).T for boxes in (ours, theirs))
    for describe in (
        lambda x0, y0, x1, y1: (x1 - x0) * (y1 - y0),
        lambda x0, y0, x1, y1: (x1 - x0) / (y1 - y0),
        lambda x0, y0, x1, y1: x0,
        lambda x0, y0, x1, y1: y0,
        lambda x0, y0, x1, y1: size - x1,
        lambda x0, y0, x1, y1: size - y1,
    ):
        assert ks_2samp(describe(*mine), describe(*other)).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_boxes_of_tiny_images_are_inside(size):
    erasing = RandomErasing(size, 1.0, "pixel", 2)
    rng = np.random.default_rng(0)
    image = np.zeros((size, size, 3), np.uint8)
    for _ in range(200):
        boxes = erasing.draw(rng)
        assert boxes.min() >= 0
        assert boxes.max() <= size
        assert erasing.write_noise(image, boxes, rng).shape == image.shape


def test_colours_of_rand_are_normal():
    erasing = RandomErasing(SIZE, 1.0, "rand", 1)
    rng = np.random.default_rng(0)
    colours = np.stack([erasing.draw(rng)[0, 4:] for _ in range(NUM_DRAWS)])
    for channel in colours.T:
        assert ks_1samp(channel, norm.cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(colours.T), np.eye(3), atol=0.03)


def test_codes_become_normal_noise(mode):
    codes = np.arange(256, dtype=np.uint8)
    noise = NormalNoise()(Tensor(codes)).asnumpy().astype(np.float64)
    np.testing.assert_allclose(noise, -noise[::-1], atol=1e-6)
    assert np.mean(noise**2) == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(noise) > 0).all()
    # The bound that docs/results.md gives: half a step of 1/256 beside the closed form's error.
    below = np.abs(np.arange(256) / 256 - norm.cdf(noise))
    above = np.abs(np.arange(1, 257) / 256 - norm.cdf(noise))
    assert max(below.max(), above.max()) < 0.0035
    assert abs(np.mean(noise**4) - 3.0) < 0.2


def test_noise_passes_for_normal(mode):
    erasing = RandomErasing(SIZE, 1.0, "pixel", 1)
    rng = np.random.default_rng(5)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    boxes = erasing.draw(rng)
    x0, y0, x1, y1 = boxes[0, :4].astype(int)
    codes = erasing.write_noise(image, boxes, rng)
    noise = NormalNoise()(Tensor(codes)).asnumpy()[y0:y1, x0:x1].reshape(-1)
    assert len(noise) > 3000
    assert ks_1samp(noise[:NUM_DRAWS], norm.cdf).pvalue > 1e-3
    codes[y0:y1, x0:x1] = 0
    assert not codes.any()
    assert not image.any()


def run(mode_name, image, boxes):
    """Images normalised, and erased too; nothing is mixed."""
    batch, side = image.shape[:2]
    erase = EraseBoxes(side, max_count=boxes.shape[1], mode=mode_name)
    transform = BatchTransform(batch, side, num_classes=2, mean=MEAN, std=STD, erase=erase)
    draws = np.concatenate([[[1, 0, 0, 0, 0]] * batch, boxes.reshape(batch, -1)], axis=1)
    label = Tensor(np.zeros(batch, np.int32))
    erased, _ = transform(Tensor(image), label, Tensor(draws.astype(np.float32)))
    return ImageNormalize(mean=MEAN, std=STD)(Tensor(image)).asnumpy(), erased.asnumpy()


@pytest.mark.parametrize("mode_name", ["const", "rand", "pixel"])
def test_boxes_are_filled_as_in_timm(mode, monkeypatch, mode_name):
    side, rng = 21, np.random.default_rng(3)
    erasing = RandomErasing(side, 1.0, mode_name, 2)
    image = rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    boxes = np.stack([erasing.draw(rng) for _ in range(4)])
    image = np.stack([erasing.write_noise(i, b, rng) for i, b in zip(image, boxes)])
    plain, erased = run(mode_name, image, boxes)
    noise = NormalNoise()(Tensor(image)).asnumpy().transpose(0, 3, 1, 2)
    expected = torch.from_numpy(plain.copy())
    for i, rows in enumerate(boxes):
        for x0, y0, x1, y1, *colour in rows:
            x0, y0, x1, y1 = (int(edge) for edge in (x0, y0, x1, y1))
            # timm's filling, with its normal numbers replaced by those drawn here.
            drawn = torch.tensor(colour).reshape(3, 1, 1)
            if mode_name == "pixel":
                drawn = torch.from_numpy(noise[i, :, y0:y1, x0:x1].copy())
            monkeypatch.setattr(torch.Tensor, "normal_", lambda _, drawn=drawn: drawn)
            expected[i][:, y0:y1, x0:x1] = timm_erasing._get_pixels(
                mode_name == "pixel", mode_name == "rand", (3, y1 - y0, x1 - x0), device="cpu"
            )
            monkeypatch.undo()
    # The kernel's noise is a table made in float64; all else is the same to the bit.
    tolerance = 2e-5 if mode_name == "pixel" else 0
    np.testing.assert_allclose(erased, expected.numpy(), rtol=0, atol=tolerance)


def test_erasing_comes_after_normalisation_and_before_mixing(mode):
    side = 8
    erase = EraseBoxes(side, max_count=1, mode="const")
    transform = BatchTransform(2, side, num_classes=2, mean=MEAN, std=STD, erase=erase)
    image = np.full((2, side, side, 3), 255, np.uint8)
    mix = np.zeros((2, 5 + 7), np.float32)
    mix[:, 0] = 0.75
    mix[0, 5:9] = (0, 0, side, side)
    mixed, target = transform(Tensor(image), Tensor(np.array([0, 1], np.int32)), Tensor(mix))
    white = ((1 - np.array(MEAN)) / STD)[:, None, None] * np.ones((3, side, side))
    np.testing.assert_allclose(mixed.asnumpy(), [0.25 * white, 0.75 * white], rtol=1e-5)
    np.testing.assert_allclose(target.asnumpy(), [[0.75, 0.25], [0.25, 0.75]])
