"""Gradient clipping; the functions work inside a compiled `construct`."""

from __future__ import annotations

from typing import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .tensors import Tensors, for_each, multiply


def clip_by_global_norm(grads: Tensors, norm: Tensor, limit: float) -> Tensors:
    """Gradients scaled so that their joint norm is at most `limit` (Pascanu et al. 2013).

    As torch.nn.utils.clip_grad_norm_.

    Args:
        norm: Euclidean norm of all gradients together, () float32.
    """
    return multiply(grads, ops.minimum(limit / (norm + 1e-6), 1.0))


def clip_by_value(grads: Tensors, limit: float) -> Tensors:
    """Every element brought into [-limit, limit], as torch.nn.utils.clip_grad_value_."""
    return for_each(ops.partial(_clip_elements, limit), grads)


def _clip_elements(limit: float, grad: Tensor) -> Tensor:
    return ops.clip_by_value(grad, -limit, limit)


def adaptive_clip(grads: Tensors, parameters: Tensors, factor: float) -> Tensors:
    """Adaptive gradient clipping (Brock et al. 2021, equation 3), as in timm.

    Of every unit, a row along the first axis of a matrix or kernel, or a whole vector, the
    gradient's norm is at most `factor` times the weights' norm; the latter counts as 1e-3 if it
    is smaller, so that weights that are zero can learn.
    """
    return for_each(ops.partial(_clip_units, factor), grads, parameters)


def _clip_units(factor: float, grad: Tensor, weight: Tensor) -> Tensor:
    limit = factor * ops.maximum(_unit_norm(weight), 1e-3)
    norm = _unit_norm(grad)
    ratio = limit / ops.maximum(norm, 1e-6)
    return grad * ops.select(norm < limit, ops.ones_like(ratio), ratio)


def _unit_norm(x: Tensor) -> Tensor:
    """(O, ...) -> (O, 1, ..., 1); a vector or a scalar -> ()."""
    if x.ndim <= 1:
        return ops.sqrt(ops.square(x).sum())
    return ops.sqrt(ops.square(x).sum(axis=tuple(range(1, x.ndim)), keepdims=True))


class GradientClip(nn.Cell):
    """The clipping of a recipe: `construct(grads, norm)` -> the clipped gradients.

    Shapes: `grads` as `parameters`, in their order; `norm` () float32, that of all of them.

    Args:
        mode: norm, value or adaptive.
        limit: largest global norm, largest absolute value, or factor of the weights' norm; > 0.
        parameters: mode adaptive leaves the last two alone. They are the classifier's weight and
            bias, which section 4.1 of the paper excludes and timm's training finds in this way.
    """

    def __init__(self, mode: str, limit: float, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.mode = mode
        self.limit = limit
        self.adapted = ParameterTuple(parameters[:-2])

    def construct(self, grads: Tensors, norm: Tensor) -> Tensors:
        if self.mode == "norm":
            return clip_by_global_norm(grads, norm, self.limit)
        if self.mode == "value":
            return clip_by_value(grads, self.limit)
        return adaptive_clip(grads[:-2], self.adapted, self.limit) + grads[-2:]
