"""Cells of the networks on the kernels: float32, with the parameters of the standard cell.

Inside, maps are (B, H, W, C); other layouts are changed on either side.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ..models import cct_parts
from ..models.layers import (
    activation,
    attention,
    conv_pool,
    depthwise_conv,
    drop_path,
    dropout,
    global_pool,
    linear,
    mlp,
    norm,
    patch_embed,
    pointwise_conv,
    random_draws,
)
from ..models.layers.layout import NCHW, NHWC, Relayout, relayout
from . import operators

OVERRIDES: Dict[type, type] = {}


def overrides(standard: type, **kernels: Callable[[], ops.Custom]) -> Callable[[type], type]:
    """Enters a class as what is built in place of `standard`, with `kernels` as attributes."""

    def enter(cell: Any) -> type:
        initialise = cell.__init__

        def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
            initialise(self, *arguments, **keywords)
            for name, make in kernels.items():
                setattr(self, name, make())

        cell.__init__ = __init__
        OVERRIDES[standard] = cell
        return cell

    return enter


def constant(*values: float) -> Tensor:
    """(number of values,) float32: kernels take their settings as tensors."""
    return Tensor(list(values), ms.float32)


@overrides(activation.Gelu, gelu_of_sum=operators.gelu_of_sum)
class NativeGelu(activation.Gelu):
    def construct(self, x: Tensor) -> Tensor:
        return self.gelu_of_sum(x, ops.zeros((x.shape[-1],), ms.float32))


@overrides(linear.Dense, linear=operators.linear)
class NativeDense(linear.Dense):
    def __init__(self, in_features: int, out_features: int, **keywords: Any) -> None:
        super().__init__(in_features, out_features, **keywords)
        self.no_bias = ops.zeros(out_features, ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        return self.linear(x, self.weight, self.bias if self.has_bias else self.no_bias)


@overrides(pointwise_conv.PointwiseConv, linear=operators.linear)
class NativePointwiseConv(pointwise_conv.PointwiseConv):
    def construct(self, x: Tensor) -> Tensor:
        weight = self.weight.reshape(self.out_channels, self.in_channels)
        y = self.linear(relayout(x, self.layout, NHWC), weight, self.bias)
        return relayout(y, NHWC, self.layout)


@overrides(mlp.Mlp, mlp=operators.mlp)
class NativeMlp(mlp.Mlp):
    def construct(self, x: Tensor) -> Tensor:
        if not isinstance(self.act, activation.Gelu):
            return super().construct(x)
        return self.mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)[0]


@overrides(cct_parts.EncoderLayer, mlp=operators.mlp)
class NativeEncoderLayer(cct_parts.EncoderLayer):
    def perceptron(self, x: Tensor) -> Tensor:
        if not isinstance(self.activation, activation.Gelu) or self.dropout1.p > 0.0:
            return super().perceptron(x)
        one, two = self.linear1, self.linear2
        return self.mlp(x, one.weight, one.bias, two.weight, two.bias)[0]


@overrides(norm.LayerNorm, normalize=operators.layer_norm)
class NativeLayerNorm(norm.LayerNorm):
    def __init__(self, channels: int, *, epsilon: float) -> None:
        super().__init__(channels, epsilon=epsilon)
        self.settings = constant(epsilon)

    def construct(self, x: Tensor) -> Tensor:
        return self.normalize(x, self.gamma, self.beta, self.settings)


@overrides(attention.SelfAttention, all_heads=operators.self_attention)
class NativeSelfAttention(attention.SelfAttention):
    def __init__(self, dim: int, num_heads: int, *, attn_drop: float = 0.0) -> None:
        super().__init__(dim, num_heads, attn_drop=attn_drop)
        self.settings, self.nothing = constant(num_heads), constant(1.0)

    def construct(self, qkv: Tensor) -> Tensor:
        dropout = self.attend.attn_drop
        if not self.training or dropout.p == 0.0:
            return self.all_heads(self.settings, qkv, self.nothing, self.nothing)
        if not dropout.is_seeded:  # the framework draws
            return super().construct(qkv)
        keys, kept = dropout.drop.draws()
        return self.all_heads(self.settings, qkv, keys, kept)


@overrides(attention.CrossAttention, all_heads=operators.cross_attention)
class NativeCrossAttention(attention.CrossAttention):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.settings = constant(num_heads)

    def construct(self, q: Tensor, kv: Tensor) -> Tensor:
        return self.all_heads(self.settings, q, kv)


@overrides(random_draws.SeededUniform)
class NativeSeededUniform(random_draws.SeededUniform):
    def __init__(self, *place: Any, **ranks: int) -> None:
        super().__init__(*place, **ranks)
        self.place = constant(self.start, self.layer, *self.position.asnumpy().tolist())
        self.uniform = operators.operator("draw_uniform", lambda _, place: [place[0] - 2])
        self.keys = operators.operator("draw_keys", lambda _, place: [place[0] - 1])

    def construct(self, batch: int) -> Tensor:
        if batch != self.batch_size:
            return super().construct(batch)
        return self.uniform(self.step, self.place)

    def layer_and_sample_keys(self) -> Tensor:
        """(1 + B,), whole numbers in float32."""
        return self.keys(self.step, self.place)


@overrides(dropout.SeededDropout)
class NativeSeededDropout(dropout.SeededDropout):
    def __init__(self, p: float, keys: random_draws.SeededUniform, *, seed: int) -> None:
        super().__init__(p, keys, seed=seed)
        self.kept = Tensor((self.table.asnumpy() >= self.threshold) * np.float32(self.scale))

    def draws(self) -> Tuple[Tensor, Tensor]:
        """Keys of layer and samples (1 + B,), and the factor of an element by its table entry."""
        return self.keys.layer_and_sample_keys(), self.kept


@overrides(drop_path.DropPath, add_kept=operators.add_kept, residual=operators.residual)
class NativeDropPath(drop_path.DropPath):
    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x + branch
        return self.add_kept(x, branch, self.keep(x))

    def add_scaled(self, x: Tensor, branch: Tensor, gamma: Tensor) -> Tensor:
        return self.residual(x, branch, gamma, self.keep(x))


@overrides(Relayout)
class NativeRelayout(Relayout):
    def __init__(self, source: str, target: str) -> None:
        super().__init__(source, target)
        self.reordered = operators.reordered(channels_first=target == NCHW)

    def construct(self, x: Tensor) -> Tensor:
        return x if self.source == self.target else self.reordered(x)


@overrides(global_pool.GlobalAveragePool, mean=operators.mean_of_maps)
class NativeGlobalAveragePool(global_pool.GlobalAveragePool):
    def construct(self, x: Tensor) -> Tensor:
        return self.mean(x)


@overrides(depthwise_conv.DepthwiseConv, convolve=operators.depthwise_conv)
class NativeDepthwiseConv(depthwise_conv.DepthwiseConv):
    def construct(self, x: Tensor) -> Tensor:
        y = self.convolve(relayout(x, self.layout, NHWC), self.weight, self.bias)
        return relayout(y, NHWC, self.layout)


@overrides(patch_embed.PatchConv, convolve=operators.patch_conv)
class NativePatchConv(patch_embed.PatchConv):
    def __init__(self, *sizes: int, **keywords: Any) -> None:
        super().__init__(*sizes, **keywords)
        self.before, self.after = Relayout(self.in_layout, NHWC), Relayout(NHWC, self.out_layout)

    def construct(self, x: Tensor) -> Tensor:
        return self.after(self.convolve(self.before(x), self.weight, self.bias))


@overrides(conv_pool.DenseConv, convolve=operators.dense_conv)
class NativeDenseConv(conv_pool.DenseConv):
    def __init__(self, *sizes: int, stride: int, padding: int, **keywords: Any) -> None:
        super().__init__(*sizes, stride=stride, padding=padding, **keywords)
        self.geometry = Tensor(np.zeros((sizes[2], stride, padding + 1)), ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        weight = self.weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        y = self.convolve(relayout(x, self.layout, NHWC), weight, self.geometry)
        return relayout(y, NHWC, self.layout)


@overrides(conv_pool.ReluMaxPool, relu_max_pool=operators.relu_max_pool)
class NativeReluMaxPool(conv_pool.ReluMaxPool):
    def construct(self, x: Tensor) -> Tensor:
        return relayout(self.relu_max_pool(relayout(x, self.layout, NHWC)), NHWC, self.layout)


@overrides(conv_pool.Tokenizer)
class NativeTokenizer(conv_pool.Tokenizer):
    layout = NHWC
