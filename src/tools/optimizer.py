"""Optimizers with PyTorch's arithmetic, on the framework's fused kernels."""

from __future__ import annotations

from typing import Sequence, Tuple

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.args import OptimConfig


def decays(parameter: Parameter, excluded: Sequence[str]) -> bool:
    """Whether weight decay applies: not to vectors (norms, biases), nor to names in `excluded`."""
    return parameter.ndim > 1 and parameter.name not in excluded


class AdamW(nn.Cell):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), bias-corrected.

    `construct(grads, lr)` updates the parameters in place, by the arithmetic of torch.optim.AdamW.

    Args:
        decay: whether each parameter decays, in the order of `parameters`.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        decay: Sequence[bool],
        *,
        weight_decay: float,
        beta: Tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.moment1 = self.parameters.clone("train.moment1", init="zeros")
        self.moment2 = self.parameters.clone("train.moment2", init="zeros")
        # Updates done: steps skipped on overflow do not count.
        self.updates = Parameter(Tensor(0, ms.int32), name="train.updates", requires_grad=False)
        self.decay = tuple(weight_decay if flag else 0.0 for flag in decay)
        self.beta1, self.beta2 = beta
        self.eps = eps
        self.adam = ops.Adam()

    def construct(self, grads: Tuple[Tensor, ...], lr: Tensor) -> Tensor:
        updates = self.updates + 1
        ops.assign(self.updates, updates)
        exponent = updates.astype(ms.float32)
        power1 = ops.pow(self.beta1, exponent)
        power2 = ops.pow(self.beta2, exponent)
        # The kernel divides by sqrt(v) + eps before it corrects the bias of v, torch after it.
        eps = self.eps * ops.sqrt(1.0 - power2)
        for i in range(len(self.parameters)):
            weight = self.parameters[i]
            if self.decay[i] > 0.0:
                ops.assign(weight, weight * (1.0 - lr * self.decay[i]))
            self.adam(
                weight,
                self.moment1[i],
                self.moment2[i],
                power1,
                power2,
                lr,
                self.beta1,
                self.beta2,
                eps,
                grads[i],
            )
        return updates


class Momentum(nn.Cell):
    """Stochastic gradient descent with momentum and L2 decay, as torch.optim.SGD."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        decay: Sequence[bool],
        *,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.velocity = self.parameters.clone("train.velocity", init="zeros")
        self.updates = Parameter(Tensor(0, ms.int32), name="train.updates", requires_grad=False)
        self.decay = tuple(weight_decay if flag else 0.0 for flag in decay)
        self.momentum = momentum
        self.apply = ops.ApplyMomentum()

    def construct(self, grads: Tuple[Tensor, ...], lr: Tensor) -> Tensor:
        updates = self.updates + 1
        ops.assign(self.updates, updates)
        for i in range(len(self.parameters)):
            weight = self.parameters[i]
            grad = grads[i] + weight * self.decay[i]
            self.apply(weight, self.velocity[i], lr, grad, self.momentum)
        return updates


def create_optimizer(optim: OptimConfig, network: nn.Cell) -> nn.Cell:
    """The optimizer of the recipe over all trainable parameters of `network`."""
    parameters = network.trainable_params()
    excluded = network.no_weight_decay()
    decay = [decays(parameter, excluded) for parameter in parameters]
    if optim.optimizer == "adamw":
        return AdamW(
            parameters, decay, weight_decay=optim.weight_decay, beta=optim.beta, eps=optim.eps
        )
    if optim.optimizer == "momentum":
        return Momentum(parameters, decay, weight_decay=optim.weight_decay, momentum=optim.momentum)
    raise ValueError(f"optimizer {optim.optimizer!r}: expected 'adamw' or 'momentum'")
