"""Messages about a wrong value: one line that says where it stands, what it is and what may be."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

from ..errors import UserError
from .plain_values import to_flow

COMMAND_LINE = "command line"
DEFAULT = "default"

MAX_SHOWN_CHARS = 60


class Entry(NamedTuple):
    """A value and where it came from: `FILE:LINE`, `command line`, ..."""

    value: Any
    origin: str
    # The user's own spelling of a scalar, for messages: 1e400, where the value is inf.
    written: Optional[str] = None

    def shown(self) -> str:
        """The value as the user wrote it, on one line, cut when very long."""
        return show(self.value) if not self.written else cut(one_line(self.written))


class FieldError(UserError):
    """A value of the wrong type or out of range.

    A section does not know where its values came from: `build` adds the place.

    Attributes:
        keys: the fields that took part in the check; `value` is that of the first.
        allowed: what would be accepted.
    """

    def __init__(self, keys: Sequence[str], value: Any, allowed: str) -> None:
        super().__init__(f"{keys[0]}: {refusal(show(value), allowed)}")
        self.keys = tuple(keys)
        self.value = value
        self.allowed = allowed


class LineError(Exception):
    """A problem at a line (from 1) of a text whose name the raiser does not know."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def one_line(text: str) -> str:
    """`text` with line breaks and whatever else does not print replaced by Python escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(value: Any) -> str:
    """`value` as the user would write it, on one line, cut when very long."""
    return cut(one_line(to_flow(value)))


def cut(text: str) -> str:
    """The start of a long text, as much as a message has room for."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def refusal(shown: str, allowed: str) -> str:
    """What a message says of a value that is not allowed."""
    return f"{shown} is not allowed; allowed: {allowed}"


def user_error(place: str, problem: str) -> UserError:
    """An error of one line that starts with the place."""
    return UserError(one_line(f"{place}: {problem}"))


def at(origin: str, key: str) -> str:
    """The place of a key's value: `FILE:LINE: KEY`, or `command line: --KEY`."""
    return f"{origin}: --{key}" if origin == COMMAND_LINE else f"{origin}: {key}"
