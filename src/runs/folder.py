"""The folder of a run: its checkpoints by their names, and which one a run continues from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional

from mindspore import Parameter

from ..args import Config
from ..checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from ..errors import TrainingFailed, UserError, on_one_line
from ..runtime.files import remove_unfinished, replacing

# In the record of last.ckpt: the other names it has earned. A process killed before it gave them
# does so when it is resumed.
_NAMES = "names"


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

    def create(self, resumed: Optional[Checkpoint] = None) -> None:
        """Makes the folder, and ends what a killed process had not finished writing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stem in ("last", "best", "epoch_*"):
            remove_unfinished(self.folder, stem)
        if resumed and resumed.path == self.last:
            self._publish_all(resumed.meta.get(_NAMES, []))

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def find_resumed(self, resume: Optional[str]) -> Optional[Checkpoint]:
        """The checkpoint to continue from, or None to start.

        Args:
            resume: a path; `auto`: `last.ckpt` when there is one; None: start.

        Raises:
            UserError: the folder holds a run and nothing was said of continuing it, or the file is
                not a checkpoint of a run.
        """
        if resume is None and self.last.exists():
            raise UserError(
                f"train_url {str(self.folder)!r} holds a run already (last.ckpt); continue it with "
                "--resume auto, or give another --train_url"
            )
        if resume is None or (resume == "auto" and not self.last.exists()):
            return None
        checkpoint = read_checkpoint(self.last if resume == "auto" else Path(resume))
        if "step" not in checkpoint.meta:
            raise UserError(
                f"resume {str(checkpoint.path)!r}: holds weights but no state of a run; use it as "
                "--pretrained"
            )
        return checkpoint

    def save(
        self,
        parameters: Iterable[Parameter],
        meta: Dict[str, Any],
        *,
        epoch: Optional[int],
        is_best: bool,
    ) -> None:
        """Writes `last.ckpt`, then gives it the other names it has earned.

        Args:
            epoch: number of the epoch that has just ended, from 1; None within an epoch.

        Raises:
            TrainingFailed: the disk is full or the folder cannot be written.
        """
        try:
            names = ["best.ckpt"] if is_best else []
            if epoch is not None and self.save_every and epoch % self.save_every == 0:
                names.append(f"epoch_{epoch:03d}.ckpt")
            save_checkpoint(self.last, parameters, {**meta, _NAMES: names})
            self._publish_all(names)
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingFailed(
                f"step {meta['step']}: {self.folder} cannot take a checkpoint "
                f"({on_one_line(error)}); the previous one is whole: make room, then continue with "
                "--resume auto"
            ) from error
        self.on_save()

    def _publish_all(self, names: Iterable[str]) -> None:
        for name in names:
            self._publish(name)
        for old in self._epochs()[: -self.keep_max]:
            old.unlink()

    def _epochs(self) -> List[Path]:
        return sorted(self.folder.glob("epoch_*.ckpt"), key=lambda path: int(path.stem[6:]))

    def _publish(self, name: str) -> None:
        """Gives `last.ckpt` a second name: the rename of a later `last.ckpt` leaves it alone."""
        with replacing(self.folder / name) as draft:
            draft.unlink()  # a link needs a free name
            try:
                os.link(self.last, draft)
            except OSError:  # FAT, some network file systems
                shutil.copyfile(self.last, draft)
