"""What surrounds the network in a training step, on the kernels."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ..data.augment.batch_transform import BatchTransform, ImageNormalize
from ..optim.optimizer import AdamW
from ..optim.tensors import GlobalNorm, Snapshot, Tensors
from .cells import constant, overrides
from .operators import in_place, operator, planes

# That images.cc is written for.
_CHANNELS = 3


@overrides(ImageNormalize, normalize=lambda: operator("normalize_images", planes))
class NativeImageNormalize(ImageNormalize):
    def construct(self, image: Tensor) -> Tensor:
        if image.shape[3] != _CHANNELS:
            return super().construct(image)
        return self.normalize(image, self.mean, self.inverse_std)


@overrides(BatchTransform, mix_images=lambda: operator("mix_images", planes))
class NativeBatchTransform(BatchTransform):
    def __init__(self, *sizes: int, **keywords: Any) -> None:
        super().__init__(*sizes, **keywords)
        table = self.erase.noise.table() if self.erase and self.erase.is_noise else np.zeros(1)
        self.noise = Tensor(table, ms.float32)

    def mixed(self, codes: Tensor, mix: Tensor) -> Tensor:
        if codes.shape[3] != _CHANNELS:
            return super().mixed(codes, mix)
        mean, inverse_std = self.normalize.mean, self.normalize.inverse_std
        return self.mix_images(codes, mean, inverse_std, self.noise, mix)


@overrides(GlobalNorm, norm=lambda: operator("global_norm", lambda *_: [1]))
class NativeGlobalNorm(GlobalNorm):
    def construct(self, tensors: Tensors) -> Tensor:
        return self.norm(*tensors).reshape(())


@overrides(
    Snapshot,
    keep=lambda: operator("keep", lambda *shapes: [int(sum(map(np.prod, shapes)))]),
    put_back=lambda: in_place("put_back"),
)
class NativeSnapshot(Snapshot):
    def take(self) -> Tensors:
        return (self.keep(*self.parameters),) if self.parameters else ()

    def restore(self, values: Tensors) -> Tensors:
        return (self.put_back(values[0], *self.parameters),) if self.parameters else ()


@overrides(AdamW, adamw=lambda: in_place("adamw"))
class NativeAdamW(AdamW):
    def __init__(self, parameters: Any, decay: Any, *, weight_decay: float, **others: Any) -> None:
        super().__init__(parameters, decay, weight_decay=weight_decay, **others)
        self.weight_decay = weight_decay
        self.decays, self.scales = constant(*map(float, decay)), constant(*self.lr_scale)

    def update(self, grads: Tensors, lr: Tensor, power1: Tensor, power2: Tensor) -> Tensors:
        fixed = self.beta1, self.beta2, self.eps
        root2 = ops.sqrt(1.0 - power2)
        settings = (lr, fixed[0], fixed[1], fixed[2], 1.0 - power1, root2, self.weight_decay)
        settings = ops.stack([ops.cast(value, ms.float32) for value in settings])
        weights, first, second = self.parameters, self.moment1, self.moment2
        # Adding the tuples first would compile to a node for each of their elements.
        return (self.adamw(settings, self.decays, self.scales, *weights, *first, *second, *grads),)
