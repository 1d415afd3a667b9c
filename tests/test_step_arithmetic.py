"""The compiled training step against NumPy. It needs no torch, so the core suite has it."""

from __future__ import annotations

from typing import Dict, List

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from src.args import OptimConfig
from src.optim.amp import LossScale
from src.optim.ema import Ema
from src.optim.optimizer import create_optimizer
from src.trainer.train_one_step import TrainOneStep

LR, DECAY, EMA_DECAY = 0.05, 0.1, 0.8
Arrays = Dict[str, np.ndarray]


class NormalisedDense(nn.Cell):
    """(B, 3) -> (B, 2): running statistics, a matrix that decays and a bias that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, eps=1e-5, momentum=0.9, affine=False)
        self.fc = nn.Dense(3, 2)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x))

    def no_weight_decay(self) -> set:
        return set()


class SquaredError(nn.Cell):
    """(B, 3), (B, 2), () -> mean squared error times the last, which can make it overflow."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x: Tensor, target: Tensor, factor: Tensor) -> Tensor:
        return ops.square(self.network(x) - target).mean() * factor


class Reference:
    """The same training in float64, one method for each rule of update."""

    def __init__(self, optim: OptimConfig, initial: Arrays) -> None:
        self.optim = optim
        self.weights = {name: value.astype(np.float64) for name, value in initial.items()}
        self.averages = dict(self.weights)
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = dict(self.first)
        self.mean = np.zeros(3)
        self.updates = 0

    def gradient(self, x: np.ndarray, target: np.ndarray) -> Arrays:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        normal = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        out = normal @ self.weights["fc.weight"].T + self.weights["fc.bias"]
        slope = 2 * (out - target) / out.size
        return {"fc.weight": slope.T @ normal, "fc.bias": slope.sum(0)}

    def update(self, grads: Arrays) -> None:
        self.updates += 1
        for name, grad in grads.items():
            decay = DECAY if name == "fc.weight" else 0.0
            getattr(self, self.optim.optimizer)(name, grad, decay)
            average = self.averages[name]
            self.averages[name] = average + (1 - EMA_DECAY) * (self.weights[name] - average)

    def momentum(self, name: str, grad: np.ndarray, decay: float) -> None:
        grad = grad + decay * self.weights[name]
        self.first[name] = self.optim.momentum * self.first[name] + grad
        self.weights[name] = self.weights[name] - LR * self.first[name]

    def adamw(self, name: str, grad: np.ndarray, decay: float) -> None:
        beta1, beta2 = self.optim.beta
        self.first[name] = beta1 * self.first[name] + (1 - beta1) * grad
        self.second[name] = beta2 * self.second[name] + (1 - beta2) * grad**2
        mean = self.first[name] / (1 - beta1**self.updates)
        root = np.sqrt(self.second[name] / (1 - beta2**self.updates))
        kept = self.weights[name] * (1 - LR * decay)
        self.weights[name] = kept - LR * mean / (root + self.optim.eps)


def run(step: TrainOneStep, batch: List[np.ndarray], factor: float) -> List[float]:
    inputs = [*batch, np.float32(factor), np.float32(LR)]
    return [float(output.asnumpy()) for output in step(*map(Tensor, inputs))]


def state(step: TrainOneStep) -> Arrays:
    return {parameter.name: parameter.asnumpy().copy() for parameter in step.saved_parameters()}


@pytest.mark.parametrize(
    ("optimizer", "accumulation_step"),
    [
        *(("adamw", 2), ("momentum", 1)),
        pytest.param("adamw", 1, marks=pytest.mark.slow),
        pytest.param("momentum", 2, marks=pytest.mark.slow),
    ],
)
def test_updates_equal_numpys_and_an_overflow_leaves_no_trace(
    optimizer: str, accumulation_step: int
) -> None:
    rng = np.random.default_rng(7)
    shapes = [(6, 3), (6, 2)]
    batches = [
        [rng.normal(1.0, 2.0, size=shape).astype(np.float32) for shape in shapes]
        for _ in range(accumulation_step)
    ]
    optim = OptimConfig(optimizer=optimizer, weight_decay=DECAY)
    ms.set_seed(1)  # how far the loss falls depends on where it starts
    network = NormalisedDense()
    step = TrainOneStep(
        SquaredError(network),
        create_optimizer(optim, network),
        LossScale(64.0, dynamic=True, factor=2.0, window=100),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        ema=Ema(network.trainable_params(), decay=EMA_DECAY, warmup=False),
        accumulation_step=accumulation_step,
    ).set_train(True)
    reference = Reference(optim, {p.name: p.asnumpy() for p in network.trainable_params()})
    losses = []
    for number in range(8):
        if number == 5:
            before = state(step)
            outputs = [run(step, batch, np.inf) for batch in batches][-1]
            assert not outputs[2]
            after = state(step)
            changed = {name for name in before if not np.array_equal(before[name], after[name])}
            assert changed == {"train.loss_scale", "train.finite_steps", "train.calls"}
        losses.append(np.mean([run(step, batch, 1.0)[0] for batch in batches]))
        parts = [reference.gradient(*batch) for batch in batches]
        reference.update({name: np.mean([part[name] for part in parts], 0) for name in parts[0]})
    assert losses[-1] < 0.9 * losses[0]
    found = state(step)
    assert (found["train.updates"], found["train.loss_scale"]) == (8, 32.0)
    expected = {**reference.weights, "norm.moving_mean": reference.mean}
    expected.update({f"train.ema.{name}": value for name, value in reference.averages.items()})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
