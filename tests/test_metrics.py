"""Scores against scikit-learn and torch."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch_oracle import torch

from src.trainer.metrics import EvalResult, EvalTotals, difference_interval, wilson_interval


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


@pytest.mark.parametrize(("hits", "images"), [(0, 7), (7, 7), (359, 360), (1, 1), (38_123, 50_000)])
def test_the_interval_of_a_score_is_scipys_and_statsmodels(hits: int, images: int) -> None:
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    found = np.array(wilson_interval(100.0 * hits / images, images)) / 100
    theirs = binomtest(hits, images).proportion_ci(confidence_level=0.95, method="wilson")
    np.testing.assert_allclose(found, theirs, atol=1e-12)
    np.testing.assert_allclose(
        found, proportion_confint(hits, images, alpha=0.05, method="wilson"), atol=1e-12
    )


def test_scores_are_written_and_shown_with_their_interval() -> None:
    result = EvalResult(91.25, 100.0, 0.4776, 400, 80.0)
    said = "top-1 91.250 % [88.07, 93.64]  top-5 100.000 %  macro recall 80.000 %  loss 0.4776"
    assert result.text() == said
    low, high = result.as_json()["top1_interval"]
    assert (round(low, 2), round(high, 2)) == (88.07, 93.64)
    assert np.isnan(EvalTotals(2).result().top1_interval).all()


@pytest.mark.parametrize(("better", "worse", "images"), [(31, 12, 400), (0, 0, 50), (3, 0, 3)])
def test_the_interval_of_a_difference_is_walds_after_one_image_more_on_each_side(
    better: int, worse: int, images: int
) -> None:
    """Bonett and Price define it so; scipy has the interval of a mean."""
    from scipy.stats import norm

    change = np.repeat([1.0, -1.0, 0.0], [better + 1, worse + 1, images - better - worse])
    spread = change.std() / len(change) ** 0.5
    due = norm.interval(0.95, loc=change.mean(), scale=spread)
    np.testing.assert_allclose(np.array(difference_interval(better, worse, images)) / 100, due)
