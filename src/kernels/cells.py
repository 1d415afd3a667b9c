"""The native kernels as cells with gradients, for graph and pynative mode.

Each takes its parameters as inputs, so it holds none. Everything is float32; maps are (B, H, W, C).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Callable, List, Tuple

import mindspore as ms
from mindspore import Tensor, nn, ops

from . import selection

Shape = List[int]


@cache
def _operator(library: Path, name: str, shapes: Callable[..., Any], outputs: int) -> ops.Custom:
    types = ms.float32 if outputs == 1 else (ms.float32,) * outputs
    return ops.Custom(f"{library}:{name}", shapes, lambda *_: types, func_type="aot")


def operator(name: str, shapes: Callable[..., Any], outputs: int = 1) -> ops.Custom:
    """Kernel `name` of the selected library; `shapes` maps input shapes to output shapes."""
    return _operator(selection.library(), name, shapes, outputs)


def _first(x: Shape, *_: Shape) -> Shape:
    return x


def _last(x: Shape, *_: Shape) -> Shape:
    return x[-1:]


def _one(*_: Shape) -> Shape:
    return [1]


def _rows(x: Shape) -> Shape:
    count = 1
    for length in x[:-1]:
        count *= length
    return [count]


def _normed(x: Shape, *_: Shape) -> Tuple[Shape, Shape, Shape]:
    return x, _rows(x), _rows(x)


def _with_statistics(x: Shape, *_: Shape) -> Tuple[Shape, Shape, Shape]:
    return x, x[-1:], x[-1:]


def _with_column(x: Shape, *_: Shape) -> Tuple[Shape, Shape]:
    return x, x[-1:]


class NativeGelu(nn.Cell):
    """GELU(x + bias), exact: (..., C), (C,) -> (..., C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("gelu_forward", _first)
        self.backward = operator("gelu_backward", _with_column, 2)

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor, Tensor]:
        dx, dbias = self.backward(dout, x, bias)
        return dx, dbias


class NativeBias(nn.Cell):
    """x + bias: (..., C), (C,) -> (..., C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("bias_forward", _first)
        self.backward = operator("bias_backward", _last)

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor, Tensor]:
        return dout, self.backward(dout)


class NativeSoftmax(nn.Cell):
    """Softmax over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("softmax_forward", _first)
        self.backward = operator("softmax_backward", _first)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.backward(dout, out),)


class NativeSplitHeads(nn.Cell):
    """(B, N, parts h d) -> `parts` times (B, h, N, d); one of them comes as it is."""

    def __init__(self, parts: int, num_heads: int) -> None:
        super().__init__()
        self.parts = parts

        def apart(x: Shape) -> Any:
            shape = [x[0], num_heads, x[1], x[2] // (parts * num_heads)]
            return shape if parts == 1 else (shape,) * parts

        self.forward = operator("split_heads_forward", apart, parts)
        self.backward = operator("split_heads_backward", _heads_together)

    def construct(self, x: Tensor) -> Any:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Any, dout: Any) -> Tuple[Tensor]:
        if self.parts == 1:
            return (self.backward(dout),)
        return (self.backward(*dout),)


def _heads_together(*heads: Shape) -> Shape:
    batch, count, tokens, size = heads[0]
    return [batch, tokens, len(heads) * count * size]


