"""The native kernels as cells with gradients.

Each takes its parameters as inputs, so it holds none. Everything is float32; maps are (B, H, W, C).
Shapes of outputs depend on shapes of inputs alone: MindSpore infers them once for all operators of
one kernel that have the same inputs.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, Callable, List, Literal, Sequence, Tuple

import mindspore as ms
import numpy as np
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


def _one(*_: Shape) -> Shape:
    return [1]


def _sizes(*shapes: Shape) -> Shape:
    return [sum(math.prod(shape) for shape in shapes)]


def _with_four_columns(x: Shape, *_: Shape) -> Tuple[Shape, ...]:
    return x, x[-1:], x[-1:], x[-1:], x[-1:]


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


class NativeLinear(nn.Cell):
    """x W^T + b: (..., C), (C', C), (C',) -> (..., C')."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("linear_forward", _with_last_of_third)
        self.backward = operator("linear_backward", _input_weight_bias, 3)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, weight, bias)

    def bprop(
        self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dx, dweight, dbias = self.backward(dout, x, weight)
        return dx, dweight, dbias


def _with_last_of_third(x: Shape, _: Shape, bias: Shape) -> Shape:
    return [*x[:-1], *bias]


def _input_weight_bias(_: Shape, x: Shape, weight: Shape) -> Tuple[Shape, Shape, Shape]:
    return x, weight, weight[:1]


class _MlpWithHidden(nn.Cell):
    """The perceptron, and its hidden layer before bias and activation, which is all it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("mlp_forward", _mlp_and_hidden, 2)
        self.backward = operator("mlp_backward", _mlp_gradients, 5)

    def construct(
        self, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tuple[Tensor, Tensor]:
        return self.forward(x, weight1, bias1, weight2, bias2)

    def bprop(
        self,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        out: Any,
        dout: Any,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dx, dweight1, dbias1, dweight2, dbias2 = self.backward(
            dout[0], out[1], x, weight1, bias1, weight2
        )
        return dx, dweight1, dbias1, dweight2, dbias2


def _mlp_and_hidden(
    x: Shape, _: Shape, bias1: Shape, __: Shape, bias2: Shape
) -> Tuple[Shape, Shape]:
    return [*x[:-1], *bias2], [*x[:-1], *bias1]


def _mlp_gradients(
    dy: Shape, _: Shape, x: Shape, weight1: Shape, bias1: Shape, weight2: Shape
) -> Tuple[Shape, Shape, Shape, Shape, Shape]:
    return x, weight1, bias1, weight2, dy[-1:]


class NativeMlp(nn.Cell):
    """GELU(x W1^T + b1) W2^T + b2: (..., C), (H, C), (H,), (C', H), (C',) -> (..., C')."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = _MlpWithHidden()

    def construct(
        self, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        return self.mlp(x, weight1, bias1, weight2, bias2)[0]


class NativeSelfAttention(nn.Cell):
    """softmax(q k^T / sqrt(d)) v of all heads: qkv (B, N, 3 C) -> (B, N, C).

    `keys` (1 + B,) and `kept` are dropout's: src/models/layers/dropout.py. (1,) each: none.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = Tensor([num_heads], ms.float32)
        self.forward = operator("self_attention_forward", _third_of_channels)
        self.backward = operator("self_attention_backward", _packed)

    def construct(self, qkv: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        return self.forward(self.num_heads, qkv, keys, kept)

    def bprop(
        self, qkv: Tensor, keys: Tensor, kept: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dqkv = self.backward(dout, self.num_heads, qkv, keys, kept)
        return dqkv, ops.zeros_like(keys), ops.zeros_like(kept)


class NativeCrossAttention(nn.Cell):
    """The same from one tensor or map to another, without dropout.

    q (B, ..., C), kv (B, ..., 2 C) -> (B, ..., C).
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = Tensor([num_heads], ms.float32)
        self.forward = operator("cross_attention_forward", _second)
        self.backward = operator("cross_attention_backward", _queries_and_pairs, 2)

    def construct(self, q: Tensor, kv: Tensor) -> Tensor:
        return self.forward(self.num_heads, q, kv)

    def bprop(self, q: Tensor, kv: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor, Tensor]:
        dq, dkv = self.backward(dout, self.num_heads, q, kv)
        return dq, dkv


def _third_of_channels(_: Shape, qkv: Shape, keys: Shape, kept: Shape) -> Shape:
    if kept[0] > 1 and keys[0] <= qkv[0]:
        raise ValueError(f"{keys[0] - 1} samples have a key, the batch has {qkv[0]}")
    return [*qkv[:2], qkv[2] // 3]


def _packed(_: Shape, __: Shape, qkv: Shape, *___: Shape) -> Shape:
    return qkv


def _second(_: Shape, q: Shape, *__: Shape) -> Shape:
    return q


def _queries_and_pairs(_: Shape, __: Shape, q: Shape, kv: Shape) -> Tuple[Shape, Shape]:
    return q, kv


class NativeLayerNorm(nn.Cell):
    """Normalises the last axis: (..., C), gamma (C,), beta (C,) -> (..., C)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = operator("layer_norm_forward", _first)
        self.backward = operator("layer_norm_backward", _scale_and_shift_gradients, 3)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.forward(x, gamma, beta, self.epsilon)

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dx, dgamma, dbeta = self.backward(dout, x, gamma, self.epsilon)
        return dx, dgamma, dbeta


def _scale_and_shift_gradients(dy: Shape, x: Shape, *_: Shape) -> Tuple[Shape, Shape, Shape]:
    return x, x[-1:], x[-1:]


class NativeBatchNorm(nn.Cell):
    """Normalises an activation by the batch: (..., C), gamma, beta, running mean and variance (C,).

    Returns (..., C), and the next running mean and variance (C,): no gradient flows through these.

    Args:
        momentum: share of the batch in the running statistics.
        activation: of the input, before it is normalised; `gelu` is the exact one.
    """

    def __init__(
        self, epsilon: float, momentum: float, *, activation: Literal["gelu", "relu"]
    ) -> None:
        super().__init__()
        self.norm = _BatchNormWithStatistics(epsilon, momentum, activation)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        y, _, _, next_mean, next_variance = self.norm(x, gamma, beta, mean, variance)
        return y, next_mean, next_variance


class _BatchNormWithStatistics(nn.Cell):
    """The same with the batch's own mean and variance, which the gradient needs, after y."""

    def __init__(self, epsilon: float, momentum: float, activation: str) -> None:
        super().__init__()
        self.settings = Tensor([epsilon, momentum], ms.float32)
        name = f"{activation}_batch_norm"
        self.forward = operator(f"{name}_forward", _with_four_columns, 5)
        self.backward = operator(f"{name}_backward", _scale_and_shift_gradients, 3)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.forward(x, gamma, beta, mean, variance, self.settings)

    def bprop(
        self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        out: Any,
        dout: Any,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dx, dgamma, dbeta = self.backward(dout[0], x, gamma, out[1], out[2], self.settings)
        return dx, dgamma, dbeta, ops.zeros_like(mean), ops.zeros_like(variance)


class NativeRunningNorm(nn.Cell):
    """Normalises an activation by the running statistics, which get no gradient and stay.

    Inputs as of `NativeBatchNorm`; returns (..., C).
    """

    def __init__(self, epsilon: float, *, activation: Literal["gelu", "relu"]) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        name = f"{activation}_running_norm"
        self.forward = operator(f"{name}_forward", _first)
        self.backward = operator(f"{name}_backward", _scale_and_shift_gradients, 3)

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor:
        return self.forward(x, gamma, beta, mean, variance, self.epsilon)

    def bprop(
        self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        out: Tensor,
        dout: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dx, dgamma, dbeta = self.backward(dout, x, gamma, mean, variance, self.epsilon)
        return dx, dgamma, dbeta, ops.zeros_like(mean), ops.zeros_like(variance)


class NativeRunningStatistics(nn.Cell):
    """Moves the running statistics of norms towards a batch's, in place -> (1,), unused.

    Inputs: x (..., C), for its number of rows; batch (N, C), mean and biased variance of each norm;
    running, N parameters (C,) in the same order. Running variances are unbiased.

    Args:
        momentum: share of the batch.
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = Tensor([momentum], ms.float32)
        self.follow = operator("follow_statistics", _one)
        self.follow.add_prim_attr("side_effect_mem", True)

    def construct(self, x: Tensor, batch: Tensor, running: Tuple[Tensor, ...]) -> Tensor:
        return self.follow(self.momentum, x, batch, *running)

    def bprop(
        self, x: Tensor, batch: Tensor, running: Tuple[Tensor, ...], out: Tensor, dout: Tensor
    ) -> Any:
        return ops.zeros_like(x), ops.zeros_like(batch), ops.zeros_like(running)


class NativeSnapshot(nn.Cell):
    """Copies parameters into one tensor, and puts them back in place."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = operator("keep", _sizes)
        self.put_back = operator("put_back", _one)
        self.put_back.add_prim_attr("side_effect_mem", True)

    def take(self, parameters: Tuple[Tensor, ...]) -> Tensor:
        """Parameters of any shapes -> their values, (sum of sizes,)."""
        return self.keep(*parameters)

    def restore(self, parameters: Tuple[Tensor, ...], kept: Tensor) -> None:
        """Sets the parameters that `take` was given."""
        self.put_back(kept, *parameters)


class NativeConvMixerBlocks(nn.Cell):
    """ConvMixer from the output of its patch convolution to its last map.

    x = BN(active(patches)), then in every block r = x + keep BN(active(depthwise(x))) and
    x = BN(active(W r + b)). All norms go by the batch.

    Inputs: patches (B, H, W, C); keep (depth, B); weights: gamma and beta of the first norm (C,),
    then of every block, for the convolution and for the product, weight (C, 1, k, k) or
    (C, C, 1, 1), bias, gamma and beta (C,).
    Returns (B, H, W, C) and the batch's statistics (4 depth + 2, C), mean and biased variance of
    each norm, through which no gradient flows. None flows to `keep` either, which is drawn.

    Args:
        activation: `gelu` is the exact one.
    """

    def __init__(self, depth: int, epsilon: float, *, activation: Literal["gelu", "relu"]) -> None:
        super().__init__()
        self.blocks = _ConvMixerBlocksWithMaps(depth, epsilon, activation)

    def construct(
        self, patches: Tensor, keep: Tensor, weights: Tuple[Tensor, ...]
    ) -> Tuple[Tensor, Tensor]:
        y, _, _, statistics = self.blocks(patches, keep, weights)
        return y, statistics


class _ConvMixerBlocksWithMaps(nn.Cell):
    """The same with what the gradient needs, after y.

    That is the outputs of convolutions and products (depth, B, H, W, C) and the batch's statistics.
    What norms give is computed again.
    """

    def __init__(self, depth: int, epsilon: float, activation: str) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        name = f"{activation}_conv_mixer_blocks"
        self.forward = operator(f"{name}_forward", _maps_and_statistics, 4)
        self.backward = operator(f"{name}_backward", _conv_mixer_gradients, 3 + 8 * depth)

    def construct(self, patches: Tensor, keep: Tensor, weights: Tuple[Tensor, ...]) -> Any:
        return self.forward(self.epsilon, patches, keep, *weights)

    def bprop(
        self, patches: Tensor, keep: Tensor, weights: Tuple[Tensor, ...], out: Any, dout: Any
    ) -> Any:
        grads = self.backward(
            self.epsilon, patches, keep, dout[0], out[1], out[2], out[3], *weights
        )
        return grads[0], ops.zeros_like(keep), grads[1:]


def _maps_and_statistics(_: Shape, patches: Shape, keep: Shape, *__: Shape) -> Tuple[Shape, ...]:
    maps = [keep[0], *patches]
    return patches, maps, maps, [4 * keep[0] + 2, patches[3]]


def _conv_mixer_gradients(_: Shape, patches: Shape, *inputs: Shape) -> Tuple[Shape, ...]:
    return (patches, *inputs[5:])


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


class NativeAddKept(nn.Cell):
    """x + branch keep: 2 x (B, ...), keep (B,) -> (B, ...); `keep` is drawn, its gradient is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("add_kept_forward", _first)
        self.backward = operator("add_kept_backward", _first)

    def construct(self, x: Tensor, branch: Tensor, keep: Tensor) -> Tensor:
        return self.forward(x, branch, keep)

    def bprop(
        self, x: Tensor, branch: Tensor, keep: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        return dout, self.backward(dout, keep), ops.zeros_like(keep)


class NativeDepthwiseConv(nn.Cell):
    """(B, H, W, C), weight (C, 1, k, k), bias (C,) -> (B, H, W, C), zero padding on all sides."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("depthwise_conv_forward", _first)
        self.backward_input = operator("depthwise_conv_backward_input", _first)
        self.backward_weight = operator("depthwise_conv_backward_weight", _weight_and_bias, 2)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, weight, bias)

    def bprop(
        self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dweight, dbias = self.backward_weight(dout, x, weight)
        return self.backward_input(dout, weight), dweight, dbias


def _weight_and_bias(_: Shape, __: Shape, weight: Shape) -> Tuple[Shape, Shape]:
    return weight, weight[:1]


class NativePatchConv(nn.Cell):
    """Convolution whose stride is its kernel: (B, H, W, C), weight (C', C, k, k), bias (C',).

    Returns (B, H // k, W // k, C'). The gradient cuts the patches out again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("patch_conv_forward", _patches)
        # Apart, for nothing asks for the gradient of images.
        self.backward_input = operator("patch_conv_backward_input", _third)
        self.backward_weight = operator("patch_conv_backward_weight", _weight_and_bias, 2)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.forward(x, weight, bias)

    def bprop(
        self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        dweight, dbias = self.backward_weight(dout, x, weight)
        return self.backward_input(dout, weight, x), dweight, dbias


def _patches(x: Shape, weight: Shape, _: Shape) -> Shape:
    return [x[0], x[1] // weight[2], x[2] // weight[2], weight[0]]


class NativeDenseConv(nn.Cell):
    """Convolution without bias, (B, H, W, C), weight (C', k k C) -> (B, H', W', C').

    Zero padding on all sides. The gradient cuts the overlapping windows out again.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        # Only its shape is read.
        self.geometry = Tensor(np.zeros((kernel_size, stride, padding + 1)), ms.float32)
        self.forward = operator("dense_conv_forward", _windows)
        # Apart, for nothing asks for the gradient of images.
        self.backward_input = operator("dense_conv_backward_input", _fourth)
        self.backward_weight = operator("dense_conv_backward_weight", _flat_weight)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.forward(x, weight, self.geometry)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor, Tensor]:
        dx = self.backward_input(dout, weight, self.geometry, x)
        return dx, self.backward_weight(dout, x, self.geometry)


def _windows(x: Shape, weight: Shape, geometry: Shape) -> Shape:
    kernel_size, stride, padding = geometry[0], geometry[1], geometry[2] - 1
    rows, columns = ((n + 2 * padding - kernel_size) // stride + 1 for n in x[1:3])
    return [x[0], rows, columns, weight[0]]


def _flat_weight(dy: Shape, x: Shape, geometry: Shape) -> Shape:
    return [dy[3], geometry[0] * geometry[0] * x[3]]


def _fourth(_: Shape, __: Shape, ___: Shape, x: Shape) -> Shape:
    return x


class NativeRelayout(nn.Cell):
    """A map in the other order of axes, (B, H, W, C) -> (B, C, H, W) or back.

    MindSpore's own operator keeps a table of 8 bytes for every element.

    Args:
        channels_first: the order of the result.
    """

    def __init__(self, *, channels_first: bool) -> None:
        super().__init__()
        first = operator("to_channels_first", _with_channels_first)
        last = operator("to_channels_last", _with_channels_last)
        self.forward, self.backward = (first, last) if channels_first else (last, first)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.backward(dout),)


def _with_channels_first(x: Shape, *_: Shape) -> Shape:
    return [x[0], x[3], x[1], x[2]]


def _with_channels_last(x: Shape) -> Shape:
    return [x[0], x[2], x[3], x[1]]


class NativeMeanOfMaps(nn.Cell):
    """(B, C, H, W) -> (B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("mean_of_maps_forward", _first_two)
        self.backward = operator("mean_of_maps_backward", _second)

    def construct(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> Tuple[Tensor]:
        return (self.backward(dout, x),)


def _first_two(x: Shape) -> Shape:
    return x[:2]


class NativeImageNormalize(nn.Cell):
    """(codes - centre) scale: codes (B, H, W, 3) uint8, the others (1, 3, 1, 1) -> (B, 3, H, W).

    No input has a gradient. MindSpore's own operators keep a table of 8 bytes for every element of
    every input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = operator("normalize_images", _with_channels_first)

    def construct(self, codes: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
        return self.normalize(codes, centre, scale)

    def bprop(
        self, codes: Tensor, centre: Tensor, scale: Tensor, out: Tensor, dout: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        return ops.zeros_like(codes), ops.zeros_like(centre), ops.zeros_like(scale)


class NativeImageMix(nn.Cell):
    """The same, then boxes erased and every image mixed with its partner.

    Inputs: as of `NativeImageNormalize`; the noise of every code (256,), or (1,) for boxes of one
    colour; draws (B, 5 + 7 boxes) of src/data/augment. No input has a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = operator("mix_images", _with_channels_first)

    def construct(
        self, codes: Tensor, centre: Tensor, scale: Tensor, noise: Tensor, draws: Tensor
    ) -> Tensor:
        return self.mix(codes, centre, scale, noise, draws)

    def bprop(
        self,
        codes: Tensor,
        centre: Tensor,
        scale: Tensor,
        noise: Tensor,
        draws: Tensor,
        out: Tensor,
        dout: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        zeros = ops.zeros_like
        return zeros(codes), zeros(centre), zeros(scale), zeros(noise), zeros(draws)


def _pooled(x: Shape) -> Shape:
    return [x[0], (x[1] - 1) // 2 + 1, (x[2] - 1) // 2 + 1, x[3]]


def _third(_: Shape, __: Shape, x: Shape) -> Shape:
    return x


class NativeReluMaxPool(nn.Cell):
    """ReLU, then the largest of 3x3, stride 2, padding 1: (B, H, W, C) -> (B, H', W', C)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = operator("relu_max_pool_forward", _pooled)
        self.backward = operator("relu_max_pool_backward", _third)

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
        # Adding the tuples first would compile to a node for each of their elements.
        return self.update(settings, decays, scales, *weights, *moments1, *moments2, *grads)


class NativeDraws(nn.Cell):
    """What src/models/layers/drop_path.py hashes out of the step's number, () int32.

    `place` is seed, layer and positions, (2 + B,).
    """

    def __init__(self, place: Sequence[int]) -> None:
        super().__init__()
        self.place = Tensor(list(place), ms.float32)
        self.keys = operator("draw_keys", _without_seed)
        self.uniform = operator("draw_uniform", _without_seed_and_layer)

    def construct(self, step: Tensor) -> Tensor:
        return self.uniform(step, self.place)

    def key_of_layer_and_samples(self, step: Tensor) -> Tensor:
        """(1 + B,), whole numbers in float32."""
        return self.keys(step, self.place)


def _without_seed(_: Shape, place: Shape) -> Shape:
    return [place[0] - 1]


def _without_seed_and_layer(_: Shape, place: Shape) -> Shape:
    return [place[0] - 2]
