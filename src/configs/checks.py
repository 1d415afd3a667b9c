"""Checks of the values of a section against what its fields declare."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, Union, get_args, get_origin, get_type_hints

from ..errors import suggestion
from .keys import Key, section_keys
from .messages import FieldError

_TYPE_NAMES: Dict[Any, str] = {
    str: "a non-empty string on one line (in quotes if it looks like a number, true or null)",
    int: "an integer such as 16",
    float: "a number such as 0.5 or 1e-4",
    bool: "true or false",
}


class _WrongType(Exception):
    """A value does not fit an annotation."""


# Evaluating the annotations' text costs a millisecond, and each value asks for them.
type_hints: Callable[[Any], Dict[str, Any]] = functools.cache(get_type_hints)


@dataclass(frozen=True)
class Section:
    """A section of a configuration: its fields are made by `key`, and checked against that.

    A section that overrides `__post_init__` to tie several keys together calls this one first.
    """

    def check_training(self) -> None:
        """Ties keys together as training needs it, and nothing else does.

        Raises:
            FieldError: keys that do not go together.
        """

    def __post_init__(self) -> None:
        """Gives each field its annotated type, then checks what is declared of it.

        Raises:
            FieldError: a value of another type, a number that is not finite, an empty string, or
                what is out of range or none of the choices. null passes where it is a default.
        """
        for name, annotation in type_hints(type(self)).items():
            object.__setattr__(self, name, _typed_field(name, getattr(self, name), annotation))
        for name, declared in section_keys(type(self)).items():
            value = getattr(self, name)
            if value is not None:
                _check_range(name, value, declared)
                _check_choice(name, value, declared.choices)


def _typed_field(name: str, value: Any, annotation: Any) -> Any:
    """An int becomes a float where a float is due, a list a tuple; nothing else is converted."""
    try:
        return _typed(value, annotation)
    except _WrongType as error:
        raise FieldError([name], value, str(error) or _describe(annotation)) from None


def _typed(value: Any, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return None if value is None else _typed(value, arguments[0])
    if origin is dict:
        return _typed_mapping(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) != len(arguments):
            raise _WrongType
        return tuple(_typed(item, argument) for item, argument in zip(value, arguments))
    # type() and not isinstance(): true is no 1, and NumberLike no string.
    if annotation is bool and type(value) is bool:
        return value
    # 64 bits, as everything that takes these numbers further has.
    if annotation is int and type(value) is int and abs(value) < 2**63:
        return value
    if annotation is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if annotation is str and type(value) is str and value and not _has_control(value):
        return value
    raise _WrongType


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _typed_mapping(value: Any) -> Dict[str, Any]:
    """A copy of a mapping of plain values; tuples become lists, as YAML has them."""
    if not isinstance(value, dict):
        raise _WrongType
    return {_typed(key, str): _plain_item(str(key), item) for key, item in value.items()}


def _plain_item(key: str, item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return [_plain_scalar(key, element) for element in item]
    return _plain_scalar(key, item)


def _plain_scalar(key: str, item: Any) -> Any:
    is_finite = type(item) in (int, float) and abs(item) <= sys.float_info.max
    if item is None or type(item) in (bool, str) or is_finite:
        return item
    raise _WrongType(f"for '{key}' a string, number, true, false, null, or a list of them")


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return f"{_describe(arguments[0])}, or null"
    if origin is tuple:
        return f"a list of {'' if arguments[-1] is Ellipsis else f'{len(arguments)} '}numbers"
    return "a mapping of names to plain values" if origin is dict else _TYPE_NAMES[annotation]


def _check_range(name: str, value: Any, declared: Key) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    interval = declared.range
    if interval and not all(_is_within(number, interval) for number in numbers):
        raise FieldError([name], value, f"each {interval}" if len(numbers) > 1 else interval)
    if declared.order:
        low, high = numbers
        if low > high or (low == high and declared.order == "low < high"):
            raise FieldError([name], value, declared.order)


def _is_within(number: float, interval: str) -> bool:
    if interval.startswith(">"):
        sign, bound = interval.split()
        return number >= float(bound) if sign == ">=" else number > float(bound)
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below


def _check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    if choices and value not in choices:
        shown = [str(choice) for choice in choices]
        meant = suggestion(str(value), shown)
        raise FieldError([name], value, "; ".join(filter(None, [", ".join(shown), meant])))
