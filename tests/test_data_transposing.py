"""Transposed and mirrored images of every small size, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from src.data.augment.transposing import columns_of, mirrored, rows_of, transposed

SIZES = [(1, 1), (1, 9), (5, 4), (6, 6), (4, 7), (7, 4), (16, 21), (23, 18), (40, 39)]


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_images(height: int, width: int) -> None:
    image = image_of(height, width)
    np.testing.assert_array_equal(transposed(image), image.transpose(1, 0, 2))
    np.testing.assert_array_equal(mirrored(image), image[:, ::-1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_part_as_columns_and_back(height: int, width: int) -> None:
    image, rng = image_of(height, width), np.random.default_rng(1)
    flat = image.reshape(height, 3 * width)
    for _ in range(20):
        top, left = rng.integers(height), rng.integers(width)
        bottom, right = rng.integers(top, height) + 1, rng.integers(left, width) + 1
        part = image[top:bottom, left:right]
        columns = columns_of(flat, top, bottom, left, right)
        pixels = columns.view(np.uint8).reshape(right - left, bottom - top, 4)
        np.testing.assert_array_equal(pixels[..., :3], part.transpose(1, 0, 2))
        assert not pixels[..., 3].any()
        np.testing.assert_array_equal(rows_of(columns), part.reshape(bottom - top, -1))
