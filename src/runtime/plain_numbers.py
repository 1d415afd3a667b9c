"""Numbers in text that others have written, in the form that JSON gives them (RFC 8259, section 6).

`int` and `float` take more: blanks, underscores, digits of other scripts, `nan`, and fail at
thousands of digits.
"""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[-+]?[0-9]{1,3})?", re.IGNORECASE)
_MOST_CHARS = 400


def whole_number(text: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """ASCII digits without leading zeros, maybe behind a minus.

    Raises:
        ValueError: anything else, or out of range; `expected a whole number, 0 to 9`.
    """
    number = int(text) if _WHOLE.fullmatch(text) else least - 1
    if not least <= number <= most:
        raise ValueError(f"expected a whole number, {least} to {most}")
    return number


def decimal_number(text: str) -> float:
    """Such as `-3`, `0.25` or `1e-4`.

    Raises:
        ValueError: anything else, or what float64 does not hold.
    """
    is_one = len(text) <= _MOST_CHARS and _DECIMAL.fullmatch(text)
    number = float(text) if is_one else math.inf
    if not math.isfinite(number):
        raise ValueError("expected a number")
    return number
