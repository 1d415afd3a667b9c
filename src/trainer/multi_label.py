"""Scores of images with any number of labels: mean average precision, and F1 of each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Dict, List, NamedTuple, Tuple

import numpy as np


class LabelScores(NamedTuple):
    """Of every class, (K,) each; scores in percent, NaN where they are of no image.

    Attributes:
        images: that are of the class.
        predicted: that were taken for one of it: probability above 1/2.
        average_precision: sum over all thresholds of (recall - recall before) * precision.
    """

    images: np.ndarray
    predicted: np.ndarray
    average_precision: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


@dataclass(frozen=True)
class MultiLabelResult:
    """Scores over `images` images, in percent, and the mean binary cross entropy.

    Attributes:
        map: mean average precision.
        macro_f1, macro_recall: means over classes; as `map` over those that have images.
        micro_f1: over all pairs of image and class.
        of_classes: the same of each class.
    """

    COLUMNS: ClassVar[Tuple[str, ...]] = ("map", "macro_f1", "micro_f1", "macro_recall")
    map: float
    macro_f1: float
    micro_f1: float
    macro_recall: float
    loss: float
    images: int
    of_classes: LabelScores = field(repr=False, compare=False)
    all_classes: ClassVar[None] = None  # of which these would be some

    def as_json(self) -> Dict[str, Any]:
        """Every score; what is NaN stays so."""
        return {key: getattr(self, key) for key in (*self.COLUMNS, "loss", "images")}

    def text(self) -> str:
        """`mAP 71.250 %  macro F1 60.000 %  micro F1 65.000 %  macro recall 58.000 %  loss 0.2`."""
        return (
            f"mAP {self.map:.3f} %  macro F1 {self.macro_f1:.3f} %  micro F1 {self.micro_f1:.3f} %"
            f"  macro recall {self.macro_recall:.3f} %  loss {self.loss:.4f}"
        )


class MultiLabelTotals:
    """All logits and labels, which average precision needs together.

    Attributes:
        overflows: of devices that hide them; the loss is NaN with any.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._batches: List[np.ndarray] = []
        self.overflows = 0

    def update(self, logits: np.ndarray, label: np.ndarray) -> None:
        """Adds a batch: logits (B, K), label (B, K), 1 for each label, -1 in rows of padding."""
        self._batches.append(np.stack([logits.astype(np.float64), label]))

    def gathered(self, from_ranks: Callable[[np.ndarray], np.ndarray]) -> MultiLabelTotals:
        """Those of all ranks together, in the order of the images, whatever their number.

        Args:
            from_ranks: (...) float64 of each rank -> (ranks, ...) of all.
        """
        totals = MultiLabelTotals(self._num_classes)
        totals.overflows = int(from_ranks(np.array(float(self.overflows))).sum())
        parts = from_ranks(self._joined())  # (ranks, 2, N, K)
        # Rank r has every n-th image, from r on.
        in_order = parts.transpose(1, 2, 0, 3).reshape(2, -1, self._num_classes)
        totals._batches = [in_order]
        return totals

    def _joined(self) -> np.ndarray:
        """(2, N, K) float64: logits and labels."""
        return np.concatenate([np.zeros((2, 0, self._num_classes)), *self._batches], axis=1)

    def result(self) -> MultiLabelResult:
        """Scores so far; all NaN for no image. A logit that is NaN is below all others."""
        logits, label = self._joined()
        is_image = (label >= 0).all(axis=1)
        logits, label = logits[is_image], label[is_image]
        loss = _binary_cross_entropy(logits, label) if not self.overflows else float("nan")
        ranked, positive = np.where(np.isnan(logits), -np.inf, logits), label > 0
        scores = _of_classes(ranked, positive)
        pairs = float(scores.images.sum() + scores.predicted.sum())
        hits = float(((ranked > 0) & positive).sum())
        return MultiLabelResult(
            map=_mean(scores.average_precision),
            macro_f1=_mean(scores.f1[scores.images > 0]),
            micro_f1=200.0 * hits / pairs if pairs else float("nan"),
            macro_recall=_mean(scores.recall),
            loss=loss,
            images=len(label),
            of_classes=scores,
        )


def _of_classes(logits: np.ndarray, positive: np.ndarray) -> LabelScores:
    predicted = logits > 0
    images, count = positive.sum(axis=0), predicted.sum(axis=0)
    hits = (positive & predicted).sum(axis=0)
    precisions = [average_precision(*columns) for columns in zip(logits.T, positive.T)]
    with np.errstate(invalid="ignore"):
        recall, precision = 100.0 * hits / images, 100.0 * hits / count
        f1 = 200.0 * hits / (images + count)
    return LabelScores(images, count, 100.0 * np.array(precisions), recall, precision, f1)


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area below precision against recall, in steps, as scikit-learn's; NaN without positives.

    Equal scores are one threshold, so that their order means nothing.

    Args:
        scores: (N,), higher ones first.
        positive: (N,) bool.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    is_last = np.append(scores[order][1:] != scores[order][:-1], True)
    hits, taken = np.cumsum(positive[order])[is_last], np.flatnonzero(is_last) + 1
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float((gained * hits / taken).sum())


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _binary_cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    """Mean over images and classes; NaN for none."""
    if not logits.size:
        return float("nan")
    with np.errstate(invalid="ignore"):
        losses = label * np.logaddexp(0, -logits) + (1 - label) * np.logaddexp(0, logits)
    return float(losses.mean())
