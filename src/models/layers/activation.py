"""Activations by name."""

from __future__ import annotations

import math
from typing import Callable, Dict, Optional, Tuple

from mindspore import Tensor, nn, ops

from ...overrides import Overridable

# Of the normal distribution. MindSpore 2.0 computes them as integers inside a graph.
_ROOT_OF_HALF = math.sqrt(0.5)
_DENSITY_AT_0 = 1.0 / math.sqrt(2.0 * math.pi)


class Gelu(Overridable, nn.GELU):
    """The exact erf form, x Phi(x) (Hendrycks and Gimpel 2016), of any shape."""

    def __init__(self) -> None:
        super().__init__(approximate=False)  # MindSpore's default is the tanh approximation
        self.lean: Optional[nn.Cell] = None
        self.is_product = False

    def write_as_product(self) -> None:
        """In training multiplies by the root of 1/2 where MindSpore's form divides by that of 2.

        The kernel of a division on a CPU keeps two indices of 8 bytes for each element (2.10).
        """
        self.is_product = True

    def keep_input_only(self) -> None:
        """Lets the gradient start from the input instead of the intermediate results."""
        self.lean = _LeanGelu()

    def construct(self, x: Tensor) -> Tensor:
        if self.lean is not None:
            return self.lean(x)
        if self.is_product and self.training:
            return x * _normal_cdf(x)
        return super().construct(x)


def write_gelus_as_products(network: nn.Cell) -> None:
    """See `Gelu.write_as_product`."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, Gelu):
            cell.write_as_product()


class _LeanGelu(nn.Cell):
    """float32 of any shape; 4 bytes an element are kept for the gradient instead of 12."""

    def construct(self, x: Tensor) -> Tensor:
        return x * _normal_cdf(x)

    def bprop(self, x: Tensor, _out: Tensor, gradient: Tensor) -> Tuple[Tensor]:
        density = ops.exp(-0.5 * ops.square(x)) * _DENSITY_AT_0
        return (gradient * (_normal_cdf(x) + x * density),)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + ops.erf(x * _ROOT_OF_HALF))


# By the names that `nonlinearity` takes.
ACTIVATIONS: Dict[str, Callable[[], nn.Cell]] = {
    "GELU": Gelu,
    "ReLU": nn.ReLU,
    "GELU_tanh": nn.GELU,  # MindSpore's default is the approximation
    "SiLU": nn.SiLU,
}


def create_activation(name: str) -> nn.Cell:
    """`GELU` (exact, as in all five reference implementations) or another of ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise ValueError(f"nonlinearity {name!r}: expected {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
