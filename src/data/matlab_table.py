"""Tables in files of MATLAB 5 (.mat), as "MAT-File Format" of MathWorks describes them.

scipy reads such files too, but believes them: what a damaged one claims ends in a segmentation
fault. Here every size is compared with what is left before anything is taken.
"""

from __future__ import annotations

import struct
import zlib
from typing import Dict, Iterator, List, NamedTuple, Sequence, Union

import numpy as np

Value = Union[str, float]
Row = Dict[str, Value]

_HEADER_BYTES = 128
_COMPRESSED, _MATRIX, _UTF8, _UTF16 = 15, 14, 16, 17
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS[13] = "u8"
_STRUCTURE, _TEXT, _FIRST_NUMERIC, _LAST_NUMERIC = 2, 4, 6, 15
_LONGEST_FIELD = 64


class _Element(NamedTuple):
    kind: int
    data: bytes


class _Elements:
    """The elements in some bytes, one after the other."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data, self._position, self.order = data, 0, order

    def __iter__(self) -> Iterator[_Element]:
        while self._position < len(self._data):
            yield self.take()

    def take(self) -> _Element:
        """The next one; raises ValueError: there is none, or it is cut."""
        start = self._position
        if start + 8 > len(self._data):
            raise ValueError("it ends too early")
        kind, size = struct.unpack_from(f"{self.order}II", self._data, start)
        if kind >> 16:  # four bytes or fewer share their tag
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        else:
            padding = 0 if kind == _COMPRESSED else -size % 8
            begin, end = start + 8, start + 8 + size + padding
        if begin + size > min(end, len(self._data)):
            raise ValueError("it ends too early")
        self._position = end
        return _Element(kind, self._data[begin : begin + size])

    def within(self) -> _Elements:
        """What the next one, an array, holds."""
        kind, data = self.take()
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in place of an array")
        return _Elements(data, self.order)

    def numbers(self) -> np.ndarray:
        """The next one as an array, however it is stored."""
        kind, data = self.take()
        if kind not in _NUMBERS:
            raise ValueError(f"an element of type {kind} in place of numbers")
        return np.frombuffer(data, f"{self.order}{_NUMBERS[kind]}")

    def text(self) -> str:
        """The next one as characters."""
        kind, data = self.take()
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        return data.decode({_UTF8: "utf-8", _UTF16: wide, 4: wide}.get(kind, "latin-1"))


def read_table(data: bytes, name: str, fields: Sequence[str], most_bytes: int) -> List[Row]:
    """The rows of the array of structures called `name`, with these fields of each.

    Args:
        data: the file.
        most_bytes: that its compressed parts may unpack to.

    Raises:
        ValueError: no such table, damaged, or a field that is neither one number nor a text; a
            reason on one line.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it is no file of MATLAB 5")
    for element in _Elements(data[_HEADER_BYTES:], order):
        if element.kind == _COMPRESSED:
            element = next(iter(_Elements(_inflate(element.data, most_bytes), order)))
        if element.kind == _MATRIX:
            content = _Elements(element.data, order)
            kind, dims = _head(content)
            if content.text() == name and kind == _STRUCTURE:
                return _rows(content, dims, fields)
    raise ValueError(f"it holds no table `{name}`")


def _inflate(data: bytes, most_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise ValueError(error) from error
    if len(found) > most_bytes:
        raise ValueError(f"it unpacks to more than {most_bytes:,} bytes")
    if not unpacker.eof:
        raise ValueError("it ends too early")
    return found


def _head(content: _Elements) -> tuple[int, np.ndarray]:
    """Class and dimensions of an array."""
    flags, dims = content.numbers(), content.numbers()
    if not len(flags) or not len(dims) or dims.min() < 0:
        raise ValueError("an array without class or dimensions")
    return int(flags[0]) & 0xFF, dims


def _rows(content: _Elements, dims: np.ndarray, fields: Sequence[str]) -> List[Row]:
    length = content.numbers()
    if len(length) != 1 or not 0 < length[0] <= _LONGEST_FIELD:
        raise ValueError("names of fields without a length")
    joined, width = content.text(), int(length[0])
    names = [joined[i : i + width].partition("\0")[0] for i in range(0, len(joined), width)]
    if missing := sorted({*fields} - {*names}):
        raise ValueError(f"its table has no field {missing[0]}")
    rows: List[Row] = []
    # Each field takes 8 bytes or more, so a wrong number of rows ends with the data.
    for _ in range(int(np.prod(dims, dtype=float))):
        row: Row = {}
        for name in names:
            value = content.within()
            if name in fields:
                row[name] = _value(value)
        rows.append(row)
    return rows


def _value(content: _Elements) -> Value:
    kind, _ = _head(content)
    content.take()  # a name, which fields do not have
    if kind == _TEXT:
        return content.text()
    numbers = content.numbers() if _FIRST_NUMERIC <= kind <= _LAST_NUMERIC else np.empty(0)
    if len(numbers) != 1:
        raise ValueError("a field that is neither one number nor a text")
    return float(numbers[0])
