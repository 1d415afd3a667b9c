"""Scores against scikit-learn and torch."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch_oracle import torch

from src.trainer.metrics import EvalTotals


def test_scores_equal_sklearn_and_torch_over_uneven_batches() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(101, 12)).astype(np.float32)
    label = (12 * rng.random(101) ** 3).astype(np.int32)  # classes of many images and of few
    totals = EvalTotals(12)
    for start in range(0, 101, 32):
        totals.update(logits[start : start + 32], label[start : start + 32])
    result = totals.result()
    classes = np.arange(12)
    assert result.images == 101
    assert result.top1 == pytest.approx(
        100 * top_k_accuracy_score(label, logits, k=1, labels=classes)
    )
    assert result.top5 == pytest.approx(
        100 * top_k_accuracy_score(label, logits, k=5, labels=classes)
    )
    recall = balanced_accuracy_score(label, logits.argmax(axis=1))
    assert result.macro_recall == pytest.approx(100 * recall)
    loss = torch.nn.functional.cross_entropy(
        torch.tensor(logits).double(), torch.tensor(label).long()
    )
    assert result.loss == pytest.approx(float(loss), rel=1e-12)


def test_padding_is_not_counted() -> None:
    totals = EvalTotals(2)
    totals.update(np.array([[2.0, 1.0], [1.0, 2.0], [9.0, 0.0]]), np.array([0, 0, -1]))
    result = totals.result()
    assert (result.images, result.top1, result.top5) == (2, 50.0, 100.0)


def test_ties_and_nan_are_no_hits_by_luck() -> None:
    totals = EvalTotals(10)
    totals.update(np.zeros((10, 10)), np.arange(10))  # a constant network
    totals.update(np.full((10, 10), np.nan), np.arange(10))  # a broken one
    assert totals.top1 == 1
    assert totals.top5 == 5


def test_nothing_counted_is_not_zero_percent() -> None:
    result = EvalTotals(3).result()
    assert np.isnan([result.top1, result.loss, result.macro_recall]).all()


def test_classes_without_images_do_not_count_and_ranks_add_up() -> None:
    """Three of four images of class 0, one of two of class 2, none of class 1."""
    ranks = EvalTotals(3), EvalTotals(3)
    ranks[0].update(np.eye(3)[[0, 0, 1]], np.array([0, 0, 0]))
    ranks[1].update(np.eye(3)[[0, 2, 1, 0]], np.array([0, 2, 2, -1]))
    sent: List[np.ndarray] = []
    ranks[1].summed(lambda sums: sent.append(sums) or sums)
    result = ranks[0].summed(lambda sums: sums + sent[0]).result()
    assert result.macro_recall == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    assert (result.images, result.top1) == (6, pytest.approx(100 * 4 / 6))
