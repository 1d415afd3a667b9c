"""Checkpoints: one file holds network, optimizer, counters, the resolved config and the versions.

The format is MindSpore's own. Parameters of the network keep their names; everything else is named
`train.*`, so `mindspore.load_checkpoint` reads the network from any of our files.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from ..args import Config
from ..errors import TrainingFailed, UserError

STATE_PREFIX = "train."
_META = "train.meta"
# In the record of last.ckpt: the other names it has earned. A process killed before it gave them
# does so when it is resumed.
_NAMES = "names"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, and for our own files the record saved with them."""

    path: Path
    tensors: Dict[str, Parameter]
    meta: Dict[str, Any]

    def describe(self) -> str:
        """`PATH (arch, classes)`, or `PATH` for a file that does not say."""
        if "arch" not in self.meta:
            return str(self.path)
        return f"{self.path} ({self.meta['arch']}, {self.meta['num_classes']} classes)"

    def averaged(self) -> Checkpoint:
        """The same with the averaged weights (`with_ema`) in place of the network's.

        Raises:
            UserError: the file holds none.
        """
        prefix = f"{STATE_PREFIX}ema."
        tensors = {n[len(prefix) :]: t for n, t in self.tensors.items() if n.startswith(prefix)}
        if not tensors:
            raise UserError(
                f"ema True: checkpoint {self.describe()} holds no averaged weights; it was trained "
                "without with_ema"
            )
        return Checkpoint(self.path, tensors, self.meta)


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: Dict[str, Any]) -> None:
    """Writes to a temporary name in the same folder, flushes to disk, renames.

    Args:
        meta: JSON values, returned as they are by `read_checkpoint`.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file at `path` is whole.
    """
    text = json.dumps(meta).encode()
    record = {"name": _META, "data": Tensor(np.frombuffer(text, np.uint8))}
    tensors = [{"name": parameter.name, "data": parameter} for parameter in parameters]
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.ckpt")
    try:
        ms.save_checkpoint([*tensors, record], str(temporary))
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        # The framework leaves one of its own beside it.
        _remove_unfinished(path.parent, temporary.stem)


def _remove_unfinished(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}*"):
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until a file or the entries of a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a `.ckpt` file, ours or any other of MindSpore's.

    Raises:
        UserError: missing or damaged file.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {str(path)!r}: no such file; give the path of a .ckpt file")
    if path.suffix in (".pth", ".pt", ".tar", ".bin", ".safetensors", ".npz"):
        raise UserError(
            f"checkpoint {str(path)!r}: no MindSpore checkpoint; scripts/convert_weights.py makes "
            "one of it"
        )
    try:
        tensors = ms.load_checkpoint(str(path))
    except Exception as error:  # the framework raises whatever its parser met
        raise UserError(
            f"checkpoint {str(path)!r}: not a whole MindSpore checkpoint; copy it again or give "
            "another one"
        ) from error
    record = tensors.pop(_META, None)
    meta = json.loads(record.asnumpy().tobytes().decode()) if record is not None else {}
    return Checkpoint(path, tensors, meta)


def load_parameters(
    parameters: Iterable[Parameter], checkpoint: Checkpoint, *, target: str
) -> None:
    """Sets every parameter from the file; none may be missing, left over or of another shape.

    Tensors named `train.*` in the file may be left over: they are not part of a network.

    Args:
        target: what the parameters belong to, for the message.

    Raises:
        UserError: naming both sides and what does not fit; nothing has been changed then.
    """
    wanted = {parameter.name: parameter for parameter in parameters}
    held = checkpoint.tensors
    problems = find_mismatches(wanted.values(), held)
    if problems:
        found = "; ".join(_listing(title, entries) for title, entries in problems.items())
        raise UserError(f"checkpoint {checkpoint.describe()} does not fit {target}: {found}")
    for name, parameter in wanted.items():
        parameter.set_data(Tensor(held[name].asnumpy(), parameter.dtype))


def find_mismatches(
    parameters: Iterable[Parameter], tensors: Mapping[str, Any]
) -> Dict[str, List[str]]:
    """Why `tensors` cannot set `parameters`: `missing`, `unexpected` and `of another shape`.

    Args:
        tensors: by name, anything with a shape; `train.*` are no part of a network.

    Returns:
        title -> tensors, without empty titles.
    """
    wanted = {parameter.name: tuple(parameter.shape) for parameter in parameters}
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [n for n in tensors if n not in wanted and not n.startswith(STATE_PREFIX)],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} where {shape} is due"
            for name, shape in wanted.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
    }
    return {title: entries for title, entries in problems.items() if entries}


def _listing(title: str, names: List[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} {title}: {', '.join(names[:shown])}{more}"


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
        for name in (".last.", ".best.", ".epoch_"):
            _remove_unfinished(self.folder, name)
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
            reason = " ".join(str(error).split())
            raise TrainingFailed(
                f"step {meta['step']}: {self.folder} cannot take a checkpoint ({reason}); the "
                "previous one is whole: make room, then continue with --resume auto"
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
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.last, temporary)
        except OSError:  # FAT, some network file systems
            shutil.copyfile(self.last, temporary)
        os.replace(temporary, self.folder / name)
