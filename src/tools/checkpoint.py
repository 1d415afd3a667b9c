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
from typing import Any, Dict, Iterable, List, Optional

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from src.args import Config
from src.errors import UserError

STATE_PREFIX = "train."
_META = "train.meta"


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
        temporary.unlink(missing_ok=True)


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
    missing = [name for name in wanted if name not in held]
    unexpected = [n for n in held if n not in wanted and not n.startswith(STATE_PREFIX)]
    shapes = [
        f"{name} {tuple(held[name].shape)} where {tuple(parameter.shape)} is due"
        for name, parameter in wanted.items()
        if name in held and tuple(held[name].shape) != tuple(parameter.shape)
    ]
    problems = [
        _listing("missing", missing),
        _listing("unexpected", unexpected),
        _listing("of another shape", shapes),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise UserError(f"checkpoint {checkpoint.describe()} does not fit {target}: {found}")
    for name, parameter in wanted.items():
        parameter.set_data(Tensor(held[name].asnumpy(), parameter.dtype))


def _listing(title: str, names: List[str], shown: int = 4) -> str:
    if not names:
        return ""
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
        """
        save_checkpoint(self.last, parameters, meta)
        if is_best:
            self._publish("best.ckpt")
        if epoch is not None and self.save_every and epoch % self.save_every == 0:
            self._publish(f"epoch_{epoch:03d}.ckpt")
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
