"""The files of `torch.save`: a zip of a pickle and storages; before torch 1.6 one after the other.

Nothing but the pickle is read until a tensor is asked for, and then its storage alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Protocol, Tuple

import numpy as np

from ..errors import UserError, on_one_line, some_of
from ..runtime.pickles import PickledArray
from ..runtime.regular_files import WEIGHTS_BYTES, open_regular
from ..runtime.zip_files import open_zip, place_of
from .torch_pickles import (
    RefusedObject,
    Storage,
    StoredTensor,
    WeightsUnpickler,
)

_LOGGER = logging.getLogger(__name__)

# What files begin with: a zip; the pickled magic number.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\x0a"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Types by torch's names; bfloat16 comes as its bits.
_TYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
    "complex64": "c8",
    "complex128": "c16",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
}
# A tensor may repeat numbers of its storage (`expand`), where they are few.
_REPEATED = 2**20
_DIMS = 32


class _TorchScriptFile(ValueError):
    """A network of TorchScript."""


class _Storages(Protocol):
    """The two kinds of files. `order` of bytes: < or >."""

    payload: Any
    order: str

    def read(self, storage: Storage, itemsize: int) -> bytes:
        """All bytes of a storage. Raises ValueError: they are not in the file."""


class TorchFile:
    """What a file of `torch.save` holds.

    Attributes:
        payload: dicts, lists, numbers; tensors are `StoredTensor` or `PickledArray`.
    """

    def __init__(self, storages: _Storages) -> None:
        self._storages = storages
        self._last: Tuple[str, bytes] = ("", b"")
        self.payload = storages.payload

    def values(self, tensor: Any) -> Tuple[str, np.ndarray]:
        """Type and numbers; bfloat16 comes as the uint16 of its bits.

        Raises:
            TypeError: it is neither a tensor nor an array.
            ValueError: it leads out of its storage.
        """
        if isinstance(tensor, PickledArray):
            numbers = tensor.values()
            return numbers.dtype.name, numbers
        if not isinstance(tensor, StoredTensor) or tensor.dtype not in _TYPES:
            raise TypeError(f"{type(tensor).__name__} {getattr(tensor, 'dtype', '')}")
        dtype = np.dtype(self._storages.order + _TYPES[tensor.dtype])
        if tensor.storage.dtype not in (tensor.dtype, "bytes"):
            raise ValueError("a tensor of another type than its storage")
        count, last = _extent(tensor)
        # A storage without a type counts bytes.
        unit = 1 if tensor.storage.dtype == "bytes" else dtype.itemsize
        if count and (last + 1) * dtype.itemsize > tensor.storage.numel * unit:
            raise ValueError("a tensor that leads out of its storage")
        if count > max(tensor.storage.numel, _REPEATED):
            raise ValueError("a tensor that repeats its numbers")
        content = self._content(tensor.storage, unit)[tensor.storage.start * unit :]
        numbers = np.frombuffer(content, np.uint8)[tensor.offset * dtype.itemsize :]
        if not count:
            return tensor.dtype, np.empty(tensor.shape, dtype)
        numbers = numbers[: len(numbers) // dtype.itemsize * dtype.itemsize].view(dtype)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        return tensor.dtype, np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides)

    def _content(self, storage: Storage, itemsize: int) -> bytes:
        # Many tensors may be parts of one.
        if self._last[0] != storage.key:
            self._last = storage.key, self._storages.read(storage, itemsize)
        return self._last[1]


def _extent(tensor: StoredTensor) -> Tuple[int, int]:
    """How many numbers a tensor has, and the place of its last one in the storage."""
    if len(tensor.shape) > _DIMS:
        raise ValueError(f"a tensor of {len(tensor.shape)} dimensions")
    steps = ((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides))
    return math.prod(tensor.shape), tensor.offset + sum(steps)


def num_elements(tensor: Any) -> int:
    """Of what `TorchFile.values` reads; other objects have none."""
    shape = tensor.shape if isinstance(tensor, (StoredTensor, PickledArray)) else (0,)
    return math.prod(side for side in shape if isinstance(side, int))


class _ZippedStorages:
    """A zip: `NAME/data.pkl`, and a record `NAME/data/KEY` for each storage."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file, self._most_bytes = file, most_bytes
        self._records = {member.filename: member for member in open_zip(file).infolist()}
        roots = [n[: -len("data.pkl")] for n in self._records if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("no data.pkl; unpack an archive around weights first")
        self._root = roots[0]
        if f"{self._root}constants.pkl" in self._records:
            raise _TorchScriptFile("a network of TorchScript")
        # torch can be told to write no checksums; then those of small records do not fit either.
        version = self._record("version")
        self._has_sums = zlib.crc32(self._bytes_of(version, 100)) == version.CRC
        self.order = "<"
        if f"{self._root}byteorder" in self._records:
            self.order = ">" if self._content("byteorder") == b"big" else "<"
        self.payload = _unpickle(io.BytesIO(self._content("data.pkl")), most_bytes)

    def read(self, storage: Storage, itemsize: int) -> bytes:
        """See `_Storages`."""
        name = f"data/{storage.key}"
        held, due = self._record(name).file_size, storage.whole * itemsize
        if held != due:
            raise ValueError(f"{name} has {held:,} bytes where {due:,} are due")
        return self._content(name)

    def _record(self, name: str) -> zipfile.ZipInfo:
        if f"{self._root}{name}" not in self._records:
            raise ValueError(f"no {on_one_line(name)}")
        return self._records[f"{self._root}{name}"]

    def _content(self, name: str) -> bytes:
        record = self._record(name)
        content = self._bytes_of(record, self._most_bytes)
        if self._has_sums and zlib.crc32(content) != record.CRC:
            raise ValueError(f"the checksum of {on_one_line(name)} differs")
        return content

    def _bytes_of(self, record: zipfile.ZipInfo, most_bytes: int) -> bytes:
        if record.file_size > most_bytes:
            raise ValueError(f"{on_one_line(record.filename)} has {record.file_size:,} bytes")
        start = place_of(self._file, record)
        self._file.seek(start)
        return self._file.read(record.file_size)


class _StoragesInTurn:
    """Before torch 1.6: pickles, of which the last lists the storages, and then these."""

    order = "<"

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file, self._most_bytes = file, most_bytes
        magic, protocol, _ = (_unpickle(file, most_bytes) for _ in range(3))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise ValueError("another version")
        unpickler = WeightsUnpickler(file, most_bytes=most_bytes)
        self.payload = unpickler.load()
        _tell(unpickler)
        keys = _unpickle(file, most_bytes)
        place, size = file.tell(), file.seek(0, 2)
        self._places: Dict[str, Tuple[int, int]] = {}
        for key in map(str, keys):
            storage = unpickler.storages[key]
            file.seek(place)
            count = int.from_bytes(file.read(8), "little")
            num_bytes = count * np.dtype(_TYPES[storage.dtype]).itemsize
            if count != storage.whole or place + 8 + num_bytes > size:
                raise ValueError(f"storage {on_one_line(key)} leads out of the file")
            self._places[key] = (place + 8, num_bytes)
            place += 8 + num_bytes

    def read(self, storage: Storage, itemsize: int) -> bytes:
        """See `_Storages`."""
        start, num_bytes = self._places[storage.key]
        if num_bytes > self._most_bytes:
            raise ValueError(f"a storage of {num_bytes:,} bytes")
        self._file.seek(start)
        return self._file.read(num_bytes)


def _unpickle(file: BinaryIO, most_bytes: int) -> Any:
    unpickler = WeightsUnpickler(file, most_bytes=most_bytes)
    found = unpickler.load()
    _tell(unpickler)
    return found


def _tell(unpickler: WeightsUnpickler) -> None:
    if unpickler.unknown:
        passed = some_of(sorted(unpickler.unknown))
        _LOGGER.info("Python objects passed by, no code of theirs was run: %s", passed)


_STORAGES: Dict[bytes, Callable[[BinaryIO, int], _Storages]] = {
    _ZIP: _ZippedStorages,
    _PICKLE: _StoragesInTurn,
}


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as `torch.save` writes it.

    Raises:
        OSError: as of `open_regular`.
    """
    with open_regular(path, WEIGHTS_BYTES) as file:
        return file.read(4) in _STORAGES


@contextlib.contextmanager
def open_torch_file(path: Path, most_bytes: int) -> Iterator[TorchFile]:
    """What `torch.save` wrote; arrays of NumPy are read too.

    What goes wrong while it is entered is told as damage of the file.

    Args:
        most_bytes: of the pickle, and of a storage.

    Raises:
        UserError: a damaged file, one of TorchScript, or one that names what runs commands.
        OSError: as of `open_regular`.
    """
    named = f"input {str(path)!r}"
    with open_regular(path, WEIGHTS_BYTES) as file:
        try:
            storages = _STORAGES.get(file.read(4))
            if storages is None:
                raise ValueError("neither a zip nor a pickle of torch")
            file.seek(0)
            yield TorchFile(storages(file, most_bytes))
        except UserError:
            raise
        except RefusedObject as error:
            raise UserError(
                f"{named}: holds the Python object {error}, which could run code: refused; "
                "save the state_dict alone where the file comes from"
            ) from error
        except _TorchScriptFile as error:
            raise UserError(
                f"{named}: a network of TorchScript; save its weights where it comes from: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            ) from error
        # A damaged pickle raises nearly anything.
        except Exception as error:
            raise UserError(
                f"{named}: not a whole PyTorch file ({on_one_line(error)}); copy or download it "
                "again"
            ) from error
