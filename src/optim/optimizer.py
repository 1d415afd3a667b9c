"""Optimizers with the arithmetic of torch, timm or MindSpore, on fused kernels where there are any.

All of them share one contract: `construct(grads, lr)` updates `parameters` in place, in float32,
and returns the number of updates done. `grads` are in the order of `parameters`, already clipped;
`lr` is a () float32 tensor. The state is made of Parameters named `train.*`, saved as such.
"""

from __future__ import annotations

from functools import partial
from typing import Any, List, Optional, Sequence, Tuple

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..args import OptimConfig
from ..overrides import Overridable
from .tensors import Tensors, for_each


def decays(parameter: Parameter, excluded: Sequence[str]) -> bool:
    """Whether weight decay applies: not to vectors (norms, biases), nor to names in `excluded`."""
    return parameter.ndim > 1 and parameter.name not in excluded


def layer_scales(network: nn.Cell, layer_decay: Optional[float]) -> List[float]:
    """Factor of the learning rate of each trainable parameter (Clark et al. 2020, section 3.2).

    The last of `network.layer_groups()`, the head, has 1; each group before it has `layer_decay`
    times the factor of the next.

    Args:
        layer_decay: in (0, 1]; None: every factor is 1.
    """
    parameters = network.trainable_params()
    if layer_decay is None:
        return [1.0] * len(parameters)
    groups = network.layer_groups()
    scale = {
        name: layer_decay ** (len(groups) - 1 - depth)
        for depth, names in enumerate(groups)
        for name in names
    }
    return [scale[parameter.name] for parameter in parameters]


class Optimizer(nn.Cell):
    """What the optimizers share.

    Args:
        decay: whether each parameter decays, in the order of `parameters`.
        lr_scale: factor of the learning rate of each parameter, decoupled decay included, as of a
            torch parameter group with its own rate; None: 1 for all.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        decay: Sequence[bool],
        *,
        weight_decay: float,
        lr_scale: Optional[Sequence[float]] = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        # Updates done: steps skipped on overflow do not count.
        self.updates = Parameter(Tensor(0, ms.int32), name="train.updates", requires_grad=False)
        self.decay = tuple(weight_decay if flag else 0.0 for flag in decay)
        self.lr_scale = tuple([1.0] * len(decay) if lr_scale is None else lr_scale)

    def count_update(self) -> Tensor:
        """Adds one to `updates`; returns it, () int32."""
        updates = self.updates + 1
        ops.assign(self.updates, updates)
        return updates

    def _for_each(self, step: Any, grads: Tensors, state: Tuple[Tensors, ...]) -> Tensors:
        """`step(weight, grad, decay, lr_scale, *state)` for each parameter."""
        weights, scales = self.parameters, self.lr_scale
        if len(state) == 1:
            return for_each(step, weights, grads, self.decay, scales, state[0])
        return for_each(step, weights, grads, self.decay, scales, state[0], state[1])


class AdaptiveOptimizer(Optimizer):
    """What the optimizers with a first and a second moment share.

    Args:
        beta: decay of the two moments.
        eps: added to the root of the second one.

    The other arguments are those of `Optimizer`.
    """

    def __init__(
        self, *weights: Any, beta: Tuple[float, float], eps: float, **settings: Any
    ) -> None:
        super().__init__(*weights, **settings)
        self.moment1 = self.parameters.clone("train.moment1", init="zeros")
        self.moment2 = self.parameters.clone("train.moment2", init="zeros")
        self.beta1, self.beta2 = beta
        self.eps = eps


class AdamW(Overridable, AdaptiveOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), bias-corrected.

    The arithmetic of torch.optim.AdamW.
    """

    adam = ops.Adam()

    def construct(self, grads: Tensors, lr: Tensor) -> Tensor:
        updates = self.count_update()
        exponent = updates.astype(ms.float32)
        self.update(grads, lr, ops.pow(self.beta1, exponent), ops.pow(self.beta2, exponent))
        return updates

    def update(self, grads: Tensors, lr: Tensor, power1: Tensor, power2: Tensor) -> Tensors:
        """Of all weights and moments; `power1` and `power2` are beta1^t and beta2^t, ()."""
        # The kernel divides by sqrt(v) + eps before it corrects the bias of v, torch after it.
        eps = self.eps * ops.sqrt(1.0 - power2)
        step = ops.partial(self._step, lr, power1, power2, eps)
        return self._for_each(step, grads, (self.moment1, self.moment2))

    def _step(
        self,
        lr: Tensor,
        power1: Tensor,
        power2: Tensor,
        eps: Tensor,
        weight: Parameter,
        grad: Tensor,
        decay: float,
        scale: float,
        moment1: Parameter,
        moment2: Parameter,
    ) -> Any:
        rate = lr * scale
        if decay > 0.0:
            ops.assign(weight, weight * (1.0 - rate * decay))
        beta1, beta2 = self.beta1, self.beta2
        return self.adam(weight, moment1, moment2, power1, power2, rate, beta1, beta2, eps, grad)


