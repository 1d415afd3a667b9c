"""Activations by name."""

from __future__ import annotations

from typing import Union

from mindspore import nn

from ...overrides import Overridable


class Gelu(Overridable, nn.GELU):
    """The exact erf form, x Phi(x) (Hendrycks and Gimpel 2016), of any shape."""

    def __init__(self) -> None:
        super().__init__(approximate=False)  # MindSpore's default is the tanh approximation


def create_activation(name: str) -> Union[Gelu, nn.ReLU]:
    """`GELU` (exact, as in all five reference implementations) or `ReLU`."""
    if name == "GELU":
        return Gelu()
    if name == "ReLU":
        return nn.ReLU()
    raise ValueError(f"nonlinearity {name!r}: expected 'GELU' or 'ReLU'")
