r"""Text with characters that an encoding does not have: no reason to lose what was computed.

File names are bytes. Those that are not UTF-8 (archives from Windows) come as lone surrogates, and
a screen may be ASCII. Such characters are written as escapes: `\udcb9`, `\xe9`, `\u72d7`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from ..errors import UserError

# The `errors=` of files of text.
ESCAPES = "backslashreplace"


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


def escape_on_screen() -> None:
    """From now on the screen shows what it cannot encode as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)