class NativeMergeHeads(nn.Cell):
    """(B, h, N, d) -> (B, N, h d)."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.split = NativeSplitHeads(1, num_heads)

    def construct(self, x: Tensor) -> Tensor:
        return self.split.backward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.split.forward(dout),)


class _LayerNormWithStatistics(nn.Cell):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = operator("layer_norm_forward", _normed, 3)
        self.backward = operator("layer_norm_backward", _scale_and_shift_gradients, 3)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        return self.forward(x, gamma, beta, self.epsilon)

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: Any, dout: Any
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dx, dgamma, dbeta = self.backward(dout[0], x, gamma, out[1], out[2])
        return dx, dgamma, dbeta


class NativeLayerNorm(nn.Cell):
    """Normalises the last axis: (..., C), gamma (C,), beta (C,) -> (..., C)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.norm = _LayerNormWithStatistics(epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.norm(x, gamma, beta)[0]


def _scale_and_shift_gradients(dy: Shape, x: Shape, *_: Shape) -> Tuple[Shape, Shape, Shape]:
    return x, x[-1:], x[-1:]


class NativeBatchNorm(nn.Cell):
    """Normalises by the batch: (..., C), gamma, beta (C,) -> (..., C), mean, biased variance (C,).

    Mean and variance are for the running statistics: no gradient flows through them.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = operator("batch_norm_forward", _with_statistics, 3)
        self.backward = operator("batch_norm_backward", _scale_and_shift_gradients, 3)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        return self.forward(x, gamma, beta, self.epsilon)

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: Any, dout: Any
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dx, dgamma, dbeta = self.backward(dout[0], x, gamma, out[1], out[2], self.epsilon)
        return dx, dgamma, dbeta


class NativeScaleShift(nn.Cell):
    """x scale + shift: (..., C), (C,), (C,) -> (..., C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("scale_shift_forward", _first)
        self.backward = operator("scale_shift_backward", _scale_and_shift_gradients, 3)

    def construct(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.forward(x, scale, shift)

    def bprop(
        self, x: Tensor, scale: Tensor, shift: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dx, dscale, dshift = self.backward(dout, x, scale)
        return dx, dscale, dshift


class NativeResidual(nn.Cell):
    """x + branch gamma keep: 2 x (B, ..., C), gamma (C,), keep (B,) -> (B, ..., C).

    `keep` is drawn, not learnt: its gradient is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("residual_forward", _first)
        self.backward = operator("residual_backward", _with_column, 2)

    def construct(self, x: Tensor, branch: Tensor, gamma: Tensor, keep: Tensor) -> Tensor:
        return self.forward(x, branch, gamma, keep)

    def bprop(
        self, x: Tensor, branch: Tensor, gamma: Tensor, keep: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        dbranch, dgamma = self.backward(dout, branch, gamma, keep)
        return dout, dbranch, dgamma, ops.zeros_like(keep)


class NativeDepthwiseConv(nn.Cell):
    """(B, H, W, C), weight (C, 1, k, k), bias (C,) -> (B, H, W, C), zero padding on all sides."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()

        def weight_shapes(dy: Shape, *_: Shape) -> Tuple[Shape, Shape]:
            return [dy[-1], 1, kernel_size, kernel_size], dy[-1:]

        self.forward = operator("depthwise_conv_forward", _first)
        self.backward_input = operator("depthwise_conv_backward_input", _first)
        self.backward_weight = operator("depthwise_conv_backward_weight", weight_shapes, 2)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, weight, bias)

    def bprop(
        self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dweight, dbias = self.backward_weight(dout, x)
        return self.backward_input(dout, weight), dweight, dbias


class NativePatches(nn.Cell):
    """Windows as rows: (B, H, W, C) -> (B, H', W', k k C), zero padding on all sides.

    Multiplied with weights (O, k k C) they give a convolution.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()

        def windows(x: Shape, *_: Shape) -> Shape:
            rows, columns = ((n + 2 * padding - kernel_size) // stride + 1 for n in x[1:3])
            return [x[0], rows, columns, kernel_size * kernel_size * x[3]]

        def map_shape(dy: Shape, geometry: Shape, x: Shape) -> Shape:
            return x

        self.geometry = Tensor([kernel_size, stride, padding], ms.float32)
        self.forward = operator("patches_forward", windows)
        self.backward = operator("patches_backward", map_shape)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x, self.geometry)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.backward(dout, self.geometry, x),)


def _pooled(x: Shape) -> Shape:
    return [x[0], (x[1] - 1) // 2 + 1, (x[2] - 1) // 2 + 1, x[3]]


def _third(_: Shape, __: Shape, x: Shape) -> Shape:
    return x


class NativeMaxPool(nn.Cell):
    """3x3, stride 2, padding 1: (B, H, W, C) -> (B, H', W', C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("max_pool_forward", _pooled)
        self.backward = operator("max_pool_backward", _third)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.backward(dout, out, x),)


class NativeGlobalNorm(nn.Cell):
    """Euclidean norm of all tensors together, ()."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = operator("global_norm", _one)

    def construct(self, tensors: Tuple[Tensor, ...]) -> Tensor:
        return self.norm(*tensors).reshape(())


class NativeAdamW(nn.Cell):
    """AdamW's update of all weights and moments, in place; returns the rate, (1,).

    `settings` (7,): rate, beta1, beta2, epsilon, 1 - beta1^t, sqrt(1 - beta2^t), weight decay.
    `decays`, `scales` (N,): 1 for each of the N weights that decays; factors of the rate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.update = operator("adamw", _one)
        # What it does to its inputs is not to be moved, left out or done twice.
        self.update.add_prim_attr("side_effect_mem", True)

    def construct(
        self,
        settings: Tensor,
        decays: Tensor,
        scales: Tensor,
        weights: Tuple[Tensor, ...],
        moments1: Tuple[Tensor, ...],
        moments2: Tuple[Tensor, ...],
        grads: Tuple[Tensor, ...],
    ) -> Tensor:
        state = weights + moments1 + moments2
        return self.update(settings, decays, scales, *state, *grads)
