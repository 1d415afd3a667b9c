"""Accuracy and loss over a whole set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Callable, ClassVar, Dict, Optional, Tuple

import numpy as np

# Of the standard normal distribution, for intervals that hold the true value 95 times in 100.
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class EvalResult:
    """Scores over `images` images: top-1 and top-5 in percent, mean cross entropy.

    Attributes:
        macro_recall: percent; the mean of the classes' recalls, over classes that have images.
        classes: whose logits were compared.
        all_classes: the scores over the logits of all classes, where the others are over some.
    """

    COLUMNS: ClassVar[Tuple[str, ...]] = ("top1", "top5", "macro_recall")
    top1: float
    top5: float
    loss: float
    images: int
    macro_recall: float = float("nan")
    classes: int = 0
    all_classes: Optional[EvalResult] = None

    @property
    def top1_interval(self) -> Tuple[float, float]:
        """See `wilson_interval`."""
        return wilson_interval(self.top1, self.images)

    def as_json(self) -> Dict[str, Any]:
        """Every score, with the interval beside its top-1; what is NaN stays so."""
        found = {"top1": self.top1, "top1_interval": list(self.top1_interval)}
        found = {**found, **asdict(self)}
        found.pop("all_classes")
        return {**found, "all_classes": self.all_classes.as_json()} if self.all_classes else found

    def text(self) -> str:
        """`top-1 91.250 % [88.07, 93.64]  top-5 100.000 %  macro recall 80.000 %  loss 0.4776`."""
        low, high = self.top1_interval
        return (
            f"top-1 {self.top1:.3f} % [{low:.2f}, {high:.2f}]  top-5 {self.top5:.3f} %  "
            f"macro recall {self.macro_recall:.3f} %  loss {self.loss:.4f}"
        )


def wilson_interval(top1: float, images: int) -> Tuple[float, float]:
    """The 95 % confidence interval of an accuracy (Wilson, J. Am. Stat. Assoc. 22, 1927), percent.

    It says how far the images that happened to be in the set moved the score, and nothing of other
    seeds of the training or of other data.

    Args:
        top1: percent of the images.
        images: 0: both ends are NaN.
    """
    if images == 0:
        return float("nan"), float("nan")
    share, square = top1 / 100.0, _Z * _Z / images
    centre = (share + square / 2.0) / (1.0 + square)
    half = (square * (share * (1.0 - share) + square / 4.0)) ** 0.5 / (1.0 + square)
    return 100.0 * max(0.0, centre - half), 100.0 * min(1.0, centre + half)


def difference_interval(better: int, worse: int, images: int) -> Tuple[float, float]:
    """The 95 % confidence interval of the difference of two accuracies over the same images.

    Wald's interval after one image is added to each side on which the two differ (Bonett and Price,
    J. Educ. Behav. Stat. 37, 2012); percentage points.

    Args:
        better, worse: images that only the second, and only the first, has right.
        images: in all.
    """
    more, fewer = (better + 1) / (images + 2), (worse + 1) / (images + 2)
    centre = more - fewer
    half = _Z * ((more + fewer - centre**2) / (images + 2)) ** 0.5
    return 100.0 * (centre - half), 100.0 * (centre + half)


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
        classes = len(self.class_images)
        return EvalResult(top1, top5, loss, self.images, self._macro_recall(), classes)

    def _macro_recall(self) -> float:
        has_images = self.class_images > 0
        if not has_images.any():
            return float("nan")
        return float(100.0 * (self.class_hits[has_images] / self.class_images[has_images]).mean())


def _cross_entropy(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return log_sum - shifted[np.arange(len(label)), label]
