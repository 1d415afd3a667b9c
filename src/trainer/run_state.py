"""Where a run stands, and what its checkpoints say of it."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass, fields
from typing import List, Optional

import mindspore as ms
import numpy as np

from ..args import Config, to_yaml
from ..checkpoints.saved_record import Change, SavedRecord
from ..data.dataset import ImageDataset
from ..runs.scores import SCORES
from ..runtime.processor import describe_processor
from ..runtime.ranks import ALONE, World
from .evaluate import Scores
from .metrics import EvalResult
from .resuming import describe_data

# Of a change that a checkpoint records.
_MOST_CHARS = 400


@dataclass
class RunState:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    best_top1: float = -1.0  # of the best epoch; -1: there is none
    best_score: Optional[float] = None  # of the best epoch by best_metric, if that is not top-1
    best_epoch: int = 0
    overflows: int = 0  # steps in a row whose gradient was not finite
    changes: Optional[List[Change]] = None  # of recipe and data since the run began
    class_weights: Optional[str] = None  # SHA-256 of the file that the key names
    # Of the weights that training started from, as they say it.
    started_from: Optional[str] = None
    licence: Optional[str] = None

    def start_from(self, weights: SavedRecord, name: str) -> None:
        """Notes what training starts from, whose licence goes on with it.

        Args:
            name: of the file, which is noted where the weights were published by no name.
        """
        self.started_from = weights.published or weights.started_from or name
        self.licence = weights.licence

    def note_scores(self, result: Scores, epoch: int, metric: str) -> bool:
        """Whether an evaluation is the best so far, which is noted then; never one that is NaN.

        Args:
            metric: of `SCORES`, by which it is the best.
        """
        score, best = getattr(result, metric), self.best(metric)
        if math.isnan(score):  # no label to be scored by
            return False
        if best is not None and not SCORES[metric].is_better(score, best):
            return False
        self.best_top1 = result.top1 if isinstance(result, EvalResult) else -1.0
        self.best_epoch = epoch
        self.best_score = None if metric == "top1" else score
        return True

    def best(self, metric: str) -> Optional[float]:
        """The best score so far; None: there is none."""
        if not self.best_epoch:
            return None
        return self.best_top1 if metric == "top1" else self.best_score

    def forget_best(self) -> None:
        """What is best is decided by another score from here on."""
        self.best_top1, self.best_score, self.best_epoch = -1.0, None, 0

    def has_stopped(self, config: Config, steps_per_epoch: int) -> bool:
        """Whether the run has ended early; so it is too when one that has is resumed."""
        patience, every = config.train.early_stop_epochs, config.train.eval_every
        epoch, rest = divmod(self.step, steps_per_epoch)
        if not (patience and every and self.best_epoch) or rest or epoch % every:
            return False
        return epoch - self.best_epoch >= patience

    def renumber_epochs(self, before: Optional[int], now: int) -> None:
        """The run goes on with another number of steps per epoch.

        Args:
            before: None: the checkpoint does not say.
        """
        if self.best_epoch and before:
            self.best_epoch = max(1, self.best_epoch * before // now)

    def note(self, what: List[str]) -> None:
        """The run goes on from here with these changes; none: as before."""
        if what:
            change = Change(self.step, [said[:_MOST_CHARS] for said in what])
            self.changes = [*(self.changes or []), change]

    def as_record(
        self, config: Config, world: World = ALONE, train_set: Optional[ImageDataset] = None
    ) -> SavedRecord:
        """What a checkpoint says of itself: this state, the resolved config and the versions."""
        return SavedRecord(
            arch=config.model.arch,
            num_classes=config.model.num_classes,
            world_size=world.size,
            **vars(self),
            **(describe_data(train_set) if train_set else {}),
            config=to_yaml(config),
            versions={
                "mindspore": ms.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "processor": describe_processor(),
            },
        )

    @staticmethod
    def from_record(record: SavedRecord) -> RunState:
        return RunState(**{field.name: getattr(record, field.name) for field in fields(RunState)})
