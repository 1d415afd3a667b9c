"""A chip that saturates, on a CPU: its status register, and training steps whose numbers do as its.

    python tests/saturating_chip.py            eight steps, by isfinite alone and with the status
    python tests/saturating_chip.py FOLDER     one rank of several, under scripts/launch.py

The register is hidden from MindSpore's compiler, as the chip's is: only what depends on what
decides when it is cleared and read.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple
from unittest import mock

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from test_step_arithmetic import SquaredError

from src.args import OptimConfig, RunConfig
from src.optim.amp import LossScale
from src.optim.ema import Ema
from src.optim.optimizer import create_optimizer
from src.runtime import float_status
from src.runtime.collectives import MeanOverRanks
from src.runtime.device import setup_device
from src.runtime.float_status import FloatStatus
from src.runtime.ranks import ALONE, World
from src.trainer.train_one_step import TrainOneStep

LARGEST = 65504.0  # of float16
LR = 0.05
State = Dict[str, np.ndarray]


class Chip:
    """Attributes: overflowed, the register; log, what has run: clear, read, compute."""

    def __init__(self) -> None:
        self.overflowed = False
        self.log: List[str] = []


CHIP = Chip()


def _clear(numbers: np.ndarray) -> np.ndarray:
    CHIP.log.append("clear")
    CHIP.overflowed = False
    return numbers


def _read(numbers: np.ndarray) -> np.ndarray:
    CHIP.log.append("read")
    status = np.zeros_like(numbers)
    status[3] = 2 * CHIP.overflowed
    return status


def _saturate(x: np.ndarray) -> np.ndarray:
    CHIP.log.append("compute")
    CHIP.overflowed |= not (np.abs(x) <= LARGEST).all()
    return np.clip(np.where(np.isnan(x), 0.0, x), -LARGEST, LARGEST).astype(x.dtype)


def _operator(function: Callable, bprop: Optional[Callable] = None) -> ops.Custom:
    return ops.Custom(function, lambda x: x, lambda x: x, func_type="pyfunc", bprop=bprop)


@contextlib.contextmanager
def saturating_chip() -> Iterator[Chip]:
    """Inside, a `FloatStatus` reads the register of the chip that this gives, cleared."""
    CHIP.overflowed = False
    CHIP.log.clear()
    with mock.patch.multiple(
        float_status,
        NPUClearFloatStatusV2=lambda: _operator(_clear),
        NPUGetFloatStatusV2=lambda: _operator(_read),
    ):
        yield CHIP


class Saturated(nn.Cell):
    """Any shape: as the chip would store it, and so is its gradient."""

    def __init__(self) -> None:
        super().__init__()
        backward = _operator(_saturate)

        def bprop(_x: Tensor, _out: Tensor, gradient: Tensor) -> Tuple[Tensor]:
            return (backward(gradient),)

        self.saturate = _operator(_saturate, bprop)

    def construct(self, x: Tensor) -> Tensor:
        return self.saturate(x)


class SaturatingNet(nn.Cell):
    """(B, 3) -> (B, 2): running statistics, a matrix and a bias, on the chip.

    Five numbers are stored on the way forward, and the gradients of all but the images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stored = Saturated()
        self.norm = nn.BatchNorm1d(3, eps=1e-5, momentum=0.9, affine=False)
        self.fc = nn.Dense(3, 2)

    def construct(self, x: Tensor) -> Tensor:
        weight = ops.transpose(self.stored(self.fc.weight), (1, 0))
        product = self.stored(ops.matmul(self.norm(self.stored(x)), weight))
        return self.stored(product + self.stored(self.fc.bias))

    def no_weight_decay(self) -> set:
        return set()


def build_step(
    status: Optional[FloatStatus],
    *,
    scale: float = 1024.0,
    window: int = 100,
    accumulation_step: int = 1,
    optimizer: str = "adamw",
    world: World = ALONE,
) -> TrainOneStep:
    """With everything that an overflow must leave alone: moments, averages, statistics."""
    network = SaturatingNet()
    # MindSpore's versions draw different ones.
    network.fc.weight.set_data(Tensor(np.array([[0.4, -0.2, 0.1], [0.3, 0.5, -0.6]], np.float32)))
    network.fc.bias.set_data(Tensor(np.array([0.1, -0.1], np.float32)))
    return TrainOneStep(
        SquaredError(network),
        create_optimizer(OptimConfig(optimizer=optimizer, weight_decay=0.1), network),
        LossScale(scale, dynamic=True, factor=2.0, window=window),
        calls=Parameter(Tensor(0, ms.int32), name="train.calls", requires_grad=False),
        ema=Ema(network.trainable_params(), decay=0.8, warmup=False),
        accumulation_step=accumulation_step,
        mean_over_ranks=MeanOverRanks(world) if world.size > 1 else None,
        float_status=status,
    ).set_train(True)


def batch(seed: int, *, factor: float = 1.0, pixel: float = 0.0) -> List[np.ndarray]:
    """x (6, 3), target (6, 2), factor of the loss (); `pixel` is added to one number of x."""
    rng = np.random.default_rng(seed)
    x, target = (rng.normal(1.0, 2.0, (6, n)).astype(np.float32) for n in (3, 2))
    x[0, 0] += pixel
    return [x, target, np.float32(factor)]


def run(step: TrainOneStep, inputs: List[np.ndarray]) -> List[float]:
    """loss, norm, finite, scale"""
    outputs = step(*map(Tensor, [*inputs, np.float32(LR)]))
    return [float(output.asnumpy()) for output in outputs]


def state(step: TrainOneStep) -> State:
    """All that a checkpoint holds."""
    return {parameter.name: parameter.asnumpy().copy() for parameter in step.saved_parameters()}


def eight_steps(status: Optional[FloatStatus]) -> List[Tuple[float, float, float]]:
    """(scale, loss, sum of the weights) of each: the first before it, the last after it."""
    step = build_step(status, scale=2.0**17, window=2, optimizer="momentum")
    rows: List[Tuple[float, float, float]] = []
    for _ in range(8):
        loss, _, _, scale = run(step, batch(1))
        weights = step.optimizer.parameters
        rows.append(
            (scale, loss, sum(float(w.asnumpy().astype(np.float64).sum()) for w in weights))
        )
    return rows


def show_eight_steps() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    with saturating_chip():
        before, after = eight_steps(None), eight_steps(FloatStatus())
    print("step | isfinite: scale, loss, weights   | with the status: scale, loss, weights")
    for number, both in enumerate(zip(before, after), 1):
        shown = [f"2^{np.log2(scale):.0f} {loss:12.4f} {sum_:12.6f}" for scale, loss, sum_ in both]
        print(f"{number:4} | {shown[0]}    | {shown[1]}")


def train_on_a_rank(folder: Path) -> None:
    """Three steps, in the second of which rank 1 overflows; leaves finite_N.npy and state_N.npz."""
    world = setup_device(RunConfig(cpu_kernels="off"), seed=11)
    with saturating_chip():
        step = build_step(FloatStatus(world), world=world)
        finite = []
        for number in range(3):
            is_large = number == 1 and world.rank == 1
            inputs = batch(10 * number + world.rank, factor=1e5 if is_large else 1.0)
            finite.append(run(step, inputs)[2])
    np.save(folder / f"finite_{world.rank}.npy", finite)
    np.savez(folder / f"state_{world.rank}.npz", **state(step))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_on_a_rank(Path(sys.argv[1]))
    else:
        show_eight_steps()
