"""The memory of batches: used again, but never while an array, a Tensor or a step reads it."""

from __future__ import annotations

from typing import Iterator, List

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from test_worker_processes import BATCHES, SHAPE, fill, keys

from src.data import worker_processes, workers
from src.data.rows import Buffers, Rows, Shape
from src.data.sampler import Key
from src.data.workers import batches_of

# Three are filled ahead, one is read, and the last one is still at hand while the next is awaited.
MOST_BUFFERS = 5


def stream(in_processes: bool, shape: Shape = SHAPE, count: int = BATCHES) -> Iterator[Rows]:
    samples = (Key(0, index, 0) for index in range(count * shape.batch_size))
    return batches_of(fill, samples, shape, num_workers=2, in_processes=in_processes, file_name=str)


def first_byte(batch: Rows) -> int:
    return int(batch.image.__array_interface__["data"][0])


@pytest.mark.parametrize("in_processes", [False, True])
def test_memory_that_nobody_reads_is_used_again(
    in_processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: List[bool] = []

    class Counted(Buffers):
        def take(self) -> np.ndarray:
            fresh.append(not self._free)
            return super().take()

    for module in (workers, worker_processes):
        monkeypatch.setattr(module, "Buffers", Counted)
    for batch in stream(in_processes):
        del batch
    assert len(fresh) == BATCHES
    assert sum(fresh) <= MOST_BUFFERS


def test_memory_comes_back_as_it_was_after_the_last_view_of_it() -> None:
    buffers = Buffers(1 << 20)
    batch = buffers.take()
    batch[:] = 7
    kept = batch[5:9]
    address = kept.__array_interface__["data"][0] - 5
    del batch
    other = buffers.take()
    assert other.__array_interface__["data"][0] != address
    other[:] = 3
    assert (kept == 7).all()
    del kept
    again = buffers.take()
    assert again.__array_interface__["data"][0] == address
    assert (again == 7).all()


@pytest.mark.parametrize("in_processes", [False, True])
def test_what_is_read_is_left_alone(in_processes: bool) -> None:
    tensors: List[Tensor] = []
    labels, images = [], []
    for number, batch in enumerate(stream(in_processes)):
        # One array of a batch is enough to keep all of it, and so is a view of one row.
        if number % 3 == 0:
            tensors.append(Tensor.from_numpy(batch.image))
        elif number % 3 == 1:
            labels.append(batch.label)
        else:
            images.append(batch.image[3:4, ::2])
        del batch
    samples = np.arange(BATCHES * SHAPE.batch_size).reshape(BATCHES, -1)
    np.testing.assert_array_equal(labels, samples[1::3])
    np.testing.assert_array_equal(np.stack(images)[:, 0, 0, 0, 0], samples[2::3, 3] % 251)
    for tensor, numbers in zip(tensors, samples[::3]):
        expected = np.broadcast_to((numbers % 251)[:, None, None, None], (16, 8, 8, 3))
        np.testing.assert_array_equal(tensor.asnumpy(), expected)


def test_steps_that_are_not_waited_for_read_their_own_batch() -> None:
    shape = Shape(batch_size=16, image_size=128, box_columns=0)

    @ms.jit
    def step(image: Tensor) -> Tensor:
        return ops.ReduceSum()(image.astype(ms.float32), (1, 2, 3))

    started, addresses = [], set()
    for batch in stream(False, shape):
        addresses.add(first_byte(batch))
        started.append(step(Tensor.from_numpy(batch.image)))
        del batch
    found = np.stack([output.asnumpy() for output in started]).ravel()
    samples = np.array([key.sample for key in keys()])
    np.testing.assert_array_equal(found, samples % 251 * 128.0 * 128 * 3)
    assert len(addresses) < BATCHES  # so it was used again
