"""The outputs of training steps, by name: kept on the device, read when they are asked for."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest

from src.trainer.step_outputs import OutputBuffer, StepOutputs


class OnDevice:
    """A scalar whose reading is counted."""

    reads = 0

    def __init__(self, value: float) -> None:
        self._value = np.float32(value)

    def asnumpy(self) -> np.ndarray:
        OnDevice.reads += 1
        return np.array(self._value)


@pytest.fixture(autouse=True)
def _no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDevice, "reads", 0)


def step(number: int, *, is_finite: bool = True) -> List[StepOutputs]:
    """Two batches: one that is accumulated, one that updates the weights."""
    first = StepOutputs(*(OnDevice(x) for x in (number, 0, True, 8)))
    return [first, StepOutputs(*(OnDevice(x) for x in (number + 0.5, 10 * number, is_finite, 4)))]


def test_nothing_is_read_before_it_is_asked_for() -> None:
    buffer = OutputBuffer()
    buffer.add(step(1))
    buffer.add(step(2))
    assert (buffer.waiting, buffer.has_read, OnDevice.reads) == (2, False, 0)
    assert buffer.read().loss.shape == (2, 2)
    assert (buffer.waiting, buffer.has_read, OnDevice.reads) == (0, True, 16)


def test_outputs_are_taken_once_and_in_order() -> None:
    buffer = OutputBuffer()
    for number in (1, 2):
        buffer.add(step(number))
    buffer.read()
    buffer.add(step(3, is_finite=False))
    last = buffer.read()
    assert last.loss.tolist() == [[3.0, 3.5]]
    taken = buffer.take()
    assert taken.loss.tolist() == [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]
    assert taken.loss_scale.tolist() == [[8.0, 4.0]] * 3
    assert not buffer.has_read
    buffer.add(step(4))
    buffer.read()
    assert buffer.take().loss.tolist() == [[4.0, 4.5]]


def test_updates_are_those_of_the_last_batch_of_each_step() -> None:
    buffer = OutputBuffer()
    buffer.add(step(1))
    buffer.add(step(2, is_finite=False))
    updates = buffer.read().of_updates()
    assert updates.grad_norm.tolist() == [10.0, 20.0]
    assert updates.is_finite.tolist() == [1.0, 0.0]
    assert updates.loss_scale.tolist() == [4.0, 4.0]
