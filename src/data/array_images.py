"""Images that fit into memory: one array, as small data sets are published."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import List

import numpy as np
from PIL import Image

from .augment.parts import Part, whole
from .channels import with_channels
from .decode import BoxSeen, Decoder
from .pixel_budget import PixelsInFlight


@dataclass(frozen=True)
class ArrayImages:
    """One split in memory.

    Attributes:
        folder: where the files are, or folders with them.
        class_names: the position is the label.
        images: (N, H, W, 3) uint8, RGB, or (N, H, W) uint8, grey.
        labels: (N,) int32.
        channels: of the network's images.
    """

    folder: Path
    class_names: List[str]
    images: np.ndarray = field(repr=False)
    labels: np.ndarray
    channels: int = 3

    def __len__(self) -> int:
        return len(self.images)

    def file_name(self, index: int) -> str:
        """How messages name an image."""
        return f"image {index}"

    @property
    def decoder(self) -> Decoder:
        """Reads the files of `read_bytes`."""
        return Decoder()

    def read_bytes(self, index: int) -> bytes:
        """An image as a PNG file, which keeps every pixel; a grey one stays grey."""
        file = io.BytesIO()
        Image.fromarray(self.images[index]).save(file, "PNG")
        return file.getvalue()

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB, or as `with_channels` has it; a grey image has three equal ones."""
        image = np.ascontiguousarray(self.images[index])
        with PixelsInFlight() as share:
            share.note(image.data)
        colours = image if image.ndim == 3 else np.stack([image] * 3, axis=-1)
        return with_channels(colours, self.channels)

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """All of an image: it is small."""
        return whole(self.read(index))
