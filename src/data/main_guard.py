"""Whether process workers can be started from the script that runs."""

from __future__ import annotations

import ast
import sys
import threading
from types import FrameType
from typing import Optional

from ..errors import UserError
from ..runtime.regular_files import CODE_BYTES, read_regular


def require_main_guard() -> None:
    """Refuses to start processes from a script that would then start itself again in each.

    A spawned process imports the main script before it works. What stands there outside of
    `if __name__ == "__main__":` runs once more, as docs.python.org says of `multiprocessing`.

    Raises:
        UserError: the script's own line that led here is not under such an `if`.
    """
    frame = _frame_of_the_script()
    if frame is None:
        return
    path, line = frame.f_code.co_filename, frame.f_lineno
    try:
        tree = ast.parse(read_regular(path, CODE_BYTES))
    except (OSError, SyntaxError, ValueError):  # no file that a process could import either
        return
    if not _is_guarded(tree, line):
        raise UserError(
            f"python_multiprocessing: {path}, line {line}, would run again in every process; put "
            'what it does under `if __name__ == "__main__":`, or leave the key out for threads'
        )


def _frame_of_the_script() -> Optional[FrameType]:
    """Of the main thread, where it is in the top level of the script that Python was given."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    main = sys.modules["__main__"].__dict__
    while frame is not None:
        if frame.f_globals is main and frame.f_code.co_name == "<module>":
            return frame
        frame = frame.f_back
    return None


def _is_guarded(tree: ast.Module, line: int) -> bool:
    """Whether that line is within an `if` that asks for `__name__`."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    names = [name for node in around for name in ast.walk(node.test)]
    return any(isinstance(name, ast.Name) and name.id == "__name__" for name in names)
