"""What was saved with a checkpoint, read past its tensors and without MindSpore.

A file is a row of protobuf messages `Checkpoint {Value value = 1}`, `Value {string tag = 1,
TensorProto tensor = 2}` and `TensorProto {int64 dims = 1, string tensor_type = 2, bytes
tensor_content = 3}` (checkpoint.proto of MindSpore); the record is the last of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Optional, Tuple

META = "train.meta"

_VALUE, _TAG, _TENSOR, _CONTENT = 1, 1, 2, 3
_VARINT, _BYTES = 0, 2
_START = bytes([_TAG << 3 | _BYTES, len(META)]) + META.encode()


def read_record(path: Path) -> Optional[Dict[str, Any]]:
    """The `meta` of `save_checkpoint`; empty for a checkpoint without; None for an unfinished one.

    Raises:
        OSError: it cannot be read.
        ValueError: no checkpoint at all.
    """
    with path.open("rb") as file, contextlib.suppress(EOFError):
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            if file.read(1) != bytes([_VALUE << 3 | _BYTES]):
                raise ValueError(f"{path}: no checkpoint")
            end = _varint(file) + file.tell()
            start = file.read(len(_START))
            if start == _START and end <= size:
                fields = _fields(start + file.read(end - file.tell()))
                return _of_fields(dict(fields))
            file.seek(end)
        return {} if size and file.tell() == size else None
    return None


def _of_fields(value: Dict[int, bytes]) -> Dict[str, Any]:
    content = dict(_fields(value[_TENSOR]))[_CONTENT]
    meta: Dict[str, Any] = json.loads(content.decode())
    return meta


def _fields(message: bytes) -> Iterator[Tuple[int, bytes]]:
    """Number and content of the fields that have bytes."""
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        key = _varint(stream)
        if key & 7 == _VARINT:
            _varint(stream)
        else:
            yield key >> 3, stream.read(_varint(stream))


def _varint(stream: BinaryIO) -> int:
    number = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return number
