"""Which form the hot cells take: decided once, read whenever one of them is built.

`off`: MindSpore's standard cells, for Ascend, GPU and every export. `pure`: MindSpore operators in
another arrangement that a CPU computes faster. `native`: C++ kernels of this package, for CPUs.
Parameters, their names and checkpoints are the same in all forms.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, Iterator, Optional

OFF, PURE, NATIVE = "off", "pure", "native"

_STATE: Dict[str, object] = {"form": OFF, "library": None}


def select(form: str, library: Optional[Path] = None) -> None:
    """Sets the form of all cells built from now on.

    Args:
        library: the compiled kernels; for `native` only.

    Raises:
        ValueError: an unknown form, or `native` without a library.
    """
    if form not in (OFF, PURE, NATIVE):
        raise ValueError(f"form {form!r}: expected 'off', 'pure' or 'native'")
    if form == NATIVE and library is None:
        raise ValueError("form 'native': needs the library of src/kernels/build.py")
    _STATE.update(form=form, library=library)


def selected() -> str:
    """The form of cells built now."""
    return str(_STATE["form"])


def is_native() -> bool:
    """Whether cells built now run on the kernels of this package."""
    return selected() == NATIVE


def is_fast() -> bool:
    """Whether cells built now take any other than the standard form."""
    return selected() != OFF


def library() -> Path:
    """The compiled kernels of form `native`."""
    path = _STATE["library"]
    assert isinstance(path, Path)
    return path


@contextlib.contextmanager
def using(form: str, library: Optional[Path] = None) -> Iterator[None]:
    """Cells built inside the block take `form`: `using(OFF)` around what is to be exported."""
    before = dict(_STATE)
    select(form, library)
    try:
        yield
    finally:
        _STATE.update(before)
