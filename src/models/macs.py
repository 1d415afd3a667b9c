"""Multiply-accumulates of one forward pass, from the constructor's keywords alone.

Counted as the published tables of timm do: convolutions, linear layers and the products of the
attention; not biases, norms, activations and pooling. No network is built, so counting all
architectures takes milliseconds.

Legend: N tokens or positions of a map, C channels, K classes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional, Type

from mindspore import nn

from . import registry
from .cct import CCT
from .convmixer import ConvMixer
from .convnext import ConvNeXt
from .deit import DeiT, DistilledDeiT
from .twins import STRIDES, Twins


def count_macs(
    name: str,
    *,
    img_size: Optional[int] = None,
    num_classes: Optional[int] = None,
    in_chans: Optional[int] = None,
    **keywords: Any,
) -> int:
    """Multiply-accumulates for one image.

    Args:
        name: as of `create_model`, as are the others; None leaves the architecture's own value.

    Raises:
        UserError: an unknown name or keyword.
    """
    constructor, values = registry.resolve(
        name, img_size=img_size, num_classes=num_classes, in_chans=in_chans, **keywords
    )
    return _COUNTERS[constructor](SimpleNamespace(**values))


def _convmixer(model: SimpleNamespace) -> int:
    positions = (model.img_size // model.patch_size) ** 2
    stem = model.in_chans * model.patch_size**2 * model.dim
    block = model.kernel_size**2 * model.dim + model.dim**2
    return positions * (stem + model.depth * block) + model.dim * model.num_classes


def _convnext(model: SimpleNamespace) -> int:
    side = model.img_size // 4
    total = side**2 * 16 * model.in_chans * model.dims[0]
    for in_dim, dim, depth in zip([model.dims[0], *model.dims], model.dims, model.depths):
        if in_dim != dim:
            side //= 2
            total += side**2 * 4 * in_dim * dim
        total += side**2 * depth * (49 * dim + 8 * dim**2)
    return total + model.dims[-1] * model.num_classes


def _attention(tokens: int, dim: int) -> int:
    """Of every token to every token: projections of q, k, v and the result, and both products."""
    return 4 * tokens * dim**2 + 2 * tokens**2 * dim


def _mlp(dim: int, ratio: float) -> int:
    """For one token."""
    return 2 * dim * int(dim * ratio)


def _deit(model: SimpleNamespace, *, num_prefix_tokens: int = 1) -> int:
    patches = (model.img_size // model.patch_size) ** 2
    tokens, dim = patches + num_prefix_tokens, model.embed_dim
    stem = patches * model.in_chans * model.patch_size**2 * dim
    block = _attention(tokens, dim) + tokens * _mlp(dim, model.mlp_ratio)
    # One head per token before the patches.
    return stem + model.depth * block + num_prefix_tokens * dim * model.num_classes


def _distilled_deit(model: SimpleNamespace) -> int:
    return _deit(model, num_prefix_tokens=2)


def _cct(model: SimpleNamespace) -> int:
    dim, kernel_size = model.embedding_dim, model.kernel_size
    side, total, in_channels = model.img_size, 0, model.in_chans
    for width in [64] * (model.n_conv_layers - 1) + [dim]:
        stride, padding = kernel_size, 0
        if model.n_conv_layers > 0:
            stride, padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        side = (side + 2 * padding - kernel_size) // stride + 1
        total += side**2 * kernel_size**2 * in_channels * width
        in_channels = width
        if model.n_conv_layers > 0:
            side = (side - 1) // 2 + 1
    tokens = side**2 + (0 if model.seq_pool else 1)
    block = _attention(tokens, dim) + tokens * _mlp(dim, model.mlp_ratio)
    # SeqPool: one weight per token, and the weighted sum.
    pool = 2 * tokens * dim if model.seq_pool else 0
    return total + model.num_layers * block + pool + dim * model.num_classes


def _twins(model: SimpleNamespace) -> int:
    side, in_dim, total = model.img_size, model.in_chans, 0
    for stage, (dim, depth) in enumerate(zip(model.embed_dims, model.depths)):
        side //= STRIDES[stage]
        total += side**2 * STRIDES[stage] ** 2 * in_dim * dim  # patch embedding
        total += side**2 * 9 * dim  # position encoder
        total += depth * side**2 * _mlp(dim, model.mlp_ratios[stage])
        in_windows = 0 if model.window_size is None else (depth + 1) // 2
        if in_windows:
            total += in_windows * _window_attention(side, dim, model.window_size)
        sub_sampled = _sub_sampled_attention(side, dim, model.sr_ratios[stage])
        total += (depth - in_windows) * sub_sampled
        in_dim = dim
    return total + in_dim * model.num_classes


def _window_attention(side: int, dim: int, window_size: int) -> int:
    """Padding takes part, but for the last projection."""
    windows, padded = -(-side // window_size), -side % window_size + side
    whole = windows**2 * _attention(window_size**2, dim)
    return whole - (padded**2 - side**2) * dim**2


def _sub_sampled_attention(side: int, dim: int, sr_ratio: int) -> int:
    queries, keys = side**2, (side // sr_ratio) ** 2
    convolution = keys * sr_ratio**2 * dim**2 if sr_ratio > 1 else 0
    return 2 * (queries + keys) * dim**2 + convolution + 2 * queries * keys * dim


_COUNTERS: Dict[Type[nn.Cell], Callable[[SimpleNamespace], int]] = {
    CCT: _cct,
    ConvMixer: _convmixer,
    ConvNeXt: _convnext,
    DeiT: _deit,
    DistilledDeiT: _distilled_deit,
    Twins: _twins,
}
