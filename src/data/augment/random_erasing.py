"""Random erasing (Zhong et al., arXiv 1708.04896): what the host draws, and writes into the image.

Geometry is that of timm 1.0.31 (`timm/data/random_erasing.py`). timm fills after normalisation,
with numbers that uint8 does not hold; so the boxes go to the device, which fills them there
(`batch_transform.EraseBoxes`). For mode `pixel` the host writes uniform codes 0..255 into the
boxes, and the device turns code q into the normal quantile of (q + 1/2) / 256.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

# Columns of one box: x0, y0, x1, y1, pixels, upper ends exclusive; then its colour.
BOX_COLUMNS = 7
_AREA = (0.02, 1 / 3)
_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
_TRIES = 10


def _draw_box(
    image_size: int, count: int, rng: np.random.Generator
) -> Optional[Tuple[int, int, int, int]]:
    """(x0, y0, x1, y1); None: ten draws did not fit."""
    for _ in range(_TRIES):
        area = rng.uniform(*_AREA) * image_size**2 / count
        aspect = math.exp(rng.uniform(*_LOG_ASPECT))
        height = round(math.sqrt(area * aspect))
        width = round(math.sqrt(area / aspect))
        if width < image_size and height < image_size:
            top = int(rng.integers(image_size - height, endpoint=True))
            left = int(rng.integers(image_size - width, endpoint=True))
            return left, top, left + width, top + height
    return None


@dataclass(frozen=True)
class RandomErasing:
    """Boxes of noise or colour over an image.

    Attributes:
        image_size: side of the square images, pixels.
        probability: that an image is erased at all.
        mode: const: the mean colour; rand: one normal colour per box; pixel: normal noise.
        max_count: boxes per image, uniform from 1 on; they share the area of one.
    """

    image_size: int
    probability: float
    mode: str
    max_count: int

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the boxes of one image.

        Returns:
            (max_count, 7) float32: x0, y0, x1, y1; then red, green, blue in units of the normalised
            image. Rows of zeros erase nothing.
        """
        rows = np.zeros((self.max_count, BOX_COLUMNS), np.float32)
        if rng.random() >= self.probability:
            return rows
        count = int(rng.integers(1, self.max_count, endpoint=True))
        for row in rows[:count]:
            box = _draw_box(self.image_size, count, rng)
            if box is not None:
                row[:4] = box
                if self.mode == "rand":
                    row[4:] = rng.standard_normal(3)
        return rows

    def write_noise(
        self, image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The image (H, W, C) uint8 with codes in its boxes; itself, unless the mode is pixel."""
        if self.mode != "pixel" or not boxes.any():
            return image
        image = image.copy()
        for x0, y0, x1, y1 in boxes[:, :4].astype(int):
            shape = (y1 - y0, x1 - x0, image.shape[2])
            image[y0:y1, x0:x1] = rng.integers(256, size=shape, dtype=np.uint8)
        return image
