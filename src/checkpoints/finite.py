"""Weights that are no numbers: found where a file is read, before anything is computed by them."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Tuple

import numpy as np

from ..errors import UserError

_REMEDY = (
    "give an earlier checkpoint of that run (epoch_*.ckpt, kept with --save_every N), or copy the "
    "file again if it was whole where it comes from"
)


def check_finite(tensors: Iterable[Tuple[str, np.ndarray]], path: Path, *, kind: str) -> None:
    """Refuses weights with an infinity or NaN in them.

    Args:
        tensors: names and values; integers pass.
        path: of their file.
        kind: what the file is called in messages, `checkpoint` or `input`.

    Raises:
        UserError: naming the first number that is not finite, its place, and how many there are.
    """
    first, count, spoilt = "", 0, 0
    for name, array in tensors:
        if not np.issubdtype(array.dtype, np.floating):
            continue
        is_broken = ~np.isfinite(array)
        if not is_broken.any():
            continue
        if not first:
            place = np.unravel_index(int(is_broken.argmax()), array.shape)
            index = f"[{', '.join(str(i) for i in place)}]" if place else ""
            first = f"{name}{index} is {array[place]}"
        count, spoilt = count + int(is_broken.sum()), spoilt + 1
    if first:
        raise UserError(
            f"{kind} {str(path)!r}: {first}; of its weights {count:,} in {spoilt} tensor(s) are "
            f"not finite numbers, and no answer of theirs means anything; {_REMEDY}"
        )
