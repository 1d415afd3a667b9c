"""report.html and README.md in the folder of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Sequence

from ..args import Config
from ..runs.model_card import CARD_TITLES, Card, data_name, write_card
from ..runs.records import read_records
from ..runs.run_page import RunStory, last_scores, run_page
from ..runtime.files import write_whole
from ..runtime.text import to_utf8
from .metrics import wilson_interval
from .run_state import RunState

_LOGGER = logging.getLogger(__name__)
PAGE = "report.html"


class RunReport:
    """Writes both anew whenever there is something to tell.

    Args:
        folder: of the run.
        class_names: of the training data.
        val_images: of the validation set.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        total_steps: int,
        class_names: Sequence[str],
        val_images: int,
    ) -> None:
        self.header: Sequence[str] = ()
        self._config = config
        self._folder = folder
        self._total_steps = total_steps
        self._class_names = class_names
        self._val_images = val_images

    def write(self, state: RunState, *, has_stopped: bool = False) -> None:
        """What cannot be written is said, and the run goes on.

        Args:
            has_stopped: it has ended early.
        """
        has_top1 = state.best_top1 >= 0
        try:
            story = RunStory(
                self._config,
                read_records(self._folder / "metrics.csv"),
                self.header,
                state.step,
                self._total_steps,
                state.best_top1,
                state.best_epoch,
                state.changes or [],
                wilson_interval(state.best_top1, self._val_images) if has_top1 else None,
                state.best_score,
                has_stopped,
            )
            write_whole(self._folder / PAGE, to_utf8(run_page(story, folder=str(self._folder))))
            write_card(self._folder, self._card(story, state))
        except Exception as error:  # whatever it is, it is not worth a run
            _LOGGER.warning("%s cannot be written (%s)", PAGE, error)

    def _card(self, story: RunStory, state: RunState) -> Card:
        config, found = self._config, last_scores(story.rows) or {}
        facts = {"training": f"{story.step} of {story.total_steps} steps"}
        if state.started_from:
            facts["started from"] = state.started_from
        return Card(
            config.model.arch,
            "last.ckpt",
            config.model.image_size,
            data_name(config.data.set, config.data.data_url),
            self._class_names,
            {title: found[key] for key, title in CARD_TITLES.items() if key in found},
            state.licence,
            facts=facts,
            in_chans=config.model.in_chans,
        )
