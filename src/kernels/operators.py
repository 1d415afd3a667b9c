"""The kernels of `native/*.cc` as operators of MindSpore, with gradients.

Inputs, outputs and their shapes stand above each kernel in C++. All are float32 where nothing else
is said; a kernel refuses other types. Shapes of outputs depend on shapes of inputs alone: MindSpore
infers them once for all operators of one kernel that have the same inputs. A `bprop` gives zeros
for inputs that are settings, or drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import mindspore as ms
from mindspore import ops

Shape = List[int]

_LIBRARY: List[Path] = []
_MADE: Dict[Tuple[Any, ...], ops.Custom] = {}


def use(library: Path) -> None:
    """Operators asked for from now on are those of this compiled library."""
    _LIBRARY[:] = [library]


def operator(
    name: str, shapes: Callable[..., Any], outputs: int = 1, *, bprop: Optional[Callable] = None
) -> ops.Custom:
    """Kernel `name`, made once; `shapes` maps shapes of all inputs to those of the outputs."""
    key = (_LIBRARY[0], name, outputs, bprop is None)
    if key not in _MADE:
        types = ms.float32 if outputs == 1 else (ms.float32,) * outputs
        path = f"{_LIBRARY[0]}:{name}"
        _MADE[key] = ops.Custom(path, shapes, lambda *_: types, func_type="aot", bprop=bprop)
    return _MADE[key]


def in_place(name: str) -> ops.Custom:
    """Kernel that changes its inputs and returns (1,): not to be moved, left out or done twice."""
    kernel = operator(name, lambda *_: [1])
    kernel.add_prim_attr("side_effect_mem", True)
    return kernel


def like(number: int) -> Callable[..., Shape]:
    """The output has the shape of this input."""
    return lambda *shapes: shapes[number]


def like_and_columns(number: int, vectors: int) -> Callable[..., Tuple[Shape, ...]]:
    """The first output has the shape of this input, the others that of its last axis."""
    return lambda *shapes: (shapes[number], *[shapes[number][-1:]] * vectors)


def planes(x: Shape, *_: Shape) -> Shape:
    """(B, H, W, C) -> (B, C, H, W)."""
    return [x[0], x[3], x[1], x[2]]


def gelu_of_sum() -> ops.Custom:
    backward = operator("gelu_backward", like_and_columns(0, 1), 2)

    def bprop(x: Any, bias: Any, out: Any, dout: Any) -> Any:
        return backward(dout, x, bias)

    return operator("gelu_forward", like(0), bprop=bprop)


def linear() -> ops.Custom:
    backward = operator("linear_backward", lambda _, x, w: (x, w, w[:1]), 3)

    def bprop(x: Any, weight: Any, bias: Any, out: Any, dout: Any) -> Any:
        return backward(dout, x, weight)

    return operator("linear_forward", lambda x, _, b: [*x[:-1], *b], bprop=bprop)


def mlp() -> ops.Custom:
    # The second output is for the gradient: the hidden layer before bias and activation.
    backward = operator("mlp_backward", lambda dy, _, x, w, b, v: (x, w, b, v, dy[-1:]), 5)

    def bprop(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, out: Any, dout: Any) -> Any:
        return backward(dout[0], out[1], x, w1, b1, w2)

    def shapes(x: Shape, _: Shape, b1: Shape, __: Shape, b2: Shape) -> Tuple[Shape, Shape]:
        return [*x[:-1], *b2], [*x[:-1], *b1]

    return operator("mlp_forward", shapes, 2, bprop=bprop)


def layer_norm() -> ops.Custom:
    backward = operator("layer_norm_backward", like_and_columns(1, 2), 3)

    def bprop(x: Any, gamma: Any, beta: Any, epsilon: Any, out: Any, dout: Any) -> Any:
        dx, dgamma, dbeta = backward(dout, x, gamma, epsilon)
        return dx, dgamma, dbeta, ops.zeros_like(epsilon)

    return operator("layer_norm_forward", like(0), bprop=bprop)


def self_attention() -> ops.Custom:
    backward = operator("self_attention_backward", like(2))

    def bprop(heads: Any, qkv: Any, keys: Any, kept: Any, out: Any, dout: Any) -> Any:
        dqkv = backward(dout, heads, qkv, keys, kept)
        return ops.zeros_like(heads), dqkv, ops.zeros_like(keys), ops.zeros_like(kept)

    def shape(_: Shape, qkv: Shape, keys: Shape, kept: Shape) -> Shape:
        if kept[0] > 1 and keys[0] <= qkv[0]:
            raise ValueError(f"{keys[0] - 1} samples have a key, the batch has {qkv[0]}")
        return [*qkv[:2], qkv[2] // 3]

    return operator("self_attention_forward", shape, bprop=bprop)


def cross_attention() -> ops.Custom:
    backward = operator("cross_attention_backward", lambda _, __, q, kv: (q, kv), 2)

    def bprop(heads: Any, q: Any, kv: Any, out: Any, dout: Any) -> Any:
        dq, dkv = backward(dout, heads, q, kv)
        return ops.zeros_like(heads), dq, dkv

    return operator("cross_attention_forward", like(1), bprop=bprop)


def add_kept() -> ops.Custom:
    backward = operator("add_kept_backward", like(0))

    def bprop(x: Any, branch: Any, keep: Any, out: Any, dout: Any) -> Any:
        return dout, backward(dout, keep), ops.zeros_like(keep)

    return operator("add_kept_forward", like(0), bprop=bprop)


def residual() -> ops.Custom:
    backward = operator("residual_backward", like_and_columns(0, 1), 2)

    def bprop(x: Any, branch: Any, gamma: Any, keep: Any, out: Any, dout: Any) -> Any:
        dbranch, dgamma = backward(dout, branch, gamma, keep)
        return dout, dbranch, dgamma, ops.zeros_like(keep)

    return operator("residual_forward", like(0), bprop=bprop)


def reordered(*, channels_first: bool) -> ops.Custom:
    # MindSpore's own operator keeps a table of 8 bytes for every element.
    first = ("to_channels_first", planes)
    last = ("to_channels_last", lambda x: [x[0], x[2], x[3], x[1]])
    there, back = (first, last) if channels_first else (last, first)
    backward = operator(*back)

    def bprop(x: Any, out: Any, dout: Any) -> Any:
        return (backward(dout),)

    return operator(*there, bprop=bprop)


def mean_of_maps() -> ops.Custom:
    backward = operator("mean_of_maps_backward", like(1))

    def bprop(x: Any, out: Any, dout: Any) -> Any:
        return (backward(dout, x),)

    return operator("mean_of_maps_forward", lambda x: x[:2], bprop=bprop)


def depthwise_conv() -> ops.Custom:
    backward_input = operator("depthwise_conv_backward_input", like(0))
    backward_weight = operator("depthwise_conv_backward_weight", lambda _, __, w: (w, w[:1]), 2)

    def bprop(x: Any, weight: Any, bias: Any, out: Any, dout: Any) -> Any:
        dweight, dbias = backward_weight(dout, x, weight)
        return backward_input(dout, weight), dweight, dbias

    return operator("depthwise_conv_forward", like(0), bprop=bprop)


def patch_conv() -> ops.Custom:
    # The gradient of the input is apart, for nothing asks for that of images.
    backward_input = operator("patch_conv_backward_input", like(2))
    backward_weight = operator("patch_conv_backward_weight", lambda _, __, w: (w, w[:1]), 2)

    def bprop(x: Any, weight: Any, bias: Any, out: Any, dout: Any) -> Any:
        dweight, dbias = backward_weight(dout, x, weight)
        return backward_input(dout, weight, x), dweight, dbias

    def shape(x: Shape, w: Shape, _: Shape) -> Shape:
        return [x[0], x[1] // w[2], x[2] // w[2], w[0]]

    return operator("patch_conv_forward", shape, bprop=bprop)


def dense_conv() -> ops.Custom:
    # Nothing of `geometry` is read but its shape, (k, stride, padding + 1).
    backward_input = operator("dense_conv_backward_input", like(3))
    flat = lambda dy, x, geometry: [dy[3], geometry[0] ** 2 * x[3]]  # noqa: E731
    backward_weight = operator("dense_conv_backward_weight", flat)

    def bprop(x: Any, weight: Any, geometry: Any, out: Any, dout: Any) -> Any:
        dx = backward_input(dout, weight, geometry, x)
        return dx, backward_weight(dout, x, geometry), ops.zeros_like(geometry)

    def shape(x: Shape, weight: Shape, geometry: Shape) -> Shape:
        k, stride, padding = geometry[0], geometry[1], geometry[2] - 1
        rows, columns = ((side + 2 * padding - k) // stride + 1 for side in x[1:3])
        return [x[0], rows, columns, weight[0]]

    return operator("dense_conv_forward", shape, bprop=bprop)


def relu_max_pool() -> ops.Custom:
    backward = operator("relu_max_pool_backward", like(2))

    def bprop(x: Any, out: Any, dout: Any) -> Any:
        return (backward(dout, out, x),)

    def shape(x: Shape) -> Shape:
        return [x[0], (x[1] + 1) // 2, (x[2] + 1) // 2, x[3]]

    return operator("relu_max_pool_forward", shape, bprop=bprop)
