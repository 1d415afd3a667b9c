"""Evaluation: every batch once, scored while the device is busy with the next."""

from __future__ import annotations

from typing import Iterator, List

import numpy as np
import pytest
from mindspore import Tensor

from src.data.dataset import Batch
from src.errors import UserError
from src.trainer.evaluate import evaluate

CLASSES = 4


class Device:
    """Answers with one-hot logits of each image's first pixel; notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: List[str] = []

    def set_train(self, mode: bool) -> None:
        assert mode is False

    def __call__(self, image: Tensor) -> Answer:
        label = image.asnumpy()[:, 0, 0, 0]
        self.asked.append(f"start {label[0]}")
        return Answer(label, self.asked)


class Answer:
    def __init__(self, label: np.ndarray, asked: List[str]) -> None:
        self.label, self.asked = label, asked

    def asnumpy(self) -> np.ndarray:
        self.asked.append(f"read {self.label[0]}")
        return np.eye(CLASSES, dtype=np.float32)[self.label]


class Batches:
    """Three batches of two images; the one at `bad` cannot be read."""

    lost = None
    class_names = range(CLASSES)
    scored = None
    is_multi_label = False

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def batches(self) -> Iterator[Batch]:
        for number in range(3):
            if number == self.bad:
                raise UserError(f"batch {number}")
            image = np.full((2, 1, 1, 3), number, np.uint8)
            yield Batch(image, np.array([number, -1 if number == 2 else 3], np.int32))


def test_a_batch_is_read_when_the_next_has_been_started() -> None:
    device, watched = Device(), []
    result = evaluate(device, Batches(), watch=lambda *seen: watched.append(seen))
    expected = ["start 0", "start 1", "read 0", "start 2", "read 1", "read 2"]
    assert device.asked == expected
    assert (result.images, result.top1) == (5, 60.0)
    for number, (logits, label, image) in enumerate(watched):
        assert logits[0].argmax() == label[0] == image[0, 0, 0, 0] == number
    assert len(watched) == 3


def test_an_unreadable_batch_ends_the_evaluation() -> None:
    with pytest.raises(UserError, match="batch 1"):
        evaluate(Device(), Batches(bad=1))
