"""ConvMixer on the kernels: all blocks are one operator in training."""

from __future__ import annotations

from typing import Any, Tuple

from mindspore import Tensor, nn, ops

from ..models.convmixer import ConvMixer
from ..models.layers.activation import Gelu
from ..models.layers.layout import NHWC
from .cells import constant, overrides
from .operators import Shape, in_place, like, like_and_columns, operator


def _running_norm(activation: str) -> ops.Custom:
    name = f"{activation}_running_norm"
    backward = operator(f"{name}_backward", like_and_columns(1, 2), 3)

    def bprop(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: Any, _: Any, dy: Any) -> Any:
        zeros = ops.zeros_like
        return (*backward(dy, x, gamma, mean, var, eps), zeros(mean), zeros(var), zeros(eps))

    return operator(f"{name}_forward", like(0), bprop=bprop)


class Blocks(nn.Cell):
    """From the output of the patch convolution to the last map, in training.

    Inputs: patches (B, H, W, C); keep (depth, B), through which no gradient flows; gamma and beta
    of the first norm, then of every block weight, bias, gamma and beta of the convolution and of
    the product. Outputs: (B, H, W, C), and what the gradient keeps, the batch's statistics last,
    (4 depth + 2, C).
    """

    def __init__(self, activation: str, depth: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = constant(epsilon)
        name = f"{activation}_conv_mixer_blocks"

        def shapes(_: Shape, patches: Shape, keep: Shape, *__: Shape) -> Any:
            maps = [keep[0], *patches]
            return patches, maps, maps, [4 * keep[0] + 2, patches[3]]

        self.forward = operator(f"{name}_forward", shapes, 4)
        self.backward = operator(f"{name}_backward", lambda _, x, *w: (x, *w[5:]), 3 + 8 * depth)

    def construct(self, patches: Tensor, keep: Tensor, weights: Tuple[Tensor, ...]) -> Any:
        return self.forward(self.epsilon, patches, keep, *weights)

    def bprop(self, patches: Any, keep: Any, weights: Any, out: Any, dout: Any) -> Any:
        grads = self.backward(self.epsilon, patches, keep, dout[0], *out[1:], *weights)
        return grads[0], ops.zeros_like(keep), grads[1:]


@overrides(ConvMixer)
class NativeConvMixer(ConvMixer):
    # Running statistics are moved by one operator: with inputs and assignments of their own they
    # would make the compiler copy every weight twice.
    layout = NHWC

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        norms, weights = [self.stem[2]], [self.stem[2].gamma, self.stem[2].beta]
        for block in self.blocks:
            for layer, norm in ((block[0].fn[0], block[0].fn[2]), (block[1], block[3])):
                norms.append(norm)
                weights += [layer.weight, layer.bias, norm.gamma, norm.beta]
        running = [x for norm in norms for x in (norm.moving_mean, norm.moving_variance)]
        drop_paths = [block[0].drop_path for block in self.blocks]
        # Past Cell's own way, which would give parameters and cells a second place.
        self.__dict__.update(
            weights=tuple(weights), running=tuple(running), drops=tuple(drop_paths)
        )
        activation = "gelu" if isinstance(self.stem[1], Gelu) else "relu"
        self.train_blocks = Blocks(activation, self.depth, norms[0].eps)
        self.norm = _running_norm(activation)
        self.follow_statistics = in_place("follow_statistics")
        self.epsilon, self.share = constant(norms[0].eps), constant(norms[0].momentum)

    def forward_features(self, x: Tensor) -> Tensor:
        if self.training and self.frozen_features == "some":
            return super().forward_features(x)  # with norms of both kinds
        x = self.stem[0](x)
        by_batch = self.training and self.frozen_features == "none"
        return self.to_map(self._by_batch(x) if by_batch else self._by_running(x))

    def _by_batch(self, x: Tensor) -> Tensor:
        keep = ops.stack([drop_path.keep(x) for drop_path in self.drops])  # (depth, B)
        y, _, _, statistics = self.train_blocks(x, keep, self.weights)
        self.follow_statistics(self.share, y, statistics, *self.running)
        return y

    def _by_running(self, x: Tensor) -> Tensor:
        x = self._norm(x, self.stem[2])
        for block in self.blocks.cell_list:
            x = x + self._norm(block[0].fn[0](x), block[0].fn[2])
            x = self._norm(block[1](x), block[3])
        return x

    def _norm(self, x: Tensor, n: nn.Cell) -> Tensor:
        return self.norm(x, n.gamma, n.beta, n.moving_mean, n.moving_variance, self.epsilon)
