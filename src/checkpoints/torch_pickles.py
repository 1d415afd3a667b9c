"""PyTorch's own files, read without running any code that is in them.

torch unpickles with `weights_only`: tensors, numbers, strings and containers. Training scripts save
more than that, their arguments, metrics and hyper-parameters; a whole network is nothing but such
objects. Each of them becomes a `StandIn` here, which keeps the attributes and nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Set, Tuple

import numpy as np

from ..errors import UserError, some_of

_LOGGER = logging.getLogger(__name__)
# Objects that say more than their attributes.
_PLAIN = ("argparse.Namespace",)


class StandIn:
    """What any unknown class or function of a pickle is read as: makes empty dicts with attributes.

    The only kind torch's reader both fills with items and gives attributes to.
    """

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


def load_pickle(path: Path) -> Any:
    """What `torch.save` wrote; arrays of NumPy are read too.

    Raises:
        UserError: no PyTorch here, a damaged file, one of TorchScript, or one that runs code.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"input {str(path)!r}: reading it needs PyTorch; pip install torch, or give the "
            "weights as .safetensors"
        ) from error
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    unknown: Set[str] = set()
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if safe_globals is None:  # torch before 2.5
                    return torch.load(path, map_location="cpu", weights_only=True)
                allowed = [argparse.Namespace, *_arrays(), *((StandIn, name) for name in unknown)]
                with safe_globals(allowed):
                    found = torch.load(path, map_location="cpu", weights_only=True)
            _tell(unknown)
            return found
        except pickle.UnpicklingError as error:
            name = _unknown_object(error)
            if name is None or name in unknown or "is blocked" in str(error) or not safe_globals:
                _refuse(path, error, name)
            unknown.update({name, *_all_unknown(torch, path)})
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
            _refuse(path, error, None)


def _unknown_object(error: pickle.UnpicklingError) -> Optional[str]:
    """The object torch refuses, with its module."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    # torch leaves the module out of those that are built in.
    return found and (found[1] if "." in found[1] else f"builtins.{found[1]}")


def _all_unknown(torch: Any, path: Path) -> List[str]:
    """All of them at once, where torch tells: each further one would cost another reading."""
    tell = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    try:
        names = tell(path) if tell else []
    except (RuntimeError, ValueError, OSError, pickle.UnpicklingError):  # before torch 1.6
        return []
    return [name for name in names if name not in _PLAIN and not name.startswith("numpy")]


def _tell(unknown: Set[str]) -> None:
    if unknown:
        _LOGGER.info(
            "Python objects passed by, no code of theirs was run: %s", some_of(sorted(unknown))
        )


def _arrays() -> List[Any]:
    """What pickles of NumPy's arrays and numbers are made of, by the names of NumPy 1 and 2."""
    dtypes = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdFDSUV"}
    parts: List[Any] = [np.ndarray, np.dtype, *dtypes]
    try:
        core = importlib.import_module("numpy._core.multiarray")
    except ImportError:
        core = importlib.import_module("numpy.core.multiarray")
    for home in ("numpy.core.multiarray", "numpy._core.multiarray"):
        parts += [(getattr(core, name), f"{home}.{name}") for name in ("_reconstruct", "scalar")]
    return parts


def _refuse(path: Path, error: Exception, name: Optional[str]) -> NoReturn:
    if name is not None:
        raise UserError(
            f"input {str(path)!r}: holds the Python object {name}, which could run code: refused; "
            "save the state_dict alone where the file comes from"
        ) from error
    if "TorchScript" in str(error):
        raise UserError(
            f"input {str(path)!r}: a network of TorchScript; save its weights where it comes from: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        ) from error
    if "Can only" in str(error) or "Only persistent_load" in str(error):
        raise UserError(
            f"input {str(path)!r}: holds Python objects that PyTorch's reader of weights refuses; "
            "save the state_dict alone where the file comes from"
        ) from error
    raise UserError(
        f"input {str(path)!r}: not a whole PyTorch file; copy or download it again"
    ) from error


def state_of(module: Any) -> Optional[Dict[str, Any]]:
    """The state_dict of a network that was saved whole; None: it is none."""
    if not isinstance(getattr(module, "_modules", None), dict):
        return None
    passing = getattr(module, "_non_persistent_buffers_set", ())
    found: Dict[str, Any] = {}
    for kind in ("_parameters", "_buffers"):
        held = getattr(module, kind, None) or {}
        found.update({n: v for n, v in held.items() if v is not None and n not in passing})
    for name, child in module._modules.items():
        found.update({f"{name}.{n}": v for n, v in (state_of(child) or {}).items()})
    return found


def stored_tensor(value: Any) -> Tuple[str, np.ndarray]:
    """Type and values of a tensor or array; bfloat16 comes as the uint16 of its bits."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.name, np.asarray(value)
    import torch

    value = value.detach()
    kind = str(value.dtype).split(".")[-1]
    if value.dtype == torch.bfloat16:
        return kind, value.contiguous().view(torch.int16).numpy().view(np.uint16)
    return kind, value.numpy()
