"""Checkpoint files: named tensors in MindSpore's format, read and written without its parser.

A file is a row of protobuf messages (MindSpore's checkpoint.proto): `Checkpoint {Value value = 1}`,
`Value {string tag = 1, TensorProto tensor = 2}` and `TensorProto {int64 dims = 1, string
tensor_type = 2, bytes tensor_content = 3}`. Ours begin with the record and end with a digest (XXH3,
128 bits) of all bytes before it, both as tensors of bytes: a file that begins with a record is not
whole without a digest. MindSpore's parser believes a file: contents that do not fit their dims make
it write beyond its memory.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterable, Iterator, Optional, Tuple, Union

import numpy as np
import xxhash

from ..errors import UserError
from ..runtime.memory import host_allowance
from ..runtime.regular_files import RECORD_BYTES, WEIGHTS_BYTES, FileTooLarge, open_regular
from .weights_digest import WeightsDigest

META = "train.meta"
DIGEST = "train.digest"

# tensor_type -> NumPy's type. NumPy has no bfloat16: its bits are the upper half of a float32's.
_TYPES = {
    "Bool": np.dtype(np.bool_),
    **{f"Int{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"Float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BFloat16": np.dtype(np.uint16),
}
_NAMES = {
    **{str(dtype): name for name, dtype in _TYPES.items() if name != "BFloat16"},
    "bfloat16": "BFloat16",  # MindSpore's own type for NumPy
}
_TEXT = "str"  # of `append_dict`

# Keys of the fields: number * 8 + form.
_VALUE, _TAG, _TENSOR, _DIM, _TYPE, _CONTENT = 0x0A, 0x0A, 0x12, 0x08, 0x12, 0x1A
_MOST_CHARS = 512  # of a name
_MOST_DIMS = 16
_DIGEST_BYTES = 16
_LARGE = 2**30  # smaller files may take no blocks
# What MindSpore's `crc_check` adds behind the messages: this and the CRC-32 in 10 bytes.
_CRC_START, _CRC_BYTES = b"crc_num", 17


class DamagedCheckpoint(UserError):
    """A file that is not as it was written, or not MindSpore's.

    Attributes:
        path: of the file.
        reason: what does not fit, in a few words.
    """

    def __init__(
        self, path: Path, reason: str, remedy: str = "copy it again or give another one"
    ) -> None:
        super().__init__(f"checkpoint {str(path)!r}: damaged ({reason}); {remedy}")
        self.path, self.reason = path, reason


class UnfinishedCheckpoint(DamagedCheckpoint):
    """A file that ends before it says it does."""


def is_whole(path: Path) -> bool:
    """Whether a file reads to its end, and is as it was written where it says how that was.

    One tensor at a time is kept.
    """
    try:
        with open_regular(path, WEIGHTS_BYTES) as file:
            for _ in TensorReader(file, path).tensors():
                pass
    except (DamagedCheckpoint, OSError):
        return False
    return True


@dataclass(frozen=True)
class _Header:
    """What a message says before its content, `size` bytes, begins."""

    name: str
    kind: str
    dims: Tuple[int, ...]
    size: int


class TensorReader:
    """The tensors of an open file in turn. Nothing it says is believed before it is compared.

    Attributes:
        is_verified: the file had a digest or a checksum, and it was right; known at the end.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._size = os.fstat(file.fileno()).st_size
        self._position = 0
        self._header = bytearray()  # read, and not digested yet
        self._digest = xxhash.xxh3_128()
        self._crc, self._due_crc = 0, self._find_crc()
        self.is_verified = False

    def _find_crc(self) -> Optional[int]:
        """MindSpore's checksum at the end, which is none of the messages."""
        self._file.seek(max(0, self._size - _CRC_BYTES))
        end = self._file.read(_CRC_BYTES)
        self._file.seek(0)
        if not end.startswith(_CRC_START):
            return None
        self._size -= _CRC_BYTES
        return int.from_bytes(end[len(_CRC_START) :], "big")

    def tensors(self) -> Iterator[Tuple[str, np.ndarray]]:
        """Names and values; bfloat16 as float32. The last one's end shows that all are right.

        Raises:
            DamagedCheckpoint: not as it was written.
            OSError: cannot be read, or takes more memory than there is.
        """
        self._check_room()
        names: Dict[str, None] = {}  # in their order
        while self._position < self._size:
            header = self._read_header()
            if header.name in names:
                raise self._damaged(f"two tensors are called {header.name!r}")
            names[header.name] = None
            if header.name == DIGEST:
                self._check_digest(header)
            elif header.kind == _TEXT and header.size <= RECORD_BYTES:
                self._read_content(np.empty(header.size, np.uint8))
            else:
                array = self._read_tensor(header)
                if header.name == META and array.nbytes > RECORD_BYTES:
                    raise self._damaged(f"a record of {array.nbytes:,} bytes")
                yield header.name, array
        self._digest_header()
        if self._due_crc is not None:
            if self._crc != self._due_crc:
                raise self._damaged("its checksum is another one")
            self.is_verified = True
        if next(iter(names), META) == META and DIGEST not in names:
            raise self._unfinished()

    def _check_room(self) -> None:
        """Zeros that nobody has written, or more than memory holds, are not read."""
        state = os.fstat(self._file.fileno())
        written = 512 * state.st_blocks
        # Some file systems do not tell, and one that compresses makes weights little smaller.
        if state.st_size >= _LARGE and 0 < written < state.st_size // 4:
            raise self._damaged(f"of its {state.st_size:,} bytes {written:,} have been written")
        room = host_allowance()
        if room and state.st_size > room.num_bytes:
            said = f"{state.st_size:,} bytes; {room.said_by} {room.num_bytes:,}"
            raise FileTooLarge(errno.EFBIG, said, str(self._path))

    def find_record(self) -> Optional[bytes]:
        """The record, without reading tensors or comparing digests; None: there is none.

        Raises:
            DamagedCheckpoint, OSError: no checkpoint; cannot be read.
        """
        if not self._size:
            raise self._unfinished()
        record = None
        while self._position < self._size:
            is_first = self._position == 0
            header = self._read_header()
            if header.name == META and header.size <= RECORD_BYTES:
                record = self._take(header.size)
                if is_first:
                    self._check_end()
                    return record
            else:
                self._position = self._file.seek(header.size, os.SEEK_CUR)
        return record

    def _check_end(self) -> None:
        """Where the record is the first, the digest is the last."""
        start = _header_of(DIGEST, "UInt8", (_DIGEST_BYTES,), _DIGEST_BYTES)
        self._file.seek(max(0, self._size - len(start) - _DIGEST_BYTES))
        if self._file.read(len(start)) != start:
            raise self._unfinished()

    def _read_tensor(self, header: _Header) -> np.ndarray:
        dtype = _TYPES.get(header.kind)
        if dtype is None:
            raise self._damaged(f"{header.name!r} is of type {header.kind!r}, which is not known")
        # MindSpore 2.0 says [0] for a scalar; an empty tensor it cannot read.
        shape = () if header.dims == (0,) else header.dims
        size = math.prod(shape) * dtype.itemsize
        rest = self._size - self._position
        if not 0 < header.size <= size <= rest:
            raise self._damaged(f"{header.name!r} has {header.size} bytes, and dims {shape}")
        content = np.empty(size, np.uint8)
        self._read_content(content[: header.size])
        held = header.size
        while held < size:  # a large one comes in slices
            part = self._read_header()
            same = (part.name, part.kind, part.dims) == (header.name, header.kind, header.dims)
            if not same or not 0 < part.size <= size - held:
                raise self._damaged(f"{header.name!r} has {held} bytes, and dims {shape}")
            self._read_content(content[held : held + part.size])
            held += part.size
        return self._as_array(content, header, dtype).reshape(shape)

    def _as_array(self, content: np.ndarray, header: _Header, dtype: np.dtype) -> np.ndarray:
        if header.kind == "BFloat16":
            return (content.view(dtype).astype(np.uint32) << 16).view(np.float32)
        if header.kind == "Bool" and content.max() > 1:
            raise self._damaged(f"{header.name!r} has other values than true and false")
        return content.view(dtype)

    def _check_digest(self, header: _Header) -> None:
        due = _header_of(DIGEST, "UInt8", (_DIGEST_BYTES,), _DIGEST_BYTES) + self._digest.digest()
        self._take(min(header.size, _DIGEST_BYTES))
        if bytes(self._header) != due or self._position != self._size:
            raise self._damaged("its digest says that it was another file")
        self.is_verified = True

    def _read_header(self) -> _Header:
        self._digest_header()
        self._expect(_VALUE)
        end = self._end_of_message()
        self._expect(_TAG)
        name = self._text()
        self._expect(_TENSOR)
        ends = [self._end_of_message()]
        dims = []
        while (key := self._take(1)[0]) == _DIM:
            dims.append(self._varint())
            if len(dims) > _MOST_DIMS:
                raise self._damaged(f"{name!r} has more than {_MOST_DIMS} dimensions")
        if key != _TYPE:
            raise self._damaged(f"{name!r} has no type")
        kind = self._text()
        self._expect(_CONTENT)
        ends.append(self._end_of_message())
        if ends != [end, end]:
            raise self._damaged(f"{name!r} has parts of different lengths")
        return _Header(name, kind, tuple(dims), end - self._position)

    def _expect(self, key: int) -> None:
        position = self._position
        if self._take(1)[0] != key:
            raise self._damaged(f"byte {position} is not as in a MindSpore checkpoint")

    def _end_of_message(self) -> int:
        end = self._varint() + self._position
        if end > self._size:
            raise self._unfinished()
        return end

    def _text(self) -> str:
        size = self._varint()
        if size > _MOST_CHARS:
            raise self._damaged(f"a name of {size} bytes")
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            raise self._damaged("a name that is no UTF-8") from None

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 63, 7):
            (byte,) = self._take(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise self._damaged("a negative length or dimension")

    def _take(self, size: int) -> bytes:
        """The next bytes of a header."""
        data = self._file.read(size)
        if len(data) < size:
            raise self._unfinished()
        self._position += size
        self._header += data
        return data

    def _read_content(self, content: np.ndarray) -> None:
        if self._file.readinto(content) < len(content):  # type: ignore[attr-defined]
            raise self._unfinished()
        self._position += len(content)
        self._digest_header()
        self._add(content.data)

    def _digest_header(self) -> None:
        self._add(bytes(self._header))
        self._header.clear()

    def _add(self, data: Union[bytes, memoryview]) -> None:
        self._digest.update(data)
        if self._due_crc is not None:
            self._crc = zlib.crc32(data, self._crc)

    def _damaged(self, reason: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(self._path, reason)

    def _unfinished(self) -> DamagedCheckpoint:
        return UnfinishedCheckpoint(self._path, "its end is missing")


def write_tensors(file: BinaryIO, record: bytes, tensors: Iterable[Tuple[str, np.ndarray]]) -> str:
    """Writes record, tensors and digest, one tensor at a time.

    Returns:
        The digest of the tensors alone, see `WeightsDigest`.

    Raises:
        OSError: the disk is full or has failed.
        ValueError: two tensors of one name, which no reader would take.
        KeyError: a type that MindSpore's format does not have.
    """
    names = {DIGEST}
    digest, of_weights = xxhash.xxh3_128(), WeightsDigest()
    first = (META, np.frombuffer(record, np.uint8))
    for name, array in itertools.chain([first], tensors):
        if name in names:
            raise ValueError(f"two tensors are called {name!r}")
        names.add(name)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        header = _header_of(name, _NAMES[str(array.dtype)], array.shape, content.size)
        for part in (header, content.data):
            digest.update(part)
            file.write(part)
        if name != META:
            of_weights.add(name, array)
    file.write(_header_of(DIGEST, "UInt8", (_DIGEST_BYTES,), _DIGEST_BYTES) + digest.digest())
    return of_weights.hex()


def _header_of(name: str, kind: str, shape: Tuple[int, ...], size: int) -> bytes:
    """All of a message but its content of `size` bytes."""
    dims = b"".join(bytes([_DIM]) + _as_varint(dim) for dim in shape)
    tensor = dims + _field(_TYPE, kind.encode()) + bytes([_CONTENT]) + _as_varint(size)
    tag = _field(_TAG, name.encode())
    value = tag + bytes([_TENSOR]) + _as_varint(len(tensor) + size) + tensor
    return bytes([_VALUE]) + _as_varint(len(value) + size) + value


def _field(key: int, content: bytes) -> bytes:
    return bytes([key]) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])
