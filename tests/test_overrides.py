"""What is built in the place of a class, and what is not."""

from __future__ import annotations

from typing import Iterator

import pytest

from src.overrides import Overridable, is_override, set_overrides, without_overrides


class Base:
    def __init__(self, value: int, *, factor: int = 1) -> None:
        self.value = value * factor


class Standard(Overridable, Base):
    pass


class Other(Standard):
    def __init__(self, value: int, *, factor: int = 1) -> None:
        super().__init__(value + 1, factor=factor)


class Derived(Standard):
    pass


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with without_overrides():
        yield


def test_a_class_in_the_table_takes_the_arguments_of_the_standard_one() -> None:
    assert type(Standard(3)) is Standard
    set_overrides({Standard: Other})
    built = Standard(3, factor=2)
    assert type(built) is Other
    assert isinstance(built, Standard)
    assert built.value == 8
    assert is_override(built)
    assert not is_override(Base(3))


def test_subclasses_are_not_overridden_with_their_base() -> None:
    set_overrides({Standard: Other})
    assert type(Derived(3)) is Derived
    assert type(Other(3)) is Other


def test_a_block_without_overrides_puts_them_back() -> None:
    set_overrides({Standard: Other})
    with without_overrides():
        assert type(Standard(3)) is Standard
    assert type(Standard(3)) is Other


@pytest.mark.parametrize("table", [{Standard: Base}, {Base: Standard}, {Standard: int}])
def test_what_is_no_subclass_is_refused(table: dict) -> None:
    with pytest.raises(ValueError, match="cannot take the place of"):
        set_overrides(table)
