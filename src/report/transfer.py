"""How well a network's features tell the classes of a folder apart, without training it.

Legend: N images, C features, K classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError

# Iterations of LogME's fixed point, and the relative change at which it has arrived.
_MOST_ROUNDS, _ARRIVED = 1000, 1e-9
_LEAST = 1e-12


class Split(NamedTuple):
    """Features (N, C) float32 of images, and their labels (N,) int32."""

    features: np.ndarray
    labels: np.ndarray


def import_sklearn() -> Any:
    """scikit-learn's estimators.

    Raises:
        UserError: it is not installed.
    """
    try:
        import sklearn.linear_model
        import sklearn.neighbors
        import sklearn.pipeline
        import sklearn.preprocessing
    except ImportError as error:
        raise UserError("knn.py: needs scikit-learn; pip install 'scikit-learn>=1.4,<2'") from error
    return sklearn


def neighbour_accuracy(train: Split, val: Split, count: int) -> float:
    """Top-1 accuracy, percent, of a vote of the `count` nearest images, by cosine similarity."""
    sklearn = import_sklearn()
    count = min(count, len(train.labels))
    classifier = sklearn.neighbors.KNeighborsClassifier(
        count, metric="cosine", algorithm="brute"
    ).fit(*train)
    return 100.0 * float(classifier.score(*val))


def linear_accuracy(train: Split, val: Split) -> float:
    """Top-1 accuracy, percent, of logistic regression on standardised features (C = 1)."""
    sklearn = import_sklearn()
    classifier = sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(),
        sklearn.linear_model.LogisticRegression(max_iter=1000),
    ).fit(*train)
    return 100.0 * float(classifier.score(*val))


def log_evidence(train: Split) -> float:
    """LogME (You et al. 2021): how likely the labels are under linear models of the features.

    For each class the logarithm of the evidence of y = F w + noise, w ~ N(0, 1 / alpha), noise ~
    N(0, 1 / beta), at the alpha and beta that maximise it (section 4.2), over N; the mean over
    the classes. Higher is better; comparable for the same images only.
    """
    # By class: F' y is the sum of its features, y' y the number of its images.
    features = train.features[np.argsort(train.labels, kind="stable")].astype(np.float64)
    _, norms = np.unique(train.labels, return_counts=True)
    sums = np.add.reduceat(features, np.cumsum(norms) - norms, axis=0).T  # (C, K)
    # Of F = U S V': S^2, and U' y by F' y.
    squares, basis = np.linalg.eigh(features.T @ features)
    kept = squares > squares.max(initial=0.0) * features.shape[1] * np.finfo(np.float64).eps
    squares, basis = squares[kept], basis[:, kept]
    shares = (basis.T @ sums) ** 2 / squares[:, None]  # (rank, K)
    evidences = [
        _evidence(squares, share, norm, features.shape) for share, norm in zip(shares.T, norms)
    ]
    return float(np.mean(evidences)) / len(features)


def _evidence(
    squares: np.ndarray, shares: np.ndarray, norm: float, shape: tuple[int, ...]
) -> float:
    """The largest log evidence of one target.

    Args:
        squares: of the singular values of F, (rank,).
        shares: of the target along each left singular vector, squared, (rank,).
        norm: squared, of the target.
        shape: N and C.
    """
    count, width = shape
    outside = max(norm - float(shares.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(_MOST_ROUNDS):
        ratio = alpha / beta
        known = float((squares / (squares + ratio)).sum())
        weights = max(float((squares * shares / (squares + ratio) ** 2).sum()), _LEAST)
        rest = max(float((shares * (ratio / (squares + ratio)) ** 2).sum()) + outside, _LEAST)
        alpha, beta = known / weights, (count - known) / rest
        if abs(alpha / beta - ratio) <= _ARRIVED * ratio:
            break
    ratio = alpha / beta
    weights = float((squares * shares / (squares + ratio) ** 2).sum())
    rest = float((shares * (ratio / (squares + ratio)) ** 2).sum()) + outside
    unseen = width - len(squares)
    log_det = float(np.log(alpha + beta * squares).sum()) + unseen * np.log(alpha)
    likely = count * np.log(beta / (2 * np.pi)) - beta * rest
    return 0.5 * float(likely + width * np.log(alpha) - alpha * weights - log_det)
