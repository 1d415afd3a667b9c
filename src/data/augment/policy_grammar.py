"""The strings of `auto_augment`: words separated by dashes, the first of which names the policy.

The grammar is that of timm 1.0.31, read strictly: timm ignores a word without a digit and an
unknown op set, and of a repeated key keeps the first or the last value, depending on the key.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Dict, NamedTuple, NoReturn, Sequence, Tuple

from ...errors import UserError, suggestion
from ...runtime.plain_numbers import decimal_number, whole_number

_SHOWN = 80
OP_SETS = ("weights", "3a", "3aw")


class _Value(NamedTuple):
    """What may stand behind a key."""

    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    allowed: str


def _number(text: str) -> float:
    # timm's name of an unbounded spread.
    return math.inf if text == "inf" else decimal_number(text)


_WHOLE = _Value(whole_number, lambda value: value >= 0, "a whole number")
_COUNT = _Value(whole_number, lambda value: value >= 1, "a whole number >= 1")
_FLAG = _Value(whole_number, lambda value: value in (0, 1), "0 or 1")
_SHARE = _Value(decimal_number, lambda value: 0 <= value <= 1, "a number in [0, 1]")
_SPREAD = _Value(_number, lambda value: value >= 0, "a number >= 0")
_ALPHA = _Value(decimal_number, lambda value: value > 0, "a number > 0")
_OP_SET = _Value(str, lambda value: value in OP_SETS, " or ".join(OP_SETS))

_NOISE = {"mstd": _SPREAD}
_GRAMMAR: Dict[str, Dict[str, _Value]] = {
    "rand": {
        "m": _WHOLE,
        "n": _COUNT,
        "p": _SHARE,
        "mstd": _SPREAD,
        "mmax": _COUNT,
        "inc": _FLAG,
        "t": _OP_SET,
    },
    "augmix": {
        "m": _WHOLE,
        "w": _COUNT,
        "d": _COUNT,
        "a": _ALPHA,
        "b": _FLAG,
        "mstd": _SPREAD,
    },
    "original": _NOISE,
    "originalr": _NOISE,
    "v0": _NOISE,
    "v0r": _NOISE,
    "3a": _NOISE,
    "ta_wide": {},
    "cifar10": {},
}


def parse_policy(text: str) -> Tuple[str, Dict[str, Any]]:
    """Read an `auto_augment` string.

        rand: m magnitude, n operations per image, p probability of each, mstd standard deviation of
            the magnitude (above 100: uniform from 0 to m), mmax its upper end, inc severity grows
            with the magnitude, t set of operations (weights, 3a, 3aw).
        augmix: m, mstd; w chains, d operations per chain, a alpha of the mixing weights, b blended.
        original, originalr, v0, v0r, 3a: mstd.
        ta_wide, cifar10: no keys.

    Returns:
        The policy's name, and the keys that were given with their values.

    Raises:
        UserError: an unknown policy or key, a value that is not allowed, or a key given twice.
    """
    name, *words = text.split("-")
    if name not in _GRAMMAR:
        _refuse(text, f"unknown policy {name[:_SHOWN]!r}", name, list(_GRAMMAR))
    values: Dict[str, Any] = {}
    for word in words:
        key, written = _split_word(name, word)
        if key not in _GRAMMAR[name]:
            _refuse(text, f"unknown key {key[:_SHOWN]!r}", key, list(_GRAMMAR[name]))
        if key in values:
            raise UserError(
                f"auto_augment {text[:_SHOWN]!r}: key {key!r} is given twice; keep one of them"
            )
        values[key] = _read_value(text, key, written)
    return name, values


def _split_word(policy: str, word: str) -> Tuple[str, str]:
    if policy == "rand" and word.startswith("t"):
        return "t", word[1:]
    match = re.match(r"\D*", word)
    key = match.group() if match else ""
    return key, word[len(key) :]


def _read_value(text: str, key: str, written: str) -> Any:
    policy = text.split("-")[0]
    value = _GRAMMAR[policy][key]
    try:
        result = value.read(written)
    except ValueError:
        result = None
    if result is None or not value.accepts(result):
        raise UserError(
            f"auto_augment {text[:_SHOWN]!r}: {key!r} needs {value.allowed}, not "
            f"{written[:_SHOWN]!r}"
        )
    return result


def _refuse(text: str, problem: str, name: str, known: Sequence[str]) -> NoReturn:
    allowed = f"known: {', '.join(known)}" if known else "this policy takes none"
    hint = suggestion(name, known, allowed)
    raise UserError(f"auto_augment {text[:_SHOWN]!r}: {problem} ({hint})")
