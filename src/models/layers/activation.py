"""Activations by name."""

from __future__ import annotations

from typing import Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...kernels import cells, selection


class Gelu(nn.GELU):
    """The exact erf form, x Phi(x) (Hendrycks and Gimpel 2016), of any shape."""

    def __init__(self) -> None:
        super().__init__(approximate=False)  # MindSpore's default is the tanh approximation
        self.native = cells.NativeGelu() if selection.is_native() else None

    def construct(self, x: Tensor) -> Tensor:
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x, ops.zeros((x.shape[-1],), ms.float32))
        return super().construct(x)


def create_activation(name: str) -> Union[Gelu, nn.ReLU]:
    """`GELU` (exact, as in all five reference implementations) or `ReLU`."""
    if name == "GELU":
        return Gelu()
    if name == "ReLU":
        return nn.ReLU()
    raise ValueError(f"nonlinearity {name!r}: expected 'GELU' or 'ReLU'")
