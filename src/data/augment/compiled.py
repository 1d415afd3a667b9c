"""How the inner loops of the input pipeline are compiled."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any, Callable, Tuple

import numba
from numba.core.caching import FunctionCache


@functools.cache
def _sources() -> Tuple[Tuple[str, int, int], ...]:
    """Names, times and sizes of the files beside this one."""
    found = ((path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py")))
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


class _Cache(FunctionCache):
    """Numba's, with which damaged files and full disks do not end a run."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # What is compiled holds the functions that it calls, of other files too.
        self._cache_file._source_stamp = _sources()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever the unpickling of half a file raises
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # it reads the index, and adds to it
            with contextlib.suppress(OSError):
                self.flush()


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`numba.njit` that releases the interpreter's lock; kept from run to run where that can be."""
    dispatcher = numba.njit(nogil=True, **options)(function)
    # What `cache=True` does, which raises RuntimeError where no folder can be written.
    with contextlib.suppress(RuntimeError, OSError):
        dispatcher._cache = _Cache(function)
    return dispatcher
