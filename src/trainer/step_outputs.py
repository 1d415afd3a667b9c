"""What training steps return, left on the device until somebody asks for it."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Sequence

import numpy as np


class StepOutputs(NamedTuple):
    """Outputs of `TrainOneStep`, which gives them as a plain tuple: a graph knows no names.

    Of one call each is (); of several steps each is (steps, batches of a step), read from the
    device.

    Attributes:
        loss: of the batch.
        grad_norm: of the unclipped gradient; 0 for a batch that is only accumulated.
        is_finite: whether that gradient was; True for a batch that is only accumulated.
        loss_scale: used for the batch.
    """

    loss: Any
    grad_norm: Any
    is_finite: Any
    loss_scale: Any

    def of_updates(self) -> StepOutputs:
        """Each (steps,): of the last batch of each step, with which the weights are updated."""
        return StepOutputs(*(values[:, -1] for values in self))


class OutputBuffer:
    """The outputs of the steps since `take`; those of `waiting` steps are on the device still."""

    def __init__(self) -> None:
        self._waiting: List[Sequence[StepOutputs]] = []
        self._read: List[StepOutputs] = []

    @property
    def waiting(self) -> int:
        """Steps whose outputs have not been read."""
        return len(self._waiting)

    def add(self, calls: Sequence[StepOutputs]) -> None:
        """Keeps what the calls of one step returned, and does not wait for it."""
        self._waiting.append(calls)

    def read(self) -> StepOutputs:
        """Waits for the steps that `waiting` counts, and returns their outputs."""
        values = np.array(
            [[[float(x.asnumpy()) for x in call] for call in step] for step in self._waiting]
        )
        self._waiting.clear()
        self._read.append(StepOutputs(*np.moveaxis(values, -1, 0)))
        return self._read[-1]

    def take(self) -> StepOutputs:
        """All that have been read since the last call."""
        taken = StepOutputs(*(np.concatenate(values) for values in zip(*self._read)))
        self._read.clear()
        return taken

    @property
    def has_read(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._read)
