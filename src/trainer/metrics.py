"""Accuracy and loss over a whole set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np


@dataclass(frozen=True)
class EvalResult:
    """Scores over `images` images: top-1 and top-5 in percent, mean cross entropy.

    Attributes:
        macro_recall: percent; the mean of the classes' recalls, over classes that have images.
    """

    top1: float
    top5: float
    loss: float
    images: int
    macro_recall: float = float("nan")


class EvalTotals:
    """Sums over batches, in integers and float64, so that no order or sharding changes them.

    Attributes:
        overflows: of devices that hide them; the loss is NaN with any.
        class_images, class_hits: of each class, (num_classes,) int64: its images, and how many of
            them are top-1 hits.
    """

    def __init__(self, num_classes: int) -> None:
        self.top1 = 0
        self.top5 = 0
        self.loss = 0.0
        self.images = 0
        self.overflows = 0
        self.class_images = np.zeros(num_classes, np.int64)
        self.class_hits = np.zeros(num_classes, np.int64)

    def update(self, logits: np.ndarray, label: np.ndarray) -> None:
        """Adds a batch: logits (B, K), label (B,) where -1 marks padding that is not counted.

        Of equal logits the lower class wins, as a stable sort orders them. A row with NaN counts
        as wrong.
        """
        real = label >= 0
        logits, label = logits[real].astype(np.float64), label[real]
        broken = np.isnan(logits).any(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        hit = (order == label[:, None]) & ~broken
        self.top1 += int(hit[:, 0].sum())
        self.top5 += int(hit.sum())
        self.loss += float(_cross_entropy(logits, label).sum())
        self.images += len(label)
        self.class_images += np.bincount(label, minlength=len(self.class_images))
        self.class_hits += np.bincount(label[hit[:, 0]], minlength=len(self.class_hits))

    def summed(self, over_ranks: Callable[[np.ndarray], np.ndarray]) -> EvalTotals:
        """The totals of all ranks together; counts stay exact in float64 up to 2^53."""
        counts = (self.top1, self.top5, self.images, self.overflows)
        classes = len(self.class_images)
        mine = [*counts, self.loss, *self.class_images, *self.class_hits]
        sums = over_ranks(np.array(mine, np.float64))
        totals = EvalTotals(classes)
        totals.top1, totals.top5, totals.images, totals.overflows = map(int, sums[:4])
        totals.loss = float(sums[4])
        totals.class_images, totals.class_hits = sums[5:].astype(np.int64).reshape(2, classes)
        return totals

    def result(self) -> EvalResult:
        """Scores so far; all NaN for no image."""
        images = self.images or float("nan")
        top1, top5 = 100.0 * self.top1 / images, 100.0 * self.top5 / images
        loss = float("nan") if self.overflows else self.loss / images
        return EvalResult(top1, top5, loss, self.images, self._macro_recall())

    def _macro_recall(self) -> float:
        has_images = self.class_images > 0
        if not has_images.any():
            return float("nan")
        return float(100.0 * (self.class_hits[has_images] / self.class_images[has_images]).mean())


def _cross_entropy(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return log_sum - shifted[np.arange(len(label)), label]
