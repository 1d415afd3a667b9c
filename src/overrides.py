"""Other implementations of a class, chosen when it is constructed.

A class that derives from `Overridable` does not know them: a table names a subclass that is built
in its place, with the same arguments and parameters. `src/kernels` fills it for CPUs.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, Mapping

_TABLE: Dict[type, type] = {}


class Overridable:
    """To be named before the class that is extended: `class Gelu(Overridable, nn.GELU)`.

    A subclass is overridden by an entry of its own, not by that of its base.
    """

    def __new__(cls, *_args: Any, **_keywords: Any) -> Any:
        return super().__new__(_TABLE.get(cls, cls))


def set_overrides(table: Mapping[type, type]) -> None:
    """What is built from now on: class -> the subclass of it that takes its place.

    Raises:
        ValueError: no such subclass.
    """
    for standard, other in table.items():
        if not (issubclass(standard, Overridable) and issubclass(other, standard)):
            raise ValueError(f"{other.__name__} cannot take the place of {standard.__name__}")
    _TABLE.clear()
    _TABLE.update(table)


def is_override(instance: object) -> bool:
    """Whether it was built in the place of what its maker named."""
    return type(instance) in _TABLE.values()


@contextlib.contextmanager
def without_overrides() -> Iterator[None]:
    """What is built inside the block is what its name says, as mixed precision and export need."""
    before = dict(_TABLE)
    _TABLE.clear()
    try:
        yield
    finally:
        set_overrides(before)