class AdamWeightDecay(AdaptiveOptimizer):
    """Adam with decoupled weight decay and without bias correction: mindspore.nn.AdamWeightDecay.

    The first updates are larger than AdamW's, by (1 - beta1) / sqrt(1 - beta2) at the first one:
    3.2 times with beta (0.9, 0.999).
    """

    adam = ops.AdamWeightDecay()

    def construct(self, grads: Tensors, lr: Tensor) -> Tensor:
        updates = self.count_update()
        self._for_each(ops.partial(self._step, lr), grads, (self.moment1, self.moment2))
        return updates

    def _step(
        self,
        lr: Tensor,
        weight: Parameter,
        grad: Tensor,
        decay: float,
        scale: float,
        moment1: Parameter,
        moment2: Parameter,
    ) -> Any:
        rate, betas = lr * scale, (self.beta1, self.beta2)
        return self.adam(weight, moment1, moment2, rate, betas[0], betas[1], self.eps, decay, grad)


class Momentum(Optimizer):
    """Stochastic gradient descent with momentum and L2 decay, as torch.optim.SGD.

    Args:
        nesterov: look ahead by one step of the velocity (Sutskever et al. 2013, section 2).

    The other arguments are those of `Optimizer`.
    """

    apply = ops.ApplyMomentum()

    def __init__(
        self, *weights: Any, momentum: float, nesterov: bool = False, **settings: Any
    ) -> None:
        super().__init__(*weights, **settings)
        self.velocity = self.parameters.clone("train.velocity", init="zeros")
        self.momentum = momentum
        self.nesterov = nesterov

    def construct(self, grads: Tensors, lr: Tensor) -> Tensor:
        updates = self.count_update()
        # All of them before the first update: on a GPU the framework joins the updates into one
        # operator, which a weight read between two of them would make wait for itself.
        grads = for_each(self._decayed, self.parameters, grads, self.decay)
        self._for_each(ops.partial(self._step, lr), grads, (self.velocity,))
        return updates

    @staticmethod
    def _decayed(weight: Parameter, grad: Tensor, decay: float) -> Tensor:
        return grad + weight * decay

    def _step(
        self,
        lr: Tensor,
        weight: Parameter,
        grad: Tensor,
        decay: float,
        scale: float,
        velocity: Parameter,
    ) -> Any:
        rate = lr * scale
        if not self.nesterov:
            return self.apply(weight, velocity, rate, grad, self.momentum)
        # The kernel has an attribute for it, which is ignored on CPU.
        ahead = self.momentum * velocity + grad
        ops.assign(weight, weight - rate * (grad + self.momentum * ahead))
        return ops.assign(velocity, ahead)


