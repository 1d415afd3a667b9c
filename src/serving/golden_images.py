"""Five images that show what a program does otherwise: sizes, filters, channels, turns, alpha."""

from __future__ import annotations

import io
from typing import Any, Dict, List, NamedTuple

import numpy as np
from PIL import Image

_ORIENTATION, _QUARTER_TURN = 274, 6  # of EXIF
_SPOTS, _NOISE = 14, 5.0


class ImageFile(NamedTuple):
    """An image as the bytes of a file."""

    name: str
    content: bytes


def golden_images(image_size: int) -> List[ImageFile]:
    """Of either format: larger and smaller than `image_size`, wide and upright, one on its side,
    one half transparent. They are drawn, the same ones each time, and coloured like photographs.
    """
    plain: Dict[str, Any] = {"quality": 90, "subsampling": "4:2:0"}
    turned = Image.Exif()
    turned[_ORIENTATION] = _QUARTER_TURN
    files = [
        ("wide.jpg", 1.7, 1.25, plain),
        ("upright.jpg", 1.2, 1.9, {"quality": 95, "subsampling": "4:4:4", "progressive": True}),
        ("turned.jpg", 1.5, 1.1, {**plain, "exif": turned}),
        ("transparent.png", 1.15, 1.45, {}),
        ("small.png", 0.8, 0.6, {}),
    ]
    found = []
    for seed, (name, across, down, options) in enumerate(files):
        width, height = (max(8, round(share * image_size)) for share in (across, down))
        image = Image.fromarray(_drawn(width, height, seed))
        if name == "transparent.png":
            image.putalpha(_fading(width, height))
        stream = io.BytesIO()
        image.save(stream, "JPEG" if name.endswith(".jpg") else "PNG", **options)
        found.append(ImageFile(name, stream.getvalue()))
    return found


def _drawn(width: int, height: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: shaded spots before a sky, with ripples and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)  # (H, W) each
    colours = rng.uniform(0, 255, (_SPOTS + 2, 3))
    pixels = colours[0] + y[..., None] * (colours[1] - colours[0])  # (H, W, 3)
    for colour in colours[2:]:
        left, top = rng.uniform(0, width / max(width, height)), rng.uniform(0, y.max())
        wide, high = rng.uniform(0.04, 0.3, 2)
        distance = ((x - left) / wide) ** 2 + ((y - top) / high) ** 2
        shade = np.where(distance < 1, 1 - 0.5 * distance, 0)[..., None]
        pixels += (shade > 0) * (shade * colour - pixels)
    angle, length = rng.uniform(0, np.pi), rng.uniform(30, 90)
    ripples = np.sin(length * (x * np.cos(angle) + y * np.sin(angle)))
    pixels += 18 * ripples[..., None] + rng.normal(0, _NOISE, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _fading(width: int, height: int) -> Image.Image:
    """Opacity that falls from left to right, (H, W) uint8."""
    row = np.rint(np.linspace(255, 0, width)).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None], height, axis=0))
