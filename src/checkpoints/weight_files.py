"""Weights in files of other frameworks: PyTorch's, safetensors, NumPy's; whole or in pieces.

`Arrays` hold weights by name, float32; what is not floating-point keeps its type.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable, Dict, List, Optional, Tuple

import numpy as np

from ..errors import UserError, on_one_line, some_of
from ..runtime.files import file_sha256, write_whole
from ..runtime.json_files import parse_json, read_typed
from ..runtime.memory import Allowance, host_allowance
from ..runtime.regular_files import RECORD_BYTES, WEIGHTS_BYTES, open_regular
from ..runtime.zip_files import ArraysTooLarge, read_npz
from .containers import select_weights
from .tensor_file import META, TensorReader
from .torch_files import is_torch_file, num_elements, open_torch_file

_LOGGER = logging.getLogger(__name__)

Arrays = Dict[str, np.ndarray]
# Name -> (type as the file calls it, values); bfloat16 comes as the uint16 of its bits.
_Stored = Dict[str, Tuple[str, np.ndarray]]

_BFLOAT16 = ("bfloat16", "BF16")
_SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "|u1",
}
# What torch.compile, FSDP and activation checkpointing put into names.
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# The list of a set of weights in several files, as Hugging Face's libraries write it.
_INDEX = ".index.json"
_MOST_PIECES = 1_000
# NumPy's.
_MOST_DIMS = 32
_PIECE = re.compile(r"-\d{5}-of-\d{5}\.")


def read_weights(
    path: Path,
    *,
    ema: bool = False,
    key: Optional[str] = None,
    room: Optional[Allowance] = None,
) -> Arrays:
    """Weights of a checkpoint under the names it has, in float32; conversions are logged.

    What wrappers put into names and batch counters (which nothing here reads) go.

    Args:
        path: `.pth`, `.pth.tar`, `.pth.zip`, `.pt`, `.bin` or lightning's `.ckpt`, `.safetensors`,
            `.npz`, MindSpore's `.ckpt`, or the `.index.json` of weights in several files.
        ema: take the averaged weights instead of the raw ones.
        key: the entry with the weights, where a script saved several.
        room: most bytes that they may take as float32; None: what this process may have.

    Raises:
        UserError: missing, damaged, unknown or too large a file, code in it, no such weights.
    """
    room = room or host_allowance() or Allowance(WEIGHTS_BYTES, "no weights take more than")
    try:
        stored = _read(path, room, ema, key)
    except OSError as error:
        raise UserError(
            f"input {str(path)!r}: cannot be read ({error.strerror or on_one_line(error)}); give "
            "another file"
        ) from error
    names = {name: _WRAPPERS.sub("", name) for name in stored}
    return _as_float32(_without_counters({names[n]: value for n, value in stored.items()}))


def _read(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    if path.is_dir():
        raise UserError(f"input {str(path)!r}: a folder; {_files_to_take(path)}")
    if not path.exists():
        raise UserError(f"input {str(path)!r}: no such file")
    if path.name.endswith(_INDEX):
        return _read_pieces(path, room, ema, key)
    if path.suffix == ".ckpt":
        read = _read_torch if is_torch_file(path) else _read_mindspore
        return read(path, room, ema, key)
    if path.suffix not in _READERS:
        known = ", ".join([*_READERS, ".ckpt", _INDEX])
        raise UserError(f"input {str(path)!r}: unknown suffix; known: {known}")
    if _PIECE.search(path.name):
        index = _PIECE.sub(".", path.name) + _INDEX
        raise UserError(
            f"input {str(path)!r}: one of several files of a network; give their list, {index}"
        )
    return _READERS[path.suffix](path, room, ema, key)


def _files_to_take(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    lists = [name for name in names if name.endswith(_INDEX)]
    known = [n for n in names if Path(n).suffix in _READERS and not _PIECE.search(n)]
    found = lists or known
    return f"give a file in it: {some_of(found)}" if found else "there are no weights in it"


def _damaged(path: Path, kind: str, why: object) -> UserError:
    return UserError(
        f"input {str(path)!r}: not a whole {kind} file ({on_one_line(why)}); copy or download it "
        "again"
    )


def _check_room(path: Path, num_bytes: int, room: Allowance) -> None:
    if num_bytes > room.num_bytes:
        raise UserError(
            f"input {str(path)!r}: its weights take {num_bytes / 2**30:,.2f} GiB, {room.said_by} "
            f"{room.num_bytes / 2**30:,.2f} GiB; give a file with less beside this network's"
        )


def _read_pieces(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    try:
        places = _places_in(path)
    except ValueError as error:
        raise _damaged(path, _INDEX, error) from error
    stored: _Stored = {}
    for name in sorted(set(places.values())):
        piece = path.with_name(name)
        if not piece.exists() or piece.suffix not in _READERS:
            shown = on_one_line(name)
            raise UserError(f"input {str(path)!r}: its file {shown} is missing; copy it beside")
        found = _READERS[piece.suffix](piece, room, ema, key)
        missing = [weight for weight, place in places.items() if place == name]
        missing = [weight for weight in missing if weight not in found]
        twice = sorted(set(found) & set(stored))
        if missing or twice:
            odd = f"{'without' if missing else 'again with'} {some_of(missing or twice)}"
            raise _damaged(path, _INDEX, f"{name} is {odd}")
        stored.update(found)
        held = sum(4 * value.size for _, value in found.values())
        room = room._replace(num_bytes=room.num_bytes - held)
    return stored


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file that `read_weights` has read.

    Of weights in several files it is what `sha256sum LIST FILES | sha256sum` gives, with the files
    in the order of their names.
    """
    if not path.name.endswith(_INDEX):
        return file_sha256(path, WEIGHTS_BYTES)
    names = [path.name, *sorted(set(_places_in(path).values()))]
    digests = [file_sha256(path.with_name(name), WEIGHTS_BYTES) for name in names]
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names))
    return hashlib.sha256(lines.encode()).hexdigest()


