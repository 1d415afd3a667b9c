"""What happens to a batch on the device: normalise, erase, mix with the partner, soft labels.

B batch, H and W image side, C channels, K classes, R boxes of random erasing per image.
"""

from __future__ import annotations

import math
from typing import Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ...overrides import Overridable
from .random_erasing import BOX_COLUMNS

MIX_COLUMNS = 5

PerChannel = Sequence[float]


class ImageNormalize(Overridable, nn.Cell):
    """(B, H, W, C) uint8 -> (B, C, H, W) float32, (image / 255 - mean) / std per channel.

    Args:
        mean: per channel, of images scaled to [0, 1].
        std: per channel, of images scaled to [0, 1].
    """

    def __init__(self, *, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        # In units of uint8, so that the subtraction starts from exact integers; and a product
        # instead of a quotient, which is slow on some devices.
        self.mean = Tensor(255.0 * np.reshape(mean, (1, -1, 1, 1)), ms.float32)
        self.inverse_std = Tensor(1.0 / (255.0 * np.reshape(std, (1, -1, 1, 1))), ms.float32)

    def construct(self, image: Tensor) -> Tensor:
        # Moves bytes, not floats; and MindSpore Lite 2.0 refuses a graph that casts first.
        image = ops.transpose(image, (0, 3, 1, 2))  # -> (B, C, H, W)
        return (ops.cast(image, ms.float32) - self.mean) * self.inverse_std


def normalize_pixels(pixels: np.ndarray, *, mean: PerChannel, std: PerChannel) -> np.ndarray:
    """What `ImageNormalize` computes, to the bit, in NumPy: (..., H, W, C) -> (..., C, H, W)."""
    planes = np.moveaxis(pixels, -1, -3).astype(np.float32)  # (..., H, W, C) -> (..., C, H, W)
    shape = (-1, 1, 1)
    centre = np.reshape(255.0 * np.array(mean), shape).astype(np.float32)
    scale = np.reshape(1.0 / (255.0 * np.array(std)), shape).astype(np.float32)
    return np.ascontiguousarray((planes - centre) * scale)


class _Grid(nn.Cell):
    """Which pixels of a square image lie in a box."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        pixels = np.arange(image_size)
        self.columns = Tensor(pixels.reshape(1, 1, 1, image_size), ms.float32)
        self.rows = Tensor(pixels.reshape(1, 1, image_size, 1), ms.float32)

    def construct(self, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
        """Edges (B, 1, 1, 1), upper ones exclusive -> (B, 1, H, W) float32, 1 inside, else 0."""
        in_columns = ops.logical_and(self.columns >= x0, self.columns < x1)  # (B, 1, 1, W)
        in_rows = ops.logical_and(self.rows >= y0, self.rows < y1)  # (B, 1, H, 1)
        return ops.cast(in_rows, ms.float32) * ops.cast(in_columns, ms.float32)


class NormalNoise(nn.Cell):
    """uint8 codes q -> normal quantiles of (q + 1/2) / 256, float32; over all codes variance 1.

    The quantile is Winitzki's closed form ("A handy approximation for the error function and its
    inverse", 2008), within 0.01: element-wise, where a table would be a gather of every pixel.
    """

    _A = 0.147

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.scale = 1.0 / math.sqrt(float(np.mean(self._quantile(np.arange(256.0)) ** 2)))

    def _quantile(self, codes: np.ndarray) -> np.ndarray:
        u = (codes - 127.5) / 128.0
        log = np.log(1.0 - u * u)
        middle = 2.0 / (math.pi * self._A) + log / 2.0
        root = np.sqrt(middle * middle - log / self._A) - middle
        return self.scale * np.sign(u) * np.sqrt(2.0 * root)

    def table(self) -> np.ndarray:
        """The result for the codes 0 to 255, (256,) float32."""
        return self._quantile(np.arange(256.0)).astype(np.float32)

    def construct(self, codes: Tensor) -> Tensor:
        u = (ops.cast(codes, ms.float32) - 127.5) * (1.0 / 128.0)
        log = ops.log(1.0 - u * u)
        middle = log * 0.5 + 2.0 / (math.pi * self._A)
        root = ops.sqrt(middle * middle - log * (1.0 / self._A)) - middle
        return ops.sign(u) * ops.sqrt(root * (2.0 * self.scale * self.scale))


class EraseBoxes(nn.Cell):
    """Fills the boxes of random erasing in normalised images, later boxes over earlier ones.

    construct:
        image: (B, C, H, W) float32, normalised.
        codes: (B, H, W, C) uint8, the images before; they hold noise in the boxes of mode pixel.
        boxes: (B, R * 7) float32, see `RandomErasing.draw`.
        returns: (B, C, H, W) float32.

    Args:
        image_size: H = W, pixels.
        max_count: R.
        mode: const or rand: the box's colour; pixel: normal noise.
        channels: C; with 4 mode const and pixel only.
    """

    def __init__(self, image_size: int, *, max_count: int, mode: str, channels: int = 3) -> None:
        super().__init__()
        self.max_count = max_count
        self.is_noise = mode == "pixel"
        # Of 4 channels the one colour is 0 everywhere.
        self.colours_end = BOX_COLUMNS if channels == 3 else BOX_COLUMNS - 2
        self.noise = NormalNoise()
        self.grid = _Grid(image_size)

    def construct(self, image: Tensor, codes: Tensor, boxes: Tensor) -> Tensor:
        boxes = ops.reshape(boxes, (-1, self.max_count, BOX_COLUMNS, 1, 1))
        fill = image
        if self.is_noise:
            fill = ops.transpose(self.noise(codes), (0, 3, 1, 2))  # -> (B, C, H, W)
        for k in range(self.max_count):
            box = boxes[:, k]  # (B, 7, 1, 1)
            inside = self.grid(box[:, 0:1], box[:, 1:2], box[:, 2:3], box[:, 3:4])
            if not self.is_noise:
                fill = box[:, 4 : self.colours_end]  # (B, 3, 1, 1) or (B, 1, 1, 1)
            image = image * (1.0 - inside) + fill * inside
        return image


class BatchTransform(Overridable, nn.Cell):
    """The device's part of the training pipeline; shapes are static.

    construct:
        image: (B, H, W, C) uint8.
        label: (B,) int32 in [0, K); of images with several labels (B, K) int32, 1 for each, else 0.
        mix: (B, 5) float32, see `draw_mix`; with random erasing (B, 5 + R * 7), see
            `RandomErasing.draw`.
        returns: image (B, C, H, W) float32, normalised and mixed; target (B, K) float32, rows
            sum to 1 unless images have several labels.

    Args:
        batch_size: B.
        image_size: H = W, pixels.
        num_classes: K.
        mean: as of `ImageNormalize`.
        std: as of `ImageNormalize`.
        label_smoothing: mass spread evenly over all classes (Szegedy et al., arXiv 1512.00567,
            section 7); of several labels over the two answers of each; [0, 1).
        is_multi_label: images have several labels.
        erase: random erasing, between normalisation and mixing; None: off.
    """

    def __init__(
        self,
        batch_size: int,
        image_size: int,
        *,
        num_classes: int,
        mean: PerChannel,
        std: PerChannel,
        label_smoothing: float = 0.0,
        is_multi_label: bool = False,
        erase: Optional[EraseBoxes] = None,
    ) -> None:
        super().__init__()
        self.erase = erase
        self.grid = _Grid(image_size)
        self.normalize = ImageNormalize(mean=mean, std=std)
        # A gather: reversing the batch axis itself is 20 times slower on a CPU.
        self.partner = Tensor(np.arange(batch_size)[::-1].copy(), ms.int32)
        self.classes = Tensor(np.arange(num_classes).reshape(1, num_classes), ms.int32)
        self.is_multi_label = is_multi_label
        self.off_value = label_smoothing / (2 if is_multi_label else num_classes)
        self.on_value = 1.0 - label_smoothing + self.off_value

    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> Tuple[Tensor, Tensor]:
        image = self.mixed(image, mix)
        target = self.target(label)  # (B,) or (B, K) -> (B, K)
        lam = mix[:, 0:1]  # (B, 1)
        target = target * lam + ops.gather(target, self.partner, 0) * (1.0 - lam)
        return image, target

    def mixed(self, codes: Tensor, mix: Tensor) -> Tensor:
        """(B, H, W, C) uint8 -> (B, C, H, W) float32: normalised, erased and mixed."""
        image = self.normalize(codes)  # (B, H, W, C) -> (B, C, H, W)
        if self.erase is not None:
            image = self.erase(image, codes, mix[:, MIX_COLUMNS:])
        own = self.own_share(mix[:, :MIX_COLUMNS])  # (B, 1, H, W)
        return image * own + ops.gather(image, self.partner, 0) * (1.0 - own)

    def own_share(self, mix: Tensor) -> Tensor:
        """Share of each pixel that is the item's own: lam everywhere, or 0 in the box, else 1."""
        mix = ops.reshape(mix, (-1, MIX_COLUMNS, 1, 1))
        lam, x0, y0, x1, y1 = mix[:, 0:1], mix[:, 1:2], mix[:, 2:3], mix[:, 3:4], mix[:, 4:5]
        in_box = self.grid(x0, y0, x1, y1)  # (B, 1, H, W)
        has_box = ops.cast((x1 - x0) * (y1 - y0) > 0.0, ms.float32)  # (B, 1, 1, 1)
        return has_box * (1.0 - in_box) + (1.0 - has_box) * lam

    def target(self, label: Tensor) -> Tensor:
        """(B,) or (B, K) -> (B, K) float32, smoothed."""
        if not self.is_multi_label:
            label = ops.equal(ops.reshape(label, (-1, 1)), self.classes)
        hit = ops.cast(label, ms.float32)
        return hit * self.on_value + (1.0 - hit) * self.off_value
