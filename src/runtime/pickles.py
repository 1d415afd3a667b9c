"""Pickles of others, read without running any code that is in them, and without believing them.

Each name in a pickle stands for something of this module or of a subclass. The unpickler is the
slow one, in Python: the fast one makes room for whatever index a memo names.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO, Callable, ClassVar, Dict, List, Tuple

import numpy as np

from ..errors import on_one_line

# A training script's checkpoint has some thirty for a tensor and one for a number of its log, an
# archive of CIFAR-100 some 250,000. Each makes an object of up to 250 bytes.
_MOST_OPERATIONS = 1_000_000
_ARRAY_TYPE = re.compile(r"[biufc][0-9]{1,2}")
# Bytes that are made before they are read, and buffers from outside.
_ABSENT = (pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0])


class Stateful:
    """What a pickle may give attributes to."""

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


class PickledArray(Stateful):
    """An array of NumPy, as the pickle has it: `raw` are its bytes."""

    def __init__(self, *_: object) -> None:
        self.shape: Tuple[int, ...] = ()
        self.dtype: object = None
        self.is_fortran = False
        self.raw: object = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.raw = state

    def values(self) -> np.ndarray:
        """The array; not writable, and no copy.

        Raises:
            TypeError: no numbers.
            ValueError: more or fewer than the shape says.
        """
        kind, raw = self.dtype, self.raw
        if not isinstance(kind, PickledType) or kind.order not in ("<", ">", "|", "="):
            raise TypeError("an array without a type")
        code = kind.code.decode("latin1") if isinstance(kind.code, bytes) else str(kind.code)
        if not _ARRAY_TYPE.fullmatch(code):
            raise TypeError("an array of objects")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
        if not isinstance(raw, bytes):
            raise TypeError("an array without numbers")
        found = np.frombuffer(raw, np.dtype(kind.order + code))
        if not self.is_fortran:
            return found.reshape(self.shape)
        return found.reshape(self.shape[::-1]).T


class PickledType(Stateful):
    """A type of NumPy: its code, such as f4, and < or >."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("latin1") if isinstance(order, bytes) else order


class _ArrayClass:
    """`numpy.ndarray`, which is named and never called."""


def _scalar(dtype: object = None, raw: object = b"", *_: object) -> PickledArray:
    found = PickledArray()
    found.dtype, found.raw = dtype, raw
    return found


# What a pickled array consists of, under the names of NumPy 1 and 2.
ARRAY_NAMES: Dict[Tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): PickledType,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Operations:
    """A pickle's bytes. Each operation reads one of its own, so they are counted here."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file, self._bytes, self._operations = file, most_bytes, _MOST_OPERATIONS

    def spend(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise pickle.UnpicklingError("a text longer than all weights")

    def read(self, size: int = -1) -> bytes:
        self._operations -= 1
        if self._operations < 0:
            raise pickle.UnpicklingError(f"more than {_MOST_OPERATIONS:,} objects")
        self.spend(size)
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(2**16)


class InertUnpickler(pickle._Unpickler):
    """Reads plain values and NumPy's arrays; the latter as `PickledArray`.

    Sets become lists; of dicts the items go whose keys are neither text nor numbers.

    Args:
        file: it reads one pickle from where that stands.
        most_bytes: of all texts in it.
        encoding: of texts of Python 2, or "bytes".
    """

    stack: List[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], List[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: BinaryIO, *, most_bytes: int, encoding: str = "latin1") -> None:
        self._operations = _Operations(file, most_bytes)
        super().__init__(self._operations, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for here."""
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        return ARRAY_NAMES.get((module, name)) or self.find_other(module, name)

    def find_other(self, module: str, name: str) -> Any:
        """What any other name stands for. Raises UnpicklingError: it is not admitted."""
        raise pickle.UnpicklingError(f"it asks for {on_one_line(f'{module}.{name}')}")

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Bytes under protocol 2."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it asks for the encoding {on_one_line(encoding)}")
        self._operations.spend(len(text))
        return text.encode("latin1")

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Stateful):
            raise pickle.UnpicklingError("attributes of what has none")
        self.stack[-1].__setstate__(state)

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._put(items[::2], items[1::2])

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key], [value])

    def _put(self, keys: List[Any], values: List[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise pickle.UnpicklingError("items of what has none")
        # A deep tuple cannot be hashed: the stack of C would not suffice.
        plain = (str, int, float, bytes, type(None))
        target.update({k: v for k, v in zip(keys, values) if isinstance(k, plain)})

    def _add_items(self) -> None:
        self.pop_mark()

    def _make_frozen(self) -> None:
        self.append(self.pop_mark())

    def _make_set(self) -> None:
        self.append([])

    def _pass_frame(self) -> None:
        self.read(8)

    dispatch: ClassVar[Dict[int, Any]] = {
        **{code: do for code, do in pickle._Unpickler.dispatch.items() if code not in _ABSENT},
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.EMPTY_SET[0]: _make_set,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _make_frozen,
        pickle.FRAME[0]: _pass_frame,
    }