def _places_in(index: Path) -> Dict[str, str]:
    """Weight -> name of the file beside the list that holds it.

    Raises:
        ValueError: damaged, or a name that leads elsewhere; a reason on one line.
    """
    places = read_typed(index, RECORD_BYTES, _Pieces).weight_map
    names = set(places.values())
    for name in names:
        if not name or Path(name).name != name or "\0" in name:
            raise ValueError(f"{on_one_line(repr(name))} is no name of a file beside it")
    if len(names) > _MOST_PIECES:
        raise ValueError(f"{len(names):,} files")
    return places


@dataclass
class _Pieces:
    """What is read of an `.index.json`."""

    weight_map: Dict[str, str]


def _read_torch(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    with open_torch_file(path, room.num_bytes) as file:
        weights = select_weights(file.payload, path, ema=ema, key=key)
        _check_room(path, 4 * sum(map(num_elements, weights.values())), room)
        try:
            return {_name(name): file.values(value) for name, value in weights.items()}
        except TypeError as error:
            odd = [str(name) for name, value in weights.items() if not hasattr(value, "dtype")]
            raise UserError(
                f"input {str(path)!r}: expected tensors only, found "
                f"{on_one_line(', '.join(odd[:4]) or error)}"
            ) from error


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a tensor named {on_one_line(repr(name))}")
    return name


@dataclass
class _Tensor:
    """What the header of a `.safetensors` file says of a tensor; offsets from the header's end."""

    dtype: str
    shape: List[int]
    data_offsets: Tuple[int, int]

    @property
    def num_bytes(self) -> int:
        """By its shape."""
        return math.prod(self.shape) * np.dtype(_SAFETENSORS_TYPES[self.dtype]).itemsize


def _read_safetensors(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    _refuse_choice(path, ema, key)
    with open_regular(path, WEIGHTS_BYTES) as file:
        try:
            tensors, start = _read_header(file)
            unknown = sorted({tensor.dtype for tensor in tensors.values()} - {*_SAFETENSORS_TYPES})
            if unknown:
                shown = on_one_line(unknown[0])
                raise UserError(f"input {str(path)!r}: type {shown} is no type of weights")
            _check_offsets(tensors, file.seek(0, 2) - start)
            _check_room(path, 4 * sum(math.prod(t.shape) for t in tensors.values()), room)
            return {
                name: (tensor.dtype, _read_tensor(file, tensor, start))
                for name, tensor in tensors.items()
            }
        except UserError:
            raise
        except ValueError as error:
            raise _damaged(path, "safetensors", error) from error


def _read_header(file: BinaryIO) -> Tuple[Dict[str, _Tensor], int]:
    """https://github.com/huggingface/safetensors#format: its tensors, and where they begin."""
    import msgspec

    size = int.from_bytes(file.read(8), "little")
    if size > RECORD_BYTES:
        raise ValueError(f"a header of {size:,} bytes")
    header = file.read(size)
    if len(header) < max(size, 1):
        raise ValueError(f"{len(header):,} bytes of a header of {size:,}")
    entries = parse_json(header)
    if not isinstance(entries, dict):
        raise ValueError("its header is no table")
    entries.pop("__metadata__", None)
    try:
        return msgspec.convert(entries, Dict[str, _Tensor]), 8 + size
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def _check_offsets(tensors: Dict[str, _Tensor], num_bytes: int) -> None:
    """One tensor after the other, and nothing else, as the format demands."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        start, stop = tensor.data_offsets
        if min(tensor.shape, default=1) < 0 or len(tensor.shape) > _MOST_DIMS:
            raise ValueError(f"{on_one_line(name)} has the shape {on_one_line(tensor.shape)}")
        if start != end or stop - start != tensor.num_bytes:
            raise ValueError(
                f"{on_one_line(name)} lies at {start:,} to {stop:,}; {tensor.num_bytes:,} bytes "
                f"from {end:,} are due"
            )
        end = stop
    if end != num_bytes:
        raise ValueError(f"{num_bytes:,} bytes of tensors, {end:,} are due")


def _read_tensor(file: BinaryIO, tensor: _Tensor, start: int) -> np.ndarray:
    content = np.empty(tensor.num_bytes, np.uint8)
    file.seek(start + tensor.data_offsets[0])
    if file.readinto(content.data) < content.size:  # type: ignore[attr-defined]
        raise ValueError("it became shorter")
    return content.view(_SAFETENSORS_TYPES[tensor.dtype]).reshape(tensor.shape)


def _read_npz(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    _refuse_choice(path, ema, key)
    try:
        # Of float64, which takes twice as much here.
        most = 2 * room.num_bytes
        arrays = read_npz(path, most_file_bytes=WEIGHTS_BYTES, most_array_bytes=most)
    except ArraysTooLarge as error:
        raise UserError(
            f"input {str(path)!r}: {error}; {room.said_by} {room.num_bytes:,}; give a file with "
            "less beside this network's"
        ) from error
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"input {str(path)!r}: holds Python objects, which could run code: refused; save "
                "plain arrays"
            ) from error
        raise _damaged(path, ".npz", error) from error
    _check_room(path, 4 * sum(array.size for array in arrays.values()), room)
    return {name: (array.dtype.name, array) for name, array in arrays.items()}


def _read_mindspore(path: Path, room: Allowance, ema: bool, key: Optional[str]) -> _Stored:
    """A file by MindSpore's `save_checkpoint`, as mindcv has them."""
    _refuse_choice(path, ema, key)
    _check_room(path, path.stat().st_size, room)
    with open_regular(path, WEIGHTS_BYTES) as file:
        arrays = dict(TensorReader(file, path).tensors())
    if META in arrays:
        raise UserError(
            f"input {str(path)!r}: is a checkpoint of these programs, which take it as it is; the "
            "other way goes with --to torch"
        )
    _check_room(path, 4 * sum(array.size for array in arrays.values()), room)
    return {name: (array.dtype.name, array) for name, array in arrays.items()}


def _refuse_choice(path: Path, ema: bool, key: Optional[str]) -> None:
    for option, given in (("--ema", ema), ("--key", key)):
        if given:
            raise UserError(
                f"input {str(path)!r}: a {path.suffix} file holds one set of weights; leave "
                f"{option} out"
            )


_READERS: Dict[str, Callable[[Path, Allowance, bool, Optional[str]], _Stored]] = {
    **dict.fromkeys((".pth", ".tar", ".zip", ".pt", ".bin"), _read_torch),
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}


# Endings of files that are none of MindSpore's.
FOREIGN = (*_READERS, _INDEX[-5:])


def _without_counters(stored: _Stored) -> _Stored:
    """Without single integers: batches seen by a norm, networks in an average."""
    counters: Dict[str, int] = {}
    for name, (_, value) in stored.items():
        is_count = value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
        if is_count or name.endswith("num_batches_tracked"):
            last = name.rpartition(".")[2]
            counters[last] = counters.get(last, 0) + 1
    for last, count in counters.items():
        _LOGGER.info("%d x %s: not needed, dropped", count, last)
    return {n: held for n, held in stored.items() if n.rpartition(".")[2] not in counters}


def _as_float32(stored: _Stored) -> Arrays:
    """Copies, one after the other; `stored` is emptied meanwhile."""
    arrays: Arrays = {}
    converted: Dict[str, int] = {}
    for name in list(stored):
        kind, value = stored.pop(name)
        if kind in _BFLOAT16:
            # The upper half of a float32.
            value = (value.astype(np.uint32) << 16).view(np.float32)
        elif not np.issubdtype(value.dtype, np.floating):
            arrays[name] = value
            continue
        with np.errstate(over="ignore"):  # is found as what it becomes, an infinity
            arrays[name] = np.ascontiguousarray(value, np.float32).reshape(value.shape)
        if kind not in ("float32", "F32"):
            converted[kind] = converted.get(kind, 0) + 1
    for kind, count in converted.items():
        _LOGGER.info("%d tensors converted from %s to float32", count, kind)
    return arrays


def write_safetensors(arrays: Arrays, path: Path, meta: Dict[str, str]) -> None:
    """Writes a file that PyTorch's loaders read.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    from safetensors.numpy import save

    # Its loaders expect the format to be said.
    write_whole(path, save(arrays, metadata={"format": "pt", **meta}))
