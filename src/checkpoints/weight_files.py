"""Weights in files of other frameworks: PyTorch's, safetensors, NumPy's; whole or in pieces.

`Arrays` hold weights by name, float32; what is not floating-point keeps its type.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import numpy as np

from ..errors import UserError, some_of
from ..runtime.files import write_whole
from .containers import select_weights
from .torch_pickles import load_pickle, stored_tensor

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
_PIECE = re.compile(r"-\d{5}-of-\d{5}\.")


def read_weights(path: Path, *, ema: bool = False, key: Optional[str] = None) -> Arrays:
    """Weights of a checkpoint under the names it has, in float32; conversions are logged.

    What wrappers put into names and batch counters (which nothing here reads) go.

    Args:
        path: `.pth`, `.pth.tar`, `.pt`, `.bin` or lightning's `.ckpt` (read by torch, weights
            only), `.safetensors`, `.npz`, or the `.index.json` of weights in several files.
        ema: take the averaged weights instead of the raw ones.
        key: the entry with the weights, where a script saved several.

    Raises:
        UserError: missing, damaged or unknown file, code in it, no such weights, torch not
            installed.
    """
    stored = _read(path, ema, key)
    names = {name: _WRAPPERS.sub("", name) for name in stored}
    return _as_float32(_without_counters({names[n]: value for n, value in stored.items()}))


def _read(path: Path, ema: bool, key: Optional[str]) -> _Stored:
    if path.is_dir():
        raise UserError(f"input {str(path)!r}: a folder; {_files_to_take(path)}")
    if not path.is_file():
        raise UserError(f"input {str(path)!r}: no such file")
    if path.name.endswith(_INDEX):
        return _read_pieces(path, ema, key)
    if path.suffix == ".ckpt" and is_torch_file(path):
        return _read_torch(path, ema, key)
    if path.suffix not in _READERS:
        known = ", ".join([*_READERS, _INDEX])
        hint = "; a .ckpt goes the other way, with --to torch" if path.suffix == ".ckpt" else ""
        raise UserError(f"input {str(path)!r}: unknown suffix; known: {known}{hint}")
    if _PIECE.search(path.name):
        index = _PIECE.sub(".", path.name) + _INDEX
        raise UserError(
            f"input {str(path)!r}: one of several files of a network; give their list, {index}"
        )
    return _READERS[path.suffix](path, ema, key)


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as `torch.save` writes it: a zip, before torch 1.6 a bare pickle."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")


def _files_to_take(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    lists = [name for name in names if name.endswith(_INDEX)]
    known = [n for n in names if Path(n).suffix in _READERS and not _PIECE.search(n)]
    found = lists or known
    return f"give a file in it: {some_of(found)}" if found else "there are no weights in it"


def _damaged(path: Path, kind: str) -> UserError:
    return UserError(f"input {str(path)!r}: not a whole {kind} file; copy or download it again")


def _read_pieces(path: Path, ema: bool, key: Optional[str]) -> _Stored:
    try:
        pieces = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, _INDEX) from error
    stored: _Stored = {}
    for name in pieces:
        piece = path.with_name(name)
        if not piece.is_file() or piece.suffix not in _READERS:
            raise UserError(f"input {str(path)!r}: its file {name} is missing; copy it beside")
        stored.update(_READERS[piece.suffix](piece, ema, key))
    return stored


def _read_torch(path: Path, ema: bool, key: Optional[str]) -> _Stored:
    weights = select_weights(load_pickle(path), path, ema=ema, key=key)
    try:
        return {name: stored_tensor(value) for name, value in weights.items()}
    except (TypeError, AttributeError) as error:
        odd = [str(name) for name, value in weights.items() if not hasattr(value, "dtype")]
        raise UserError(
            f"input {str(path)!r}: expected tensors only, found {', '.join(odd[:4]) or error}"
        ) from error


def _read_safetensors(path: Path, ema: bool, key: Optional[str]) -> _Stored:
    import safetensors

    _refuse_choice(path, ema, key)
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise _damaged(path, "safetensors") from error
    unknown = sorted({entry["dtype"] for _, entry in entries} - set(_SAFETENSORS_TYPES))
    if unknown:
        raise UserError(f"input {str(path)!r}: type {unknown[0]} is no type of weights")
    return {
        name: (
            entry["dtype"],
            np.frombuffer(entry["data"], _SAFETENSORS_TYPES[entry["dtype"]]).reshape(
                entry["shape"]
            ),
        )
        for name, entry in entries
    }


def _read_npz(path: Path, ema: bool, key: Optional[str]) -> _Stored:
    _refuse_choice(path, ema, key)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: (arrays[name].dtype.name, arrays[name]) for name in arrays.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"input {str(path)!r}: holds Python objects, which could run code: refused; save "
                "plain arrays"
            ) from error
        raise _damaged(path, ".npz") from error
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise _damaged(path, ".npz") from error


def _refuse_choice(path: Path, ema: bool, key: Optional[str]) -> None:
    for option, given in (("--ema", ema), ("--key", key)):
        if given:
            raise UserError(
                f"input {str(path)!r}: a {path.suffix} file holds one set of weights; leave "
                f"{option} out"
            )


_READERS: Dict[str, Callable[[Path, bool, Optional[str]], _Stored]] = {
    **dict.fromkeys((".pth", ".tar", ".pt", ".bin"), _read_torch),
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
    arrays: Arrays = {}
    converted: Dict[str, int] = {}
    for name, (kind, value) in stored.items():
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
