"""Activations by name."""

from __future__ import annotations

from mindspore import nn


def create_activation(name: str) -> nn.Cell:
    """`GELU` (the exact erf form, as in all five reference implementations) or `ReLU`."""
    if name == "GELU":
        return nn.GELU(approximate=False)  # MindSpore's default is the tanh approximation
    if name == "ReLU":
        return nn.ReLU()
    raise ValueError(f"nonlinearity {name!r}: expected 'GELU' or 'ReLU'")
