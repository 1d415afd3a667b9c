"""What the processes of a run tell each other. With one process nothing is sent."""

from __future__ import annotations

import functools
from typing import Optional, Tuple

import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import UserError
from .ranks import World

# A float64 is the sum of three float32, which is what every backend's collectives carry.
_PARTS = 3
_for_each = ops.HyperMap()


class MeanOverRanks(nn.Cell):
    """Each tensor's mean over all processes; the same bits on each of them."""

    def __init__(self, world: World) -> None:
        super().__init__(auto_prefix=False)
        # One message for all tensors instead of one for each, where the backend can.
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM).add_prim_attr("fusion", 1)
        self.size = float(world.size)

    def construct(self, tensors: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
        return _for_each(self._mean, tensors)

    def _mean(self, tensor: Tensor) -> Tensor:
        return self.all_reduce(tensor) / self.size


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x: Tensor) -> Tensor:
        return self.all_reduce(x)


@functools.cache
def _sum() -> _Sum:
    """The process's only one: each cell is compiled anew, once for every shape it is given."""
    return _Sum()


def _send(values: np.ndarray, world: World) -> Tensor:
    """(...) float64 of each process -> what `_receive` reads, maybe later, on all of them."""
    parts = np.zeros((world.size, _PARTS, *values.shape), np.float32)
    rest = values
    for part in range(_PARTS):
        parts[world.rank, part] = rest
        # An infinity is whole already; subtracting it from itself would make it NaN.
        rest = np.where(np.isfinite(rest), rest - parts[world.rank, part].astype(np.float64), 0.0)
    # The other rows are zero, so the sum is exact.
    return _sum()(Tensor(parts))


def _receive(sent: Tensor) -> np.ndarray:
    """(size, ...) float64: what each process has sent, to the bit."""
    return sent.asnumpy().astype(np.float64).sum(axis=1)


def gather_from_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """(...) float64 of each process -> (size, ...) float64 on all of them, to the bit.

    Every process has to call it, with the same shape; the first call with a shape compiles a graph.
    """
    values = np.asarray(values, np.float64)
    return values[None] if world.size == 1 else _receive(_send(values, world))


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """Sum in float64, the same bits on every process."""
    return gather_from_ranks(values, world).sum(axis=0)


def check_equal_over_ranks(what: str, value: float, world: World, *, remedy: str) -> None:
    """Refuses to go on with processes that differ.

    Raises:
        UserError: naming each process's value.
    """
    values = gather_from_ranks(np.array(value), world)
    if (values != values[0]).any():
        shown = ", ".join(f"{number:g}" for number in values[:16])
        raise UserError(f"{what} differs between the ranks ({shown}); {remedy}")


class StopVote:
    """Lets all processes end after the same step, whichever of them has a reason to.

    The vote of one step is read in the next, so the host does not wait for the device.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: Optional[Tensor] = None

    def agreed(self, received: Optional[int]) -> Optional[int]:
        """The reason that ends the run now; None: there is none.

        Args:
            received: number of the signal this process has got, or another reason, above 0.
        """
        if self._world.size == 1:
            return received
        previous, self._sent = self._sent, _send(np.array(float(received or 0)), self._world)
        return int(_receive(previous).max()) or None if previous is not None else None
