"""Arithmetic on many tensors at once, inside a compiled `construct`.

A loop over them would be compiled as calls within calls: slow from some hundred tensors on, and
beyond the compiler's depth from a few hundred. `for_each` is compiled side by side.

A function that changes parameters with it returns its result, whoever needs it: MindSpore 2.0
drops the call of a function that returns None, with all `for_each` did in it.
"""

from __future__ import annotations

from typing import Tuple

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from ..overrides import Overridable

Tensors = Tuple[Tensor, ...]

# for_each(function, a, b, ...) -> (function(a[0], b[0], ...), function(a[1], b[1], ...), ...)
for_each = ops.HyperMap()


def _square_sum(x: Tensor) -> Tensor:
    return ops.square(x.astype(ms.float32)).sum()


class GlobalNorm(Overridable, nn.Cell):
    """Euclidean norm of all tensors together: tensors of any shapes -> () float32."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    def construct(self, tensors: Tensors) -> Tensor:
        return ops.sqrt(ops.addn(for_each(_square_sum, tensors)))


class Snapshot(Overridable, nn.Cell):
    """The values of parameters at one moment, to go back to."""

    def __init__(self, parameters: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = parameters

    def take(self) -> Tensors:
        """The present values: one of each parameter, or all in one."""
        return copies(self.parameters)

    def restore(self, values: Tensors) -> Tensors:
        """Sets the parameters to what `take` gave."""
        return assign(self.parameters, values)


def _product(factor: Tensor, x: Tensor) -> Tensor:
    return x * factor


def multiply(tensors: Tensors, factor: Tensor) -> Tensors:
    """Every tensor times a scalar."""
    return for_each(ops.partial(_product, factor), tensors)


def _copy(parameter: Tensor) -> Tensor:
    # A product with 1 is simplified to the parameter itself; the difference is computed, exactly.
    return parameter - 0.0


def copies(parameters: Tensors) -> Tensors:
    """The present values, which later assignments do not change."""
    return for_each(_copy, parameters)


def _assign(parameter: Tensor, value: Tensor) -> Tensor:
    return ops.assign(parameter, value)


def assign(parameters: Tensors, values: Tensors) -> Tensors:
    """Sets every parameter."""
    return for_each(_assign, parameters, values)


def _add(parameter: Tensor, value: Tensor) -> Tensor:
    return ops.assign(parameter, parameter + value)


def add_to(parameters: Tensors, values: Tensors) -> Tensors:
    """Adds to every parameter."""
    return for_each(_add, parameters, values)


def _clear(parameter: Tensor) -> Tensor:
    return ops.assign(parameter, ops.zeros_like(parameter))


def clear(parameters: Tensors) -> Tensors:
    """Sets every parameter to zeros."""
    return for_each(_clear, parameters)
