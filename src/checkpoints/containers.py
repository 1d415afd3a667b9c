"""Where training scripts keep the weights within what they save."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..errors import UserError, on_one_line, some_of
from .torch_pickles import is_module, state_of

_LOGGER = logging.getLogger(__name__)

# (raw, averaged), of scripts that save both.
_PAIRS = (
    ("model", "model_ema"),  # torchvision's references, the authors of DeiT and ConvNeXt
    ("state_dict", "state_dict_ema"),  # timm
    ("ema_state_dict", "state_dict"),  # mmengine's EMAHook, which exchanges the two
    ("current_model_state", "state_dict"),  # lightning's WeightAveraging, likewise
)
_RAW = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params")
_AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict", "ema_model", "module_ema")


def select_weights(
    payload: Any, path: Path, *, ema: bool = False, key: Optional[str] = None
) -> Dict[str, Any]:
    """The weights by their names, out of what was saved.

    Args:
        ema: the averaged ones of two sets.
        key: the entry that holds them; None: one of those known.

    Raises:
        UserError: none, or several and it is not known which are meant.
    """
    if key is not None:
        entries = payload if isinstance(payload, dict) else {}
        if _weights_in(entries.get(key)) is None:
            raise UserError(f"key {key!r}: no weights there; {_entries_of(entries, path)}")
        payload, ema = entries[key], False
    for _ in range(8):  # no script nests deeper
        module = state_of(payload)
        if module is not None:
            return module
        if not isinstance(payload, dict):
            raise UserError(f"input {str(path)!r}: holds a {type(payload).__name__}, not weights")
        chosen = _choose(payload, path, ema)
        if chosen is None:
            break
        ema = ema and chosen not in _averaged_in(payload)
        payload = payload[chosen]
    return _checked(payload, path, ema)


def _checked(entries: Dict[str, Any], path: Path, ema: bool) -> Dict[str, Any]:
    if "param_groups" in entries and "state" in entries:
        raise UserError(
            f"input {str(path)!r}: the state of an optimizer, no weights; give the file of the "
            "network that was saved with it"
        )
    # Some wrappers keep both sets in one, told apart by their names.
    if ema and not any("ema" in name.split(".")[0].lower() for name in entries):
        raise UserError(
            f"input {str(path)!r}: holds no averaged weights ({', '.join(_AVERAGED[:4])}, ...); "
            "leave --ema out"
        )
    return entries


def _averaged_in(entries: Dict[str, Any]) -> List[str]:
    """Keys of averaged weights in what a script saved."""
    pairs = [averaged for raw, averaged in _PAIRS if {raw, averaged} <= set(entries)]
    return [*pairs, *(key for key in _AVERAGED if key in entries and not _is_raw(key, entries))]


def _is_raw(key: str, entries: Dict[str, Any]) -> bool:
    return any(key == raw and averaged in entries for raw, averaged in _PAIRS)


def _choose(entries: Dict[str, Any], path: Path, ema: bool) -> Optional[str]:
    """The key to look into; None: the entries are the weights, or nothing is known of them."""
    held = {key: entries[key] for key in entries if _weights_in(entries[key]) is not None}
    averaged = [key for key in _averaged_in(entries) if key in held]
    raws = [raw for raw, other in _PAIRS if raw in held and other in held]
    raws += [key for key in _RAW if key in held and key not in averaged]
    if averaged and not ema and not raws:
        raise UserError(f"input {str(path)!r}: holds averaged weights only; give --ema")
    if averaged and raws:
        chosen, other = (averaged, raws) if ema else (raws, averaged)
        _LOGGER.info("taking the weights under %r, not those under %r", chosen[0], other[0])
        return chosen[0]
    found = averaged if ema and averaged else raws
    if found:
        return found[0]
    if not held or any(_is_tensor(value) for value in entries.values()):
        return None
    if len(held) > 1:
        raise UserError(
            f"input {str(path)!r}: which weights are meant? {_entries_of(entries, path)}"
        )
    (only,) = held
    _LOGGER.info("taking the weights under %r", only)
    return only


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _weights_in(value: Any) -> Optional[Any]:
    """`value` when it is a network, or a dict with tensors at any depth."""
    pending, seen = [value], {id(value)}
    # Dicts may hold each other, or the same one many times.
    while pending:
        inner = pending.pop()
        if _is_tensor(inner) and inner is not value:
            return value
        if is_module(inner):
            return value
        if not isinstance(inner, dict) or {"param_groups", "state"} <= set(inner):
            continue
        new = {id(each): each for each in inner.values() if id(each) not in seen}
        seen.update(new)
        pending += new.values()
    return None


def _entries_of(entries: Dict[str, Any], path: Path) -> str:
    with_weights = [key for key in entries if _weights_in(entries[key]) is not None]
    if not with_weights:
        names = [on_one_line(key) for key in entries]
        return f"{str(path)!r} has {some_of(names) or 'no entries'}"
    return f"give --key {' or --key '.join(map(on_one_line, with_weights))}"