class Lamb(AdaptiveOptimizer):
    """Layer-wise adaptive Adam for large batches (You et al. 2020, algorithm 2), bias-corrected.

    The arithmetic of timm.optim.Lamb with max_grad_norm=None: the gradient is clipped before it
    comes here, by the recipe's own limit. As there, parameters that do not decay take plain Adam
    steps.
    """

    def construct(self, grads: Tensors, lr: Tensor) -> Tensor:
        updates = self.count_update()
        exponent = updates.astype(ms.float32)
        correction1 = 1.0 - ops.pow(self.beta1, exponent)
        correction2 = ops.sqrt(1.0 - ops.pow(self.beta2, exponent))
        step = ops.partial(self._step, lr, correction1, correction2)
        self._for_each(step, grads, (self.moment1, self.moment2))
        return updates

    def _step(
        self,
        lr: Tensor,
        correction1: Tensor,
        correction2: Tensor,
        weight: Parameter,
        grad: Tensor,
        decay: float,
        scale: float,
        moment1: Parameter,
        moment2: Parameter,
    ) -> Any:
        rate = lr * scale
        mean = self.beta1 * moment1 + (1.0 - self.beta1) * grad
        square = self.beta2 * moment2 + (1.0 - self.beta2) * ops.square(grad)
        update = (mean / correction1) / (ops.sqrt(square) / correction2 + self.eps)
        if decay > 0.0:
            update = update + decay * weight
            rate = rate * self._trust_ratio(weight, update)
        ops.assign(moment1, mean)
        ops.assign(moment2, square)
        return ops.assign(weight, weight - rate * update)

    @staticmethod
    def _trust_ratio(weight: Tensor, update: Tensor) -> Tensor:
        weight_norm = ops.sqrt(ops.square(weight).sum())
        update_norm = ops.sqrt(ops.square(update).sum())
        known = ops.logical_and(weight_norm > 0.0, update_norm > 0.0)
        one = ops.ones_like(weight_norm)
        return ops.select(known, weight_norm / ops.select(known, update_norm, one), one)


class Lion(Optimizer):
    """Sign of an interpolated momentum, decoupled decay (Chen et al. 2023, algorithm 2).

    The arithmetic of timm.optim.Lion. Arguments: `beta`, and those of `Optimizer`.
    """

    def __init__(self, *weights: Any, beta: Tuple[float, float], **settings: Any) -> None:
        super().__init__(*weights, **settings)
        self.moment1 = self.parameters.clone("train.moment1", init="zeros")
        self.beta1, self.beta2 = beta

    def construct(self, grads: Tensors, lr: Tensor) -> Tensor:
        updates = self.count_update()
        self._for_each(ops.partial(self._step, lr), grads, (self.moment1,))
        return updates

    def _step(
        self,
        lr: Tensor,
        weight: Parameter,
        grad: Tensor,
        decay: float,
        scale: float,
        moment1: Parameter,
    ) -> Any:
        rate = lr * scale
        direction = ops.sign(self.beta1 * moment1 + (1.0 - self.beta1) * grad)
        mean = self.beta2 * moment1 + (1.0 - self.beta2) * grad
        ops.assign(weight, weight * (1.0 - rate * decay) - rate * direction)
        return ops.assign(moment1, mean)


def create_optimizer(optim: OptimConfig, network: nn.Cell) -> Optimizer:
    """The optimizer of the recipe over all trainable parameters of `network`."""
    builders = {
        "adamw": partial(AdamW, beta=optim.beta, eps=optim.eps),
        "adamweightdecay": partial(AdamWeightDecay, beta=optim.beta, eps=optim.eps),
        "sgd": partial(Momentum, momentum=optim.momentum, nesterov=True),
        "momentum": partial(Momentum, momentum=optim.momentum),
        "lamb": partial(Lamb, beta=optim.beta, eps=optim.eps),
        "lion": partial(Lion, beta=optim.beta),
    }
    parameters = network.trainable_params()
    excluded = network.no_weight_decay()
    return builders[optim.optimizer](
        parameters,
        [decays(parameter, excluded) for parameter in parameters],
        weight_decay=optim.weight_decay,
        lr_scale=layer_scales(network, optim.layer_decay),
    )
