"""Where a run stands, and what its checkpoints say of it."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from typing import List, Optional

import mindspore as ms
import numpy as np

from ..args import Config, to_yaml
from ..checkpoints.saved_record import Change, SavedRecord
from ..runtime.processor import describe_processor
from ..runtime.ranks import ALONE, World

# Of a change that a checkpoint records.
_MOST_CHARS = 400


@dataclass
class RunState:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    best_top1: float = -1.0
    best_epoch: int = 0
    overflows: int = 0  # steps in a row whose gradient was not finite
    changes: Optional[List[Change]] = None  # of recipe and data since the run began
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

    def note(self, what: List[str]) -> None:
        """The run goes on from here with these changes; none: as before."""
        if what:
            change = Change(self.step, [said[:_MOST_CHARS] for said in what])
            self.changes = [*(self.changes or []), change]

    def as_record(self, config: Config, world: World = ALONE) -> SavedRecord:
        """What a checkpoint says of itself: this state, the resolved config and the versions."""
        return SavedRecord(
            arch=config.model.arch,
            num_classes=config.model.num_classes,
            world_size=world.size,
            **vars(self),
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
