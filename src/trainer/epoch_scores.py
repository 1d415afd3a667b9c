"""Scores after an epoch: of the weights, and of their averages where there are any."""

from __future__ import annotations

import math
from typing import Dict, NamedTuple, Optional

from ..data.dataset import ImageDataset
from ..runtime.ranks import World
from .evaluate import EvalNet, Scores, evaluate
from .train_one_step import TrainOneStep


class EpochScores(NamedTuple):
    """Attributes: averaged: of the averaged weights; None: there are none."""

    raw: Scores
    averaged: Optional[Scores]

    def of(self, best_by: str) -> Scores:
        """Those that the key `best_by` names."""
        return self.averaged if best_by == "ema" and self.averaged else self.raw

    def row(self) -> Dict[str, float]:
        """Columns of metrics.csv."""
        found = {}
        for prefix, result in (("", self.raw), ("ema_", self.averaged)):
            if result is not None:
                found[f"{prefix}val_loss"] = result.loss
                for column in result.COLUMNS:
                    found[f"{prefix}{column}"] = getattr(result, column)
        return found

    def text(self) -> str:
        """One line of the log."""
        parts = [self.raw.text(), *([f"ema {self.averaged.text()}"] if self.averaged else [])]
        return f"{'; '.join(parts)}  ({self.raw.images} images)"

    def not_finite(self) -> Optional[str]:
        """What is no finite number; None: all losses are."""
        if not math.isfinite(self.raw.loss):
            return "validation loss"
        if self.averaged is not None and not math.isfinite(self.averaged.loss):
            return "averages' loss"
        return None


def score_epoch(
    train_step: TrainOneStep, eval_net: EvalNet, val_set: ImageDataset, world: World
) -> EpochScores:
    """Evaluates on all of `val_set`; afterwards the network is in training mode again."""

    def scores() -> Scores:
        return evaluate(eval_net, val_set, world, float_status=train_step.float_status)

    raw, averaged = scores(), None
    if train_step.ema is not None:
        with train_step.ema.applied():
            averaged = scores()
    train_step.set_train(True)
    return EpochScores(raw, averaged)
