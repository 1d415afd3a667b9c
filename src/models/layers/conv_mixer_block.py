"""The block of ConvMixer (Trockman and Kolter 2022)."""

from __future__ import annotations

from typing import Any, Sequence

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Uniform

from ...kernels import cells
from .depthwise_conv import DepthwiseConv
from .drop_path import DropPath
from .norm import MOMENTUM, BatchNorm, create_activation_and_norm, kernel_name
from .pointwise_conv import PointwiseConv


def uniform_init(fan_in: int) -> Uniform:
    """PyTorch's default for weights and biases alike, which is all the authors use."""
    return Uniform(fan_in**-0.5)


class Residual(nn.Cell):
    """x + fn(x), where stochastic depth may drop fn(x)."""

    def __init__(self, fn: nn.Cell, *, drop_path: float) -> None:
        super().__init__()
        self.fn = fn
        self.drop_path = DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop_path.add(x, self.fn(x))


class ConvMixerBlock(nn.SequentialCell):
    """Mixes positions, then channels: a map -> the same (section 2, equations 2 and 3).

    Only the depthwise part has a residual connection. The activation comes before the norm.
    """

    def __init__(
        self, dim: int, *, kernel_size: int, drop_path: float, nonlinearity: str, layout: str
    ) -> None:
        conv = DepthwiseConv(
            dim,
            kernel_size,
            layout=layout,
            weight_init=uniform_init(kernel_size**2),
            bias_init=uniform_init(kernel_size**2),
        )
        pointwise = PointwiseConv(
            dim, dim, layout=layout, weight_init=uniform_init(dim), bias_init=uniform_init(dim)
        )
        activation, norm = create_activation_and_norm(nonlinearity, dim, layout=layout)
        residual = Residual(nn.SequentialCell(conv, activation, norm), drop_path=drop_path)
        last_activation, last_norm = create_activation_and_norm(nonlinearity, dim, layout=layout)
        super().__init__(residual, pointwise, last_activation, last_norm)
        _set(self, drop_path=residual.drop_path, halves=((conv, norm), (pointwise, last_norm)))


class ConvMixerBlocks(nn.SequentialCell):
    """Equal blocks one after the other.

    Args:
        first_norm: the one before the blocks, for `with_first_norm`; it belongs to another cell.
    """

    def __init__(self, blocks: Sequence[ConvMixerBlock], *, first_norm: BatchNorm) -> None:
        super().__init__(list(blocks))
        norms, native = [first_norm], None
        weights = [first_norm.gamma, first_norm.beta]
        for layer, norm in [half for block in blocks for half in block.halves]:
            norms.append(norm)
            weights += [layer.weight, layer.bias, norm.gamma, norm.beta]
        if first_norm.by_batch is not None:
            name = kernel_name(first_norm.activation)
            native = cells.NativeConvMixerBlocks(len(blocks), first_norm.eps, activation=name)
        _set(
            self,
            native=native,
            follow=cells.NativeRunningStatistics(MOMENTUM) if native is not None else None,
            weights=tuple(weights),
            running=tuple(x for norm in norms for x in (norm.moving_mean, norm.moving_variance)),
            drop_paths=tuple(block.drop_path for block in blocks),
        )

    def with_first_norm(self, patches: Tensor) -> Tensor:
        """First norm and all blocks, in training on native kernels: (B, H, W, C) -> the same.

        One operator, for `native` other than None. Norms go by the batch. Another moves the running
        statistics; had these inputs and assignments of their own, the compiler would copy every
        weight between the two, twice.
        """
        keep = ops.stack([drop_path.keep(patches) for drop_path in self.drop_paths])  # (depth, B)
        y, statistics = self.native(patches, keep, self.weights)
        self.follow(y, statistics, self.running)
        return y


def _set(cell: nn.SequentialCell, **attributes: Any) -> None:
    """Past Cell's own way, which would make cells and parameters members of the sequence."""
    for name, value in attributes.items():
        object.__setattr__(cell, name, value)
