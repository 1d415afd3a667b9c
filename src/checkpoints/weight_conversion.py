"""PyTorch checkpoints: reading them, recognising how they name weights, renaming them to ours.

`Arrays` hold weights by name, float32 unless said otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterable, Tuple

import numpy as np
from mindspore import nn

from ..errors import UserError
from ..models.family import Family, Naming
from ..models.registry import FAMILIES, family_of
from ..models.weights import reference_names
from ..runtime.files import write_whole
from .finite import check_finite

_LOGGER = logging.getLogger(__name__)

Arrays = Dict[str, np.ndarray]
# Name -> (type as the file calls it, values); bfloat16 comes as the uint16 of its bits.
_Stored = Dict[str, Tuple[str, np.ndarray]]

# Where training scripts keep the weights within a checkpoint.
_RAW_KEYS = ("model", "state_dict")
_EMA_KEYS = ("model_ema", "state_dict_ema")
# What DataParallel and torch.compile put before every name.
_WRAPPERS = ("module.", "_orig_mod.")
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


# Reading


def read_weights(path: Path, *, ema: bool) -> Arrays:
    """Weights of a checkpoint under the names it has, in float32; conversions are logged.

    Wrappers' prefixes and batch counters (`num_batches_tracked`, which nothing here reads) go.

    Args:
        path: `.pth`, `.pth.tar`, `.pt` or `.bin` (read by torch, weights only), `.safetensors` or
            `.npz`.
        ema: take the averaged weights instead of the raw ones.

    Raises:
        UserError: missing, damaged or unknown file, Python objects in it, no such weights, torch
            not installed.
    """
    readers: Dict[str, Callable[[Path, bool], _Stored]] = {
        **dict.fromkeys((".pth", ".tar", ".pt", ".bin"), _read_torch),
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
    }
    if not path.is_file():
        raise UserError(f"input {str(path)!r}: no such file")
    if path.suffix not in readers:
        known = ", ".join(readers)
        hint = "; a .ckpt goes the other way, with --to torch" if path.suffix == ".ckpt" else ""
        raise UserError(f"input {str(path)!r}: unknown suffix; known: {known}{hint}")
    arrays = _as_float32(_without_counters(_unwrapped(readers[path.suffix](path, ema))), path)
    check_finite(arrays.items(), path, kind="input")
    return arrays


def _damaged(path: Path, kind: str) -> UserError:
    return UserError(f"input {str(path)!r}: not a whole {kind} file; copy or download it again")


def _read_torch(path: Path, ema: bool) -> _Stored:
    weights = _select(_load_torch(path), path, ema)
    try:
        return {name: _stored_tensor(value) for name, value in weights.items()}
    except (TypeError, AttributeError) as error:
        odd = [name for name, value in weights.items() if not hasattr(value, "detach")]
        raise UserError(
            f"input {str(path)!r}: expected tensors only, found {', '.join(odd[:4]) or error}"
        ) from error


def _stored_tensor(value: Any) -> Tuple[str, np.ndarray]:
    import torch

    value = value.detach()
    kind = str(value.dtype).split(".")[-1]
    if value.dtype == torch.bfloat16:
        return kind, value.contiguous().view(torch.int16).numpy().view(np.uint16)
    return kind, value.numpy()


def _load_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"input {str(path)!r}: reading it needs PyTorch; pip install torch, or give the "
            "weights as .safetensors"
        ) from error
    # Training scripts save their arguments beside the weights; a Namespace runs no code.
    allow = getattr(torch.serialization, "safe_globals", None)
    allowed: ContextManager[Any] = (
        allow([argparse.Namespace]) if allow else contextlib.nullcontext()
    )
    try:
        with allowed, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+\.\S+)", str(error))
        if not found:
            raise _damaged(path, "PyTorch") from error
        raise UserError(
            f"input {str(path)!r}: holds the Python object {found[1]}, which could run code: "
            "refused; save the state_dict alone where the file comes from"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, "PyTorch") from error


def _select(payload: Any, path: Path, ema: bool) -> Dict[str, Any]:
    """The raw or the averaged weights of what a training script saved, or of a bare dict."""
    if not isinstance(payload, dict):
        raise UserError(f"input {str(path)!r}: holds a {type(payload).__name__}, not weights")
    raw, averaged = (
        [key for key in keys if isinstance(payload.get(key), dict)]
        for keys in (_RAW_KEYS, _EMA_KEYS)
    )
    if ema and not averaged:
        raise UserError(
            f"input {str(path)!r}: holds no averaged weights ({', '.join(_EMA_KEYS)}); "
            "leave --ema out"
        )
    if averaged and not ema and not raw:
        raise UserError(f"input {str(path)!r}: holds averaged weights only; give --ema")
    if averaged and raw:
        chosen, other = (averaged, raw) if ema else (raw, averaged)
        _LOGGER.info("taking the weights under %r, not those under %r", chosen[0], other[0])
    keys = averaged if ema else raw
    return payload[keys[0]] if keys else payload


def _read_safetensors(path: Path, ema: bool) -> _Stored:
    import safetensors

    _refuse_ema(path, ema)
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


def _read_npz(path: Path, ema: bool) -> _Stored:
    _refuse_ema(path, ema)
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


def _refuse_ema(path: Path, ema: bool) -> None:
    if ema:
        raise UserError(
            f"input {str(path)!r}: a {path.suffix} file holds one set of weights; leave --ema out"
        )


def _unwrapped(stored: _Stored) -> _Stored:
    for prefix in _WRAPPERS:
        if stored and all(name.startswith(prefix) for name in stored):
            return _unwrapped({name[len(prefix) :]: value for name, value in stored.items()})
    return stored


def _without_counters(stored: _Stored) -> _Stored:
    kept = {n: value for n, value in stored.items() if not n.endswith("num_batches_tracked")}
    if len(kept) < len(stored):
        _LOGGER.info("%d x num_batches_tracked: not needed, dropped", len(stored) - len(kept))
    return kept


def _as_float32(stored: _Stored, path: Path) -> Arrays:
    arrays: Arrays = {}
    converted: Dict[str, int] = {}
    for name, (kind, value) in stored.items():
        if kind in _BFLOAT16:
            # The upper half of a float32.
            value = (value.astype(np.uint32) << 16).view(np.float32)
        elif not np.issubdtype(value.dtype, np.floating):
            raise UserError(f"input {str(path)!r}: {name} is {kind}; weights are floating-point")
        arrays[name] = np.ascontiguousarray(value, np.float32).reshape(value.shape)
        if kind not in ("float32", "F32"):
            converted[kind] = converted.get(kind, 0) + 1
    for kind, count in converted.items():
        _LOGGER.info("%d tensors converted from %s to float32", count, kind)
    return arrays


# Naming


def recognise(names: Iterable[str]) -> Tuple[Family, Naming]:
    """The family these names belong to, and which of its namings they follow.

    Raises:
        UserError: none of those known.
    """
    names = list(names)
    for family in FAMILIES.values():
        for naming in family.namings:
            if naming.mark in names:
                return family, naming
    raise UserError(
        f"weights named {', '.join(names[:3]) or 'nothing'}, ...: none of the families known here; "
        f"these are {', '.join(family.title for family in FAMILIES.values())}"
    )


def to_network_names(arrays: Arrays, network: nn.Cell, *, arch: str) -> Tuple[Arrays, Naming]:
    """Weights under the names of `network`; what it does not have keeps the name of the file.

    Raises:
        UserError: unknown naming, another family, or two tensors for one parameter.
    """
    family, naming = recognise(arrays)
    due = family_of(arch)
    if family is not due:
        raise UserError(
            f"arch {arch!r} is of the family {due.title}, but the weights look like {family.title} "
            f"({naming.mark}); give the --arch they belong to"
        )
    ours = {reference: name for name, reference in reference_names(network).items()}
    renamed: Arrays = {}
    for name, value in arrays.items():
        target = ours.get(naming.rename(name), name)
        if target in renamed:
            raise UserError(f"weights hold {target} twice, once as {name}")
        renamed[target] = value
    return renamed, naming


def to_reference_names(arrays: Arrays, network: nn.Cell) -> Arrays:
    """Weights of `network` under timm's names (CCT, CVT, ViT-Lite: the authors')."""
    return {reference: arrays[name] for name, reference in reference_names(network).items()}


# Writing


def write_safetensors(arrays: Arrays, path: Path, meta: Dict[str, str]) -> None:
    """Writes a file that PyTorch's loaders read.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    from safetensors.numpy import save

    # Its loaders expect the format to be said.
    write_whole(path, save(arrays, metadata={"format": "pt", **meta}))
