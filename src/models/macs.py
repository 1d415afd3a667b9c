"""Multiply-accumulates of the parts that families share.

Counted as the published tables of timm do: convolutions, linear layers and the products of the
attention; not biases, norms, activations and pooling. From the constructor's keywords alone: no
network is built, so counting all architectures takes milliseconds.
"""

from __future__ import annotations


def attention_macs(tokens: int, dim: int) -> int:
    """Of every token to every token: projections of q, k, v and the result, and both products."""
    return 4 * tokens * dim**2 + 2 * tokens**2 * dim


def mlp_macs(dim: int, ratio: float) -> int:
    """Of a perceptron with one hidden layer, for one token."""
    return 2 * dim * int(dim * ratio)
