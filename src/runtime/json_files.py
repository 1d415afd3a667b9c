"""JSON that others have written: parsed strictly, and checked against types and ranges."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Dict, List, NoReturn, Tuple, Type, TypeVar, Union

from ..errors import on_one_line
from .regular_files import AnyPath, read_regular

T = TypeVar("T")

_MOST_DIGITS = 40


def parse_json(content: Union[str, bytes]) -> Any:
    """Any JSON, without what `json` takes beside it: NaN, infinities and a key given twice.

    Raises:
        ValueError: a reason on one line.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(
            text,
            parse_constant=_refuse,
            parse_int=_parse_int,
            parse_float=_parse_float,
            object_pairs_hook=_without_repeats,
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(path: AnyPath, most_bytes: int) -> Any:
    """`parse_json` of a file.

    Raises:
        ValueError: not JSON; a reason on one line.
        OSError: as of `open_regular`.
    """
    return parse_json(read_regular(path, most_bytes))


def parse_typed(content: bytes, kind: Type[T]) -> T:
    """JSON as a dataclass or another type that msgspec knows; nothing is converted.

    `true` and `1.0` are no int, `"1"` is no number. Ranges are written into the type:
    `Annotated[int, msgspec.Meta(ge=1)]`. Keys that the type does not know are left out.

    Raises:
        ValueError: not JSON or not of the type; says on one line what and where.
    """
    import msgspec

    try:
        return msgspec.convert(parse_json(content), kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def read_typed(path: AnyPath, most_bytes: int, kind: Type[T]) -> T:
    """`parse_typed` of a file.

    Raises:
        ValueError: as of `parse_typed`.
        OSError: as of `open_regular`.
    """
    return parse_typed(read_regular(path, most_bytes), kind)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _parse_int(digits: str) -> int:
    # Longer ones take quadratic time.
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _parse_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(on_one_line(text, _MOST_DIGITS))


def _without_repeats(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found
