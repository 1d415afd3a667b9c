r"""Text that leaves the program: names of files and classes are other people's.

File names are bytes. Those that are not UTF-8 (archives from Windows) come as lone surrogates, and
a screen may be ASCII. Such characters are written as escapes, `\udcb9`, `\xe9`, `\u72d7`: no reason
to lose what was computed. So are characters that a terminal obeys, or that turn the direction of
what stands around them (Unicode TR 36, section 3), and no cell of a table is one that a spreadsheet
computes (CWE-1236).
"""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from typing import Any, Iterable, TextIO

from ..errors import UserError
from .plain_numbers import decimal_number

# The `errors=` of files of text.
ESCAPES = "backslashreplace"

# Controls (Cc), separators of lines and paragraphs, and what sets the direction of text; without
# tab, line feed and carriage return.
_OBEYED = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_UNPRINTABLE = re.compile(rf"[\t\n\r{_OBEYED}]")
_OFF_SCREEN = re.compile(rf"[{_OBEYED}]|(?!\A)\r(?!\n)")
# OWASP, "CSV Injection": these and their full-width forms.
_SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20"
_NEEDS_MARK = re.compile(rf"['{_SIGNS}]")
# A semicolon ends a cell where the comma is the decimal point.
_SECOND_CELL = re.compile(rf";(?=[\"' ]*[{_SIGNS}])")
_ESCAPE = re.compile(r"\\(\\|u[0-9a-f]{4})")


def printable(text: str) -> str:
    """On one line, with escapes (as JSON's) for what is no character to look at."""
    return _UNPRINTABLE.sub(_escaped, text)


def on_screen(text: str) -> str:
    """`printable` but for line ends, tabs, and the return that begins a progress bar."""
    return _OFF_SCREEN.sub(_escaped, text)


def to_cell(name: str) -> str:
    """A name as a cell of a CSV file: no formula, nothing for a terminal. Numbers stay numbers."""
    try:
        decimal_number(name)
        return name
    except ValueError:
        text = _SECOND_CELL.sub(_escaped, printable(name.replace("\\", r"\\")))
        return f"'{text}" if _NEEDS_MARK.match(text) else text


def from_cell(cell: str) -> str:
    """The name that `to_cell` was given."""
    return _ESCAPE.sub(_unescaped, cell[1:] if cell.startswith("'") else cell)


def _escaped(match: re.Match) -> str:
    return f"\\u{ord(match.group()):04x}"


def _unescaped(match: re.Match) -> str:
    found = match.group(1)
    return found if found == "\\" else chr(int(found[1:], 16))


class OneLine(logging.Formatter):
    """Of log lines: each record is one, whatever is in the names that it tells."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def to_utf8(text: str) -> bytes:
    """UTF-8; in JSON the escapes are those of JSON, which read back the name itself."""
    return text.encode("utf-8", ESCAPES)


def without_surrogates(text: str) -> str:
    """What libraries that take Unicode only can be given."""
    return to_utf8(text).decode("utf-8")


def check_utf8(key: str, path: Path) -> None:
    """Refuses a path that the framework's C++ part does not take.

    Raises:
        UserError: it is not UTF-8.
    """
    shown = without_surrogates(str(path))
    if shown != str(path):
        raise UserError(
            f"{key} '{shown}': its name is not UTF-8, which MindSpore needs; rename it, or choose "
            "another place"
        )


class _Screen:
    """A standard stream that a terminal shows, and does not obey."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(on_screen(text))

    def writelines(self, lines: Iterable[str]) -> None:
        self._stream.writelines(map(on_screen, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def escape_on_screen() -> None:
    """From now on the screen shows what it cannot encode, or would obey, as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)
            setattr(sys, name, _Screen(stream))
