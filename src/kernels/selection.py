"""Which form the hot cells take: decided once, read whenever one of them is built.

`off`: MindSpore's standard cells, for Ascend, GPU and every export. `pure`: MindSpore operators in
another arrangement that a CPU computes faster. `native`: C++ kernels of this package, for CPUs.
Parameters, their names and checkpoints are the same in all forms.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from ..overrides import set_overrides

OFF, PURE, NATIVE = "off", "pure", "native"

_STATE: Dict[str, Any] = {"form": OFF, "library": None}


def select(form: str, library: Optional[Path] = None) -> None:
    """Sets the form of all cells built from now on.

    Args:
        library: the compiled kernels; for `native` only.

    Raises:
        ValueError: an unknown form, or `native` without a library.
    """
    if form not in (OFF, PURE, NATIVE):
        raise ValueError(f"form {form!r}: expected 'off', 'pure' or 'native'")
    # Imported here: they import every model.
    if form == NATIVE:
        if library is None:
            raise ValueError("form 'native': needs the library of src/kernels/build.py")
        from . import conv_mixer, operators, training  # noqa: F401  they enter their cells
        from .cells import OVERRIDES

        operators.use(library)
        set_overrides(OVERRIDES)
    elif form == PURE:
        from . import pure

        set_overrides(pure.OVERRIDES)
    else:
        set_overrides({})
    _STATE.update(form=form, library=library)


def selected() -> str:
    """The form of cells built now."""
    return str(_STATE["form"])


def library() -> Optional[Path]:
    """The compiled kernels of form `native`; None: another form."""
    found: Optional[Path] = _STATE["library"]
    return found


@contextlib.contextmanager
def using(form: str, library: Optional[Path] = None) -> Iterator[None]:
    """Cells built inside the block take `form`; those built after it what they took before."""
    before = dict(_STATE)
    select(form, library)
    try:
        yield
    finally:
        select(**before)
