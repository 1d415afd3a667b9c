"""Checkpoints: one file holds network, optimizer, counters, the resolved config and the versions.

The format is MindSpore's own (`tensor_file.py`). Parameters of the network keep their names;
everything else is named `train.*`, so `mindspore.load_checkpoint` reads the network from any of our
files.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Tuple

import numpy as np
from mindspore import Parameter, Tensor

from ..data.classes import TrainedClasses
from ..errors import UserError, some_of
from ..runtime.files import replacing
from ..runtime.regular_files import WEIGHTS_BYTES, open_regular
from .finite import check_finite
from .record import read_record
from .saved_record import SavedRecord, parse_record
from .tensor_file import META, DamagedCheckpoint, TensorReader, write_tensors
from .weight_files import FOREIGN, is_torch_file
from .whole import in_place_of

_LOGGER = logging.getLogger(__name__)

STATE_PREFIX = "train."


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, and the record saved with them, empty for others'."""

    path: Path
    tensors: Dict[str, Tensor]
    record: SavedRecord

    def describe(self) -> str:
        """`PATH (arch, classes)`, or `PATH` for a file that does not say."""
        arch, classes = self.record.arch, self.record.num_classes
        return f"{self.path} ({arch}, {classes} classes)" if arch else str(self.path)

    def trained_classes(self, key: str = "pretrained") -> TrainedClasses:
        """What the file says of its classes; `key` gave it, for messages."""
        return TrainedClasses(
            f"{key} {str(self.path)!r}", self.record.class_names, self.record.is_converted
        )

    def averaged(self) -> Checkpoint:
        """The same with the averaged weights (`with_ema`) in place of the network's.

        Frozen weights have no averages, and stay what they are.

        Raises:
            UserError: the file holds none, or some that are not finite.
        """
        prefix = f"{STATE_PREFIX}ema."
        tensors = {n[len(prefix) :]: t for n, t in self.tensors.items() if n.startswith(prefix)}
        if not tensors:
            raise UserError(
                f"ema True: checkpoint {self.describe()} holds no averaged weights; it was trained "
                "without with_ema"
            )
        check_finite(_values(tensors), self.path, kind="averages of checkpoint")
        recipe = self.record.recipe(str(self.path))
        if recipe is not None and recipe.optim.freeze != "none":
            own = {n: t for n, t in self.tensors.items() if not n.startswith(STATE_PREFIX)}
            tensors = {**own, **tensors}
        return Checkpoint(self.path, tensors, self.record)


def _values(tensors: Mapping[str, Any]) -> Iterator[Tuple[str, np.ndarray]]:
    """Those of the network; the state of a training is no part of it."""
    weights = ((n, tensor) for n, tensor in tensors.items() if not n.startswith(STATE_PREFIX))
    return ((name, tensor.asnumpy()) for name, tensor in weights)


def save_checkpoint(
    path: Path,
    parameters: Iterable[Parameter],
    meta: Dict[str, Any],
    *,
    on_digest: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes a file that is whole and on the disk when this returns.

    Args:
        meta: of a `SavedRecord`, as JSON values.
        on_digest: is told the digest of the parameters (`WeightsDigest`) before the file takes the
            place of an older one.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file at `path` is whole.
    """
    arrays = ((parameter.name, parameter.asnumpy()) for parameter in parameters)
    with replacing(path, to_disk=True) as draft, draft.open("wb") as file:
        digest = write_tensors(file, json.dumps(meta).encode(), arrays)
        file.flush()
        on_digest(digest)


def read_checkpoint(path: Path, *, must_be_finite: bool = True) -> Checkpoint:
    """Reads a `.ckpt` file, ours or any other of MindSpore's.

    Args:
        must_be_finite: refuse weights with a NaN or an infinity in them.

    Raises:
        DamagedCheckpoint: not as it was written; names the newest whole one beside it.
        UserError: a file that is missing, unreadable or something else, or such weights.
    """
    try:
        return _read(path, must_be_finite=must_be_finite)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(path, error.reason, in_place_of(path)) from error


def _read(path: Path, *, must_be_finite: bool) -> Checkpoint:
    with _failures_explained(path):
        _check_file(path)
        with open_regular(path, WEIGHTS_BYTES) as file:
            reader = TensorReader(file, path)
            arrays = dict(reader.tensors())
    if not reader.is_verified:
        _LOGGER.warning(
            "checkpoint %s: without a digest (an older version's, or MindSpore's own file), so "
            "changed numbers would not be noticed; whatever is saved from here on has one",
            path,
        )
    content = arrays.pop(META, None)
    record = SavedRecord() if content is None else parse_record(content.tobytes(), path)
    tensors = {name: Tensor.from_numpy(array) for name, array in arrays.items()}
    if must_be_finite:
        check_finite(_values(tensors), path, kind="checkpoint")
    return Checkpoint(path, tensors, record)


@contextlib.contextmanager
def _failures_explained(path: Path) -> Iterator[None]:
    """What keeps a file from being read, as a UserError."""
    named = f"checkpoint {str(path)!r}"
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{named}: no such file; give the path of a .ckpt file") from error
    except IsADirectoryError as error:
        raise UserError(f"{named}: a folder; {_checkpoints_in(path)}") from error
    except OSError as error:
        remedy = "try again, or give another one"
        if isinstance(error, PermissionError):
            remedy = "as its owner: chmod +r, and +x for the folders above it"
        raise UserError(f"{named}: cannot be read ({error.strerror}); {remedy}") from error


def _check_file(path: Path) -> None:
    """Names what is wrong with a file before it is called damaged, whatever it is."""
    named = f"checkpoint {str(path)!r}"
    with open_regular(path, WEIGHTS_BYTES) as file:
        if not file.read(1):
            raise DamagedCheckpoint(path, "an empty file")
    if path.suffix in FOREIGN or is_torch_file(path):
        raise UserError(
            f"{named}: no MindSpore checkpoint; scripts/convert_weights.py makes one of it"
        )
    if path.suffix != ".ckpt":
        remedy = "no MindSpore checkpoint; give the path of a .ckpt file"
        with contextlib.suppress(ValueError):
            if read_record(path) is not None:
                remedy = "a checkpoint whose name must end in .ckpt; rename it"
        raise UserError(f"{named}: {remedy}")


def _checkpoints_in(folder: Path) -> str:
    """Which file of a folder to give: of a run the best one, or the last."""
    names = [name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()]
    names += sorted(path.name for path in folder.glob("*.ckpt") if path.name not in names)
    if names:
        return f"give a file in it: {some_of([str(folder / name) for name in names])}"
    return "there is no .ckpt in it; give the path of one"


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
        found = "; ".join(f"{len(e)} {title}: {some_of(e)}" for title, e in problems.items())
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
