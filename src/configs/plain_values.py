"""What a word of YAML means as a plain Python value, and a plain value as YAML on one line."""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

import yaml

# Longer digits are no number: int() refuses thousands of them, and so does every field.
MAX_NUMBER_CHARS = 300

_NULLS = frozenset(["~", "null", "Null", "NULL", ""])
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_SAFE_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")


class NumberLike(str):
    """Plain text that YAML 1.1 reads as a number and a person may not: 0123, 1_000, 12:30, .inf.

    Neither a string nor a number: every field refuses it.
    """


_resolver = functools.cache(yaml.resolver.Resolver)


def plain_value(text: str) -> Any:
    """What unquoted text means: null, bool, int, float, NumberLike or str.

    Booleans are YAML 1.1's (yes, no, on, off too). Numbers are decimal, and `1e-4` is one.
    """
    if text in _NULLS:
        return None
    tag = _resolver().resolve(yaml.ScalarNode, text, (True, False)).rsplit(":", 1)[-1]
    if tag == "bool":
        return text.lower() in ("yes", "true", "on")
    if len(text) <= MAX_NUMBER_CHARS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    if tag in ("int", "float") or _LEADING_ZERO.fullmatch(text):
        return NumberLike(text)
    return text


def to_flow(value: Any) -> str:
    """A plain value as YAML on one line, read alike by this module and by PyYAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # Without the point PyYAML reads 1e-08 as a string.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(to_flow(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{to_flow(k)}: {to_flow(v)}' for k, v in value.items())}}}"
    return _string_to_flow(value) if isinstance(value, str) else str(value)


def _string_to_flow(text: str) -> str:
    is_plain = _SAFE_PLAIN.fullmatch(text) and type(plain_value(text)) is str
    if is_plain or isinstance(text, NumberLike):
        return str(text)
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize)
    return quoted.rstrip("\n")
