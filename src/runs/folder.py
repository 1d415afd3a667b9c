"""The folder of a run: its checkpoints by their names, and which one a run continues from."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable, List, Optional

from mindspore import Parameter

from ..args import Config
from ..checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from ..checkpoints.saved_record import SavedRecord
from ..checkpoints.tensor_file import DamagedCheckpoint
from ..checkpoints.whole import WholeCheckpoint, newest_whole
from ..errors import TrainingFailed, UserError, on_one_line
from ..runtime.files import replacing
from .own_files import check_free, clear_unfinished, epoch_files, is_own
from .records import how_to_go_on, read_records

_LOGGER = logging.getLogger(__name__)


def run_folder(config: Config) -> Path:
    """Where a run keeps its checkpoints and records."""
    return Path(config.train.train_url or Path("outputs") / config.model.arch)


class CheckpointFolder:
    """`last.ckpt`, `best.ckpt` and the newest `epoch_NNN.ckpt` of a run, with its config beside."""

    def __init__(self, folder: Path, *, save_every: int, keep_max: int) -> None:
        self.folder = folder
        self.save_every = save_every
        self.keep_max = keep_max
        self.on_save: Callable[[], None] = lambda: None  # told after each save
        self.is_ours: Callable[[], bool] = lambda: True  # asked before each save

    def create(self, resumed: Optional[Checkpoint] = None) -> None:
        """Makes the folder, and ends what a killed process had not finished writing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(self.folder)
        if resumed and resumed.path == self.last:
            self._publish_all(resumed.record.names or [])

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def find_resumed(self, resume: Optional[str]) -> Optional[Checkpoint]:
        """The checkpoint to continue from, or None to start.

        Args:
            resume: a path; `auto`: `last.ckpt` when there is one, or where that is damaged the
                run's newest whole checkpoint; None: start.

        Raises:
            UserError: the folder holds a run that is not to be continued, or files that are no
                run's, or the file is damaged or not a checkpoint of a run.
        """
        is_begun = self.last.is_file()
        is_other = resume not in (None, "auto") and Path(str(resume)).parent != self.folder
        if is_begun and (resume is None or (is_other and not _is_same(resume, self.folder))):
            raise UserError(
                f"train_url {str(self.folder)!r} holds a run already (last.ckpt); continue it with "
                "--resume auto, or give another --train_url"
            )
        if not is_begun:
            check_free(self.folder)
        if resume is None or (resume == "auto" and not is_begun):
            return None
        checkpoint = self._newest() if resume == "auto" else read_checkpoint(Path(resume))
        if checkpoint.record.step is None:
            raise UserError(
                f"resume {str(checkpoint.path)!r}: holds weights but no state of a run; use it as "
                "--pretrained"
            )
        return checkpoint

    def _newest(self) -> Checkpoint:
        """`last.ckpt`, or the run's newest whole checkpoint where it is damaged, which is said."""
        try:
            return read_checkpoint(self.last)
        except DamagedCheckpoint as error:
            found = newest_whole(self.folder, besides=self.last, is_wanted=is_own)
            if found is None:
                raise
            _LOGGER.warning(
                "resume auto: %s is damaged (%s); going on from %s, the newest whole checkpoint of "
                "this run, of step %d: %s",
                self.last,
                error.reason,
                found.path.name,
                found.step,
                _lost(self.folder, found),
            )
            return read_checkpoint(found.path)

    def save(
        self,
        parameters: Iterable[Parameter],
        record: SavedRecord,
        *,
        epoch: Optional[int],
        is_best: bool,
        on_digest: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Writes `last.ckpt`, then gives it the other names it has earned.

        Args:
            epoch: number of the epoch that has just ended, from 1; None within an epoch.
            on_digest: as of `save_checkpoint`.

        Raises:
            TrainingFailed: the disk is full, the folder cannot be written, or is another run's.
        """
        if not self.is_ours():
            raise TrainingFailed(
                f"step {record.step}: another run has taken over {self.folder}; this one ends "
                "without a further save"
            )
        names = ["best.ckpt"] if is_best else []
        if epoch is not None and self.save_every and epoch % self.save_every == 0:
            names.append(f"epoch_{epoch:03d}.ckpt")
        try:
            try:
                self._write(parameters, record, names, on_digest)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self._write(parameters, record, names, on_digest)  # by a path looked up again
        except TrainingFailed:
            raise  # of the row that was to be written with it
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingFailed(
                f"step {record.step}: {self.folder} cannot take a checkpoint "
                f"({on_one_line(error)}); {how_to_go_on(self.last, error)}"
            ) from error
        self.on_save()

    def _write(
        self,
        parameters: Iterable[Parameter],
        record: SavedRecord,
        names: List[str],
        on_digest: Callable[[str], None],
    ) -> None:
        meta = replace(record, names=names).as_json()
        save_checkpoint(self.last, parameters, meta, on_digest=on_digest)
        self._publish_all(names)

    def _publish_all(self, names: Iterable[str]) -> None:
        for name in names:
            self._publish(name)
        for old in epoch_files(self.folder)[: -self.keep_max]:
            old.unlink()

    def _publish(self, name: str) -> None:
        """Gives `last.ckpt` a second name: the rename of a later `last.ckpt` leaves it alone."""
        if os.path.lexists(self.folder / name) and not is_own(self.folder / name):
            _LOGGER.warning(
                "%s: damaged or not written by this run under that name, and left alone; move it, "
                "and the next one is written",
                self.folder / name,
            )
            return
        # Renaming one link of a file to another does nothing, and would leave the draft there.
        if (self.folder / name).exists() and self.last.samefile(self.folder / name):
            return
        with replacing(self.folder / name) as draft:
            draft.unlink()  # a link needs a free name
            try:
                os.link(self.last, draft)
            except OSError:  # FAT, some network file systems
                shutil.copyfile(self.last, draft)


def _lost(folder: Path, found: WholeCheckpoint) -> str:
    """How much earlier than the run had come, by its metrics.csv, a checkpoint is."""
    try:
        reached = int(read_records(folder / "metrics.csv")[-1]["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return "metrics.csv does not say how many steps are lost"
    steps = max(0, reached - found.step)
    per_epoch = found.record.steps_per_epoch
    epochs = f" ({steps / per_epoch:.3g} epochs)" if per_epoch else ""
    return f"{steps} steps{epochs} before the last row of metrics.csv"


def _is_same(resume: Optional[str], folder: Path) -> bool:
    """Whether the file is in this folder, by whatever path."""
    # Not by `Path.resolve`, to which a link that leads round is an error.
    return os.path.dirname(os.path.realpath(str(resume))) == os.path.realpath(folder)
