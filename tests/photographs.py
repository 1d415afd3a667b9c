"""Five real photographs, from packages that the tests have anyway."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any, List

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

# (width, height): square, wide, upright, odd, small
SIZES = [(224, 224), (160, 120), (90, 131), (97, 61), (32, 32)]


def load_photographs() -> List[Image.Image]:
    """RGB: two of scikit-learn, three of scikit-image, which need not be importable."""
    images = [Image.fromarray(array) for array in load_sample_images().images]
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("three of the photographs come with scikit-image")
    for name in ("astronaut", "chelsea", "coffee"):
        with Image.open(Path(package.origin).parent / "data" / f"{name}.png") as image:
            images.append(image.convert("RGB"))
    return images


def sized_photographs() -> List[Image.Image]:
    """The photographs at the five SIZES."""
    return [image.resize(size) for image, size in zip(load_photographs(), SIZES)]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A file of the image in a format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
