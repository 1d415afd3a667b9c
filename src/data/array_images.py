"""Images that fit into memory: one array, as small data sets are published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List

import numpy as np


@dataclass(frozen=True)
class ArrayImages:
    """One split in memory.

    Attributes:
        class_names: the position is the label.
        images: (N, H, W, 3) uint8, RGB, or (N, H, W) uint8, grey.
        labels: (N,) int32.
    """

    class_names: List[str]
    images: np.ndarray = field(repr=False)
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def file_name(self, index: int) -> str:
        """How messages name an image."""
        return f"image {index}"

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB; three equal channels of a grey image."""
        image = self.images[index]
        return np.ascontiguousarray(image if image.ndim == 3 else np.stack([image] * 3, axis=-1))
