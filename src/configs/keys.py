"""How a configuration declares a key: one call beside the field says all there is to say of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Mapping,
    NamedTuple,
    Optional,
    Type,
    TypeVar,
    Union,
)

T = TypeVar("T")

_KEY = "key"


class Key(NamedTuple):
    """What is declared of a key, beside its name, its type and its default."""

    # in words, with the unit
    meaning: str
    # what values such as null or 0 stand for: `0: off`
    special: Optional[str]
    # interval of each number: `>= 1`, `> 0`, `[0, 1)`
    range: Optional[str]
    # of two numbers: `low < high` or `low <= high`
    order: Optional[str]
    # allowed value -> what it stands for, maybe nothing
    choices: Mapping[Any, str]
    # another spelling of the option, such as `-b`
    also: Optional[str]
    # a list, each item of which has `range`
    is_list: bool
    # changes where or how long a run works, but nothing that it computes
    free: bool
    # names a file or folder to read, which may be a URL
    input_url: bool
    # names a folder to write, which may be a URL
    output_url: bool
    # belongs to the network, as the architecture does
    network: bool
    # belongs to the transform that prepares an image for evaluation
    transform: bool

    def text(self) -> str:
        """The meaning, then what is allowed: what help and documentation say of the key."""
        parts = [self.meaning]
        if self.input_url or self.output_url:
            parts.append("may be a URL")
        if self.choices:
            parts.append(_listed(self.choices))
        if self.range:
            parts.append(f"each {self.range}" if self.is_list else self.range)
        parts += [part for part in (self.order, self.special) if part]
        return "; ".join(parts)


def key(
    default: T,
    meaning: str,
    *,
    special: Optional[str] = None,
    range: Optional[str] = None,
    order: Optional[str] = None,
    choices: Union[Collection[str], Mapping[Any, str]] = (),
    also: Optional[str] = None,
    free: bool = False,
    input_url: bool = False,
    output_url: bool = False,
    network: bool = False,
    transform: bool = False,
) -> T:
    """A field of a `checks.Section`, which checks what is declared here.

    Args:
        meaning: help and documentation add to it what the other arguments say.

    The other arguments are those of `Key`.
    """
    declared = Key(
        meaning=meaning,
        special=special,
        range=range,
        order=order,
        choices=choices if isinstance(choices, Mapping) else dict.fromkeys(choices, ""),
        also=also,
        is_list=isinstance(default, tuple) or order is not None,
        free=free,
        input_url=input_url,
        output_url=output_url,
        network=network,
        transform=transform,
    )
    given: Dict[str, Any] = {"default": default}
    if isinstance(default, dict):
        given = {"default_factory": default.copy}
    field: T = dataclasses.field(**given, metadata={_KEY: declared})
    return field


def _section_keys(section_type: Type[Any]) -> Dict[str, Key]:
    """Name -> declaration of every key of a section.

    Raises:
        TypeError: a field that `key` did not make.
    """
    fields = dataclasses.fields(section_type)
    for field in fields:
        if _KEY not in field.metadata:
            raise TypeError(f"{section_type.__name__}.{field.name}: not declared by key()")
    return {field.name: field.metadata[_KEY] for field in fields}


section_keys: Callable[[Any], Dict[str, Key]] = functools.cache(_section_keys)


def _listed(choices: Mapping[Any, str]) -> str:
    """`a, b (what b stands for) or c`."""
    words = [f"{choice} ({note})" if note else str(choice) for choice, note in choices.items()]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
