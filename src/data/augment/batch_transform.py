"""What happens to a batch on the device: normalise, mix with the partner, build soft labels.

B batch, H and W image side, K classes.
"""

from __future__ import annotations

from typing import Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

Rgb = Tuple[float, float, float]


class ImageNormalize(nn.Cell):
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, (image / 255 - mean) / std per channel.

    Args:
        mean: per channel, of images scaled to [0, 1].
        std: per channel, of images scaled to [0, 1].
    """

    def __init__(self, *, mean: Rgb, std: Rgb) -> None:
        super().__init__()
        # In units of uint8, so that the subtraction starts from exact integers; and a product
        # instead of a quotient, which is slow on some devices.
        self.mean = Tensor(255.0 * np.reshape(mean, (1, 3, 1, 1)), ms.float32)
        self.inverse_std = Tensor(1.0 / (255.0 * np.reshape(std, (1, 3, 1, 1))), ms.float32)

    def construct(self, image: Tensor) -> Tensor:
        image = ops.transpose(ops.cast(image, ms.float32), (0, 3, 1, 2))  # -> (B, 3, H, W)
        return (image - self.mean) * self.inverse_std


class BatchTransform(nn.Cell):
    """The device's part of the training pipeline; shapes are static.

    construct:
        image: (B, H, W, 3) uint8.
        label: (B,) int32 in [0, K).
        mix: (B, 5) float32, see `draw_mix`.
        returns: image (B, 3, H, W) float32, normalised and mixed; target (B, K) float32, rows
            sum to 1.

    Args:
        batch_size: B.
        image_size: H = W, pixels.
        num_classes: K.
        mean: as of `ImageNormalize`.
        std: as of `ImageNormalize`.
        label_smoothing: mass spread evenly over all classes (Szegedy et al., arXiv 1512.00567,
            section 7); [0, 1).
    """

    def __init__(
        self,
        batch_size: int,
        image_size: int,
        *,
        num_classes: int,
        mean: Rgb,
        std: Rgb,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalize = ImageNormalize(mean=mean, std=std)
        # A gather: reversing the batch axis itself is 20 times slower on a CPU.
        self.partner = Tensor(np.arange(batch_size)[::-1].copy(), ms.int32)
        pixels = np.arange(image_size)
        self.columns = Tensor(pixels.reshape(1, 1, 1, image_size), ms.float32)
        self.rows = Tensor(pixels.reshape(1, 1, image_size, 1), ms.float32)
        self.classes = Tensor(np.arange(num_classes).reshape(1, num_classes), ms.int32)
        self.off_value = label_smoothing / num_classes
        self.on_value = 1.0 - label_smoothing + self.off_value

    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> Tuple[Tensor, Tensor]:
        image = self.normalize(image)  # (B, H, W, 3) -> (B, 3, H, W)
        own = self.own_share(mix)  # (B, 1, H, W)
        image = image * own + ops.gather(image, self.partner, 0) * (1.0 - own)
        target = self.one_hot(label)  # (B,) -> (B, K)
        lam = mix[:, 0:1]  # (B, 1)
        target = target * lam + ops.gather(target, self.partner, 0) * (1.0 - lam)
        return image, target

    def own_share(self, mix: Tensor) -> Tensor:
        """Share of each pixel that is the item's own: lam everywhere, or 0 in the box, else 1."""
        mix = ops.reshape(mix, (-1, 5, 1, 1))
        lam, x0, y0, x1, y1 = mix[:, 0:1], mix[:, 1:2], mix[:, 2:3], mix[:, 3:4], mix[:, 4:5]
        in_columns = ops.logical_and(self.columns >= x0, self.columns < x1)  # (B, 1, 1, W)
        in_rows = ops.logical_and(self.rows >= y0, self.rows < y1)  # (B, 1, H, 1)
        # (B, 1, H, W)
        in_box = ops.cast(in_rows, ms.float32) * ops.cast(in_columns, ms.float32)
        has_box = ops.cast((x1 - x0) * (y1 - y0) > 0.0, ms.float32)  # (B, 1, 1, 1)
        return has_box * (1.0 - in_box) + (1.0 - has_box) * lam

    def one_hot(self, label: Tensor) -> Tensor:
        """(B,) -> (B, K) float32, smoothed."""
        hit = ops.cast(ops.equal(ops.reshape(label, (-1, 1)), self.classes), ms.float32)
        return hit * self.on_value + (1.0 - hit) * self.off_value
