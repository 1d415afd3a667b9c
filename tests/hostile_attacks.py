"""The files of `hostile_files.py`: what every reader is given, and what only one of a format is."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import socket
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
from PIL import Image

# Puts a file at the path, given the content of the good one.
Attack = Callable[[Path, bytes], None]


def remove(path: Path) -> None:
    """Whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def content(change: Callable[[bytes], bytes]) -> Attack:
    """The good file, changed."""
    return lambda path, good: path.write_bytes(change(good)) and None


def always(data: bytes) -> Attack:
    """The same whatever the good file is."""
    return content(lambda good: data)


def _socket(path: Path, good: bytes) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # its path may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path, good: bytes) -> None:
    path.write_bytes(good)
    os.truncate(path, 60 * 10**9)


def with_bit(data: bytes, place: float) -> bytes:
    """One bit is another, at this share of the file."""
    position = int(place * (len(data) - 1))
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


def with_zeros(data: bytes) -> bytes:
    """16 bytes in the middle are 0."""
    middle = len(data) // 2
    return data[:middle] + bytes(16) + data[middle + 16 :]


def png(width: int, height: int, *more: Tuple[bytes, bytes], rows: Optional[bytes] = None) -> bytes:
    """A grey PNG whose header says these sizes, with further chunks before its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0" if rows is None else rows, 1)
    parts = [(b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def picture(kind: str, size: Tuple[int, int] = (20, 20)) -> bytes:
    """An image of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


# Every reader refuses all of these, but for those its format cannot tell from a good file.
EVERYWHERE: Dict[str, Attack] = {
    "missing": lambda path, good: None,
    "a folder": lambda path, good: path.mkdir(),
    "a named pipe": lambda path, good: os.mkfifo(path),
    "a socket": _socket,
    "a link to /dev/zero": lambda path, good: path.symlink_to("/dev/zero"),
    "a dead link": lambda path, good: path.symlink_to("nowhere"),
    "a link to itself": lambda path, good: path.symlink_to(path.name),
    "60 GB, sparse": _sparse,
    "empty": always(b""),
    "its first half": content(lambda good: good[: len(good) // 2]),
    "without its last byte": content(lambda good: good[:-1]),
    "twice": content(lambda good: good + good),
    "noise of its size": content(lambda good: np.random.default_rng(1).bytes(len(good))),
    "zeros of its size": content(lambda good: bytes(len(good))),
    "a bit at the start": content(lambda good: with_bit(good, 0.0)),
    "a bit in the middle": content(lambda good: with_bit(good, 0.5)),
    "a bit at the end": content(lambda good: with_bit(good, 1.0)),
    "16 zeros in the middle": content(with_zeros),
    "a web page": always(b"<!DOCTYPE html><html><body>404</body></html>\n"),
    "a pickle": always(pickle.dumps({"a": [1, 2, 3]})),
    "a zip": always(b"PK\x05\x06" + bytes(18)),
    "deep nesting": always(b"[" * 1_000_000),
    "10 MB of digits": always(b"9" * 10_000_000),
    "10 MB on one line": always(b"a: b, " * 1_700_000),
}
# What a text without a checksum cannot tell.
TEXT = {"a bit at the start", "a bit in the middle", "a bit at the end", "without its last byte"}


def edited(change: Callable[[Any], Any]) -> Attack:
    """JSON of which a part is another."""

    def change_text(good: bytes) -> bytes:
        found = json.loads(good)
        change(found)
        return json.dumps(found).encode()

    return content(change_text)


def entry(*keys: Any, value: Any) -> Attack:
    """JSON with another value there; the first of a dict where a key is None."""

    def change(found: Any) -> None:
        for key in keys[:-1]:
            found = found[key]
        found[next(iter(found)) if keys[-1] is None else keys[-1]] = value

    return edited(change)


def replaced(old: bytes, new: bytes) -> Attack:
    """Text with another word; the good file must have it."""

    def change(good: bytes) -> bytes:
        assert old in good, old
        return good.replace(old, new, 1)

    return content(change)


def _messages(good: bytes) -> Any:
    from mindspore.train.checkpoint_pb2 import Checkpoint

    found = Checkpoint()
    found.ParseFromString(good)
    return found


def tensors(change: Callable[[Any], Any]) -> Attack:
    """A checkpoint whose messages are changed; `change` gets those of tensors of two dimensions."""

    def serialised(good: bytes) -> bytes:
        found = _messages(good)
        flat = [v for v in found.value if len(v.tensor.dims) == 2 and v.tag[:5] != "train"]
        change(flat)
        return bytes(found.SerializeToString())

    return content(serialised)


def _relabel(kind: str) -> Callable[[Any], Any]:
    return lambda flat: setattr(flat[0].tensor, "tensor_type", kind)


def _set_dims(*dims: int) -> Callable[[Any], Any]:
    def change(flat: Any) -> None:
        del flat[0].tensor.dims[:]
        flat[0].tensor.dims.extend(dims)

    return change


def _exchange(flat: Any) -> None:
    tensor = type(flat[0].tensor)()
    tensor.CopyFrom(flat[0].tensor)
    flat[0].tensor.CopyFrom(flat[1].tensor)
    flat[1].tensor.CopyFrom(tensor)


CHECKPOINT: Dict[str, Attack] = {
    "two tensors exchanged": tensors(_exchange),
    "a tensor twice": tensors(lambda flat: setattr(flat[1], "tag", flat[0].tag)),
    "another name": tensors(lambda flat: setattr(flat[0], "tag", "a\nb")),
    "Float16 for Float32": tensors(_relabel("Float16")),
    "Int32 for Float32": tensors(_relabel("Int32")),
    "an unknown type": tensors(_relabel("Quaternion")),
    "dims of 2^62": tensors(_set_dims(2**31, 2**31)),
    "dims below 0": tensors(_set_dims(-1, -4)),
    "dims exchanged": tensors(lambda flat: _set_dims(*reversed(flat[0].tensor.dims))(flat)),
    "no content": tensors(lambda flat: setattr(flat[0].tensor, "tensor_content", b"")),
    "content of thrice its size": tensors(
        lambda flat: setattr(flat[0].tensor, "tensor_content", 3 * flat[0].tensor.tensor_content)
    ),
    "another arch": replaced(b"cct_2_3x2_32", b"cct_2_3x2_23"),
    "a length beyond the file": content(lambda good: b"\x0a\xff\xff\xff\xff\x7f" + good[6:]),
}


def safetensors(change: Callable[[Dict[str, Any]], Any]) -> Attack:
    """The header is changed."""

    def serialised(good: bytes) -> bytes:
        size = int.from_bytes(good[:8], "little")
        header = json.loads(good[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    return content(serialised)


def _of_header(key: str, value: Any) -> Attack:
    def change(header: Dict[str, Any]) -> None:
        header[next(name for name in header if name != "__metadata__")][key] = value

    return safetensors(change)


SAFETENSORS: Dict[str, Attack] = {
    "a header of 2^60 bytes": content(lambda good: (2**60).to_bytes(8, "little") + good[8:]),
    "a shape of 2^62": _of_header("shape", [2**31, 2**31]),
    "a shape below 0": _of_header("shape", [-1]),
    "a type of its own": _of_header("dtype", "F31"),
    "offsets beyond the file": _of_header("data_offsets", [0, 2**50]),
    "offsets that turn": _of_header("data_offsets", [64, 0]),
}


def _npz(member: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    return stream.getvalue()


def _npy(shape: Tuple[int, ...], content: bytes = b"", kind: str = "<f4") -> bytes:
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def _bomb(path: Path, good: bytes) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(_npy((2**30,)))
        for _ in range(256):
            member.write(bytes(2**24))


NPZ: Dict[str, Attack] = {
    "a shape of 4 TB": always(_npz(_npy((2**40,)))),
    "4 GiB of zeros, compressed": _bomb,
    "Python objects": always(_npz(_npy((1,), pickle.dumps([1]), "|O"))),
    "a shape below 0": always(_npz(_npy((-1, 4)))),
}


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _expanded() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"norm.weight": torch.zeros(1).expand(2**40)}, stream)
    return stream.getvalue()


TORCH: Dict[str, Attack] = {
    "a pickle that runs code": always(pickle.dumps(_Runs())),
    "a view of 4 TB": content(lambda good: _expanded()),
}


def _jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    jpeg = picture("JPEG")
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def _bmp_of(width: int, height: int) -> bytes:
    fields = (40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 60, 0, 0, 54) + struct.pack("<IiiHHIIiiII", *fields)


def _deflated(size: int) -> bytes:
    return b"a\0\0" + zlib.compress(bytes(size), 1)


IMAGES: Dict[str, Attack] = {
    "a PNG of 60,000 a side": always(png(60_000, 60_000)),
    "a PNG of 2^31 a side": always(png(2**31 - 1, 2**31 - 1)),
    "a PNG of 13,300 a side": content(
        lambda good: png(13_300, 13_300, rows=bytes(13_301 * 13_300))
    ),
    "a PNG with 200 MB of text": content(
        lambda good: png(20, 20, (b"zTXt", _deflated(200_000_000)))
    ),
    "a PNG with a large profile": content(
        lambda good: png(20, 20, (b"iCCP", _deflated(200_000_000)))
    ),
    "PostScript": always(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EOF\n"),
    "SVG": always(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "a JPEG of 65,500 a side": content(lambda good: _jpeg_of(65_500, 65_500)),
    "a PPM of 2^31 a side": always(b"P6\n2147483647 2147483647\n255\n"),
    "a PPM of 5,000 digits": always(b"P6\n" + b"9" * 5000 + b" 1\n255\n"),
    "a BMP of 2^31 a side": always(_bmp_of(2**31 - 1, 2**31 - 1)),
}

RECIPE: Dict[str, Attack] = {
    "a batch of 10^9": content(lambda good: good + b"\nbatch_size: 1000000000\n"),
    "images of 100,000 a side": content(lambda good: good + b"\nimage_size: 100000\n"),
    "10^12 epochs": content(lambda good: good + b"\nepochs: 1000000000000\n"),
    "aliases of aliases": always(
        b"a0: &a0 [x, x]\n"
        + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i + 1, i + 1, i, i) for i in range(40))
    ),
    "a tag that runs code": always(b"arch: !!python/object/apply:os.system ['touch ran']\n"),
    "a number of 5,000 digits": always(b"epochs: " + b"9" * 5000),
    "itself as its base": content(lambda good: b"base: recipe.yaml\n" + good),
    "not UTF-8": content(lambda good: good + b"\nmodel_args: \xff\n"),
}

_SERVER, _DEVICE = ("server_list", 0), ("server_list", 0, "device", 0)
RANK_TABLE: Dict[str, Attack] = {
    "a number of 5,000 digits": entry(*_DEVICE, "rank_id", value="9" * 5000),
    "a rank that is a float": entry(*_DEVICE, "rank_id", value=0.5),
    "a rank that is true": entry(*_DEVICE, "rank_id", value=True),
    "a rank below 0": entry(*_DEVICE, "rank_id", value="-1"),
    "a rank in Arabic digits": entry(*_DEVICE, "rank_id", value="\u0660"),
    "a rank twice": entry(*_DEVICE, "rank_id", value="1"),
    "no address": entry(*_DEVICE, "device_ip", value="1.2.3"),
    "servers that are none": entry("server_list", value={"a": 1}),
    "a count of 2^64": entry("server_count", value=str(2**64)),
}

LABELS: Dict[str, Attack] = {
    "a label of 2^32": entry("labels", None, value=2**32),
    "a label of 0.9": entry("labels", None, value=0.9),
    "a label that is true": entry("labels", None, value=True),
    "a label that is text": entry("labels", None, value="1"),
    "a label of -2": entry("labels", None, value=-2),
    "a label too large": entry("labels", None, value=3),
    "10^12 classes": entry("num_classes", value=10**12),
    "2.0 classes": entry("num_classes", value=2.0),
    "batches of 0": entry("batch_size", value=0),
    "batches of 2^40": entry("batch_size", value=2**40),
    "NaN": replaced(b'"batch_size": ', b'"batch_size": NaN, "b": '),
    "labels that are a list": entry("labels", value=[0, 1]),
}

RESULTS: Dict[str, Attack] = {
    "NaN": content(lambda good: np.full(1, np.nan, "<f4").tobytes() + good[4:]),
    "an infinity": content(lambda good: good[:-4] + np.full(1, np.inf, "<f4").tobytes()),
}

NAMES: Dict[str, Attack] = {
    "a name too many": content(lambda good: good + b"one more\n"),
    "10 million names": always(b"a\n" * 10_000_000),
    "not UTF-8": content(lambda good: good.replace(b"\n", b"\xff\n", 1)),
    "an empty list": always(b"\n\n\n"),
}

MANIFEST: Dict[str, Attack] = {
    "2^62 images": entry("images", value=2**62),
    "images below 0": entry("images", value=-1),
    "1.5 images": entry("images", value=1.5),
    "a shard elsewhere": entry("shards", 0, "file", value="../../etc/passwd"),
    "an absolute shard": entry("shards", 0, "file", value="/etc/passwd"),
    "a shard of 2^62 bytes": entry("shards", 0, "bytes", value=2**62),
    "no shards": entry("shards", value={}),
    "names that are numbers": entry("class_names", value=[1, 2, 3]),
    "another format": entry("format", value="x"),
}


def columns(change: Callable[[Dict[str, np.ndarray]], Any]) -> Attack:
    """Arrays of an .npz are changed."""

    def serialised(good: bytes) -> bytes:
        with np.load(io.BytesIO(good)) as archive:
            arrays = {name: archive[name] for name in archive.files}
        change(arrays)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    return content(serialised)


INDEX: Dict[str, Attack] = {
    **NPZ,
    "offsets beyond the file": columns(lambda a: a.update(offsets=a["offsets"] + 2**40)),
    "offsets below 0": columns(lambda a: a.update(offsets=a["offsets"].astype("i8") - 2**40)),
    "lengths of 2^40": columns(lambda a: a.update(lengths=a["lengths"].astype("i8") + 2**40)),
    "lengths that are floats": columns(lambda a: a.update(lengths=a["lengths"] * 1.0)),
    "labels too large": columns(lambda a: a.update(labels=a["labels"] + 1000)),
    "labels of two dimensions": columns(lambda a: a.update(labels=a["labels"][:, None])),
    "a column missing": columns(lambda a: a.pop("checksums")),
}

CIFAR: Dict[str, Attack] = {
    "a label of 255": content(lambda good: b"\xff" + good[1:]),
    "a row of 3,074 bytes": content(lambda good: good + b"\0"),
}


def _gzip_bomb(path: Path, good: bytes) -> None:
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(good)
        for _ in range(256):
            packed.write(bytes(2**24))


def idx_header(place: int, value: int) -> Attack:
    """One of the four numbers of 32 bits with which a file of images begins is another."""
    field = struct.pack(">I", value)
    return content(lambda good: good[: 4 * place] + field + good[4 * place + 4 :])


IDX: Dict[str, Attack] = {
    "the magic of labels": idx_header(0, 0x801),
    "the magic of floats": idx_header(0, 0xD03),
    "the magic of four dimensions": idx_header(0, 0x804),
    "little endian": content(lambda good: np.frombuffer(good, ">u4", 4).astype("<u4").tobytes()),
    "2^32 - 1 images": idx_header(1, 2**32 - 1),
    "no images": idx_header(1, 0),
    "an image more than there are": idx_header(1, 301),
    "an image fewer than there are": idx_header(1, 299),
    "2^32 - 1 rows": idx_header(2, 2**32 - 1),
    "no columns": idx_header(3, 0),
    "images that have no labels": content(
        lambda good: good[:4] + struct.pack(">I", 301) + good[8:] + bytes(784)
    ),
    "gzip, cut off": content(lambda good: gzip.compress(good)[:-9]),
    "gzip, another checksum": content(lambda good: with_bit(gzip.compress(good), 0.99999)),
    "gzip, twice": content(lambda good: gzip.compress(gzip.compress(good))),
    "gzip, more behind it": content(lambda good: gzip.compress(good) + b"more"),
    "4 GiB of zeros, compressed": _gzip_bomb,
}

EXPORT_RECORD: Dict[str, Attack] = {
    "10^12 classes": entry("num_classes", value=10**12),
    "classes that are text": entry("num_classes", value="3"),
    "images of 100,000 a side": entry("image_size", value=100_000),
    "another digest": entry("sha256", value="0" * 64),
    "a mean of 10^300": entry("transform", "mean", value=[1e300, 0.5, 0.5]),
    "no transform": entry("transform", value=None),
    "another arch": entry("arch", value="../../etc/passwd"),
    "a batch below 0": entry("batch_size", value=-1),
}

IMAGES_CSV: Dict[str, Attack] = {
    "correct twice": replaced(b"correct", b"image"),
    "2 for correct": content(lambda good: good.rpartition(b",")[0] + b",2\n"),
    "an image twice": content(lambda good: good + good.splitlines(keepends=True)[-1]),
}

TSV: Dict[str, Attack] = {
    "no version": replaced(b"version\t1\n", b""),
    "another version": replaced(b"version\t1", b"version\t2"),
    "a version twice": replaced(b"version\t1\n", b"version\t1\nversion\t1\n"),
    "a shape of 2^96": content(lambda good: _with_line(good, b"shape", b"4294967296," * 2 + b"9")),
    "a shape below 0": content(lambda good: _with_line(good, b"shape", b"-1,3,32,32")),
    "2^32 + 1 images": content(lambda good: _with_line(good, b"images", b"4294967297")),
    "images in hexadecimal": content(lambda good: _with_line(good, b"images", b"0xc")),
    "a file elsewhere": replaced(b"input/000000.bin", b"../../../etc/passwd"),
    "an absolute file": replaced(b"input/000000.bin", b"/etc/passwd"),
    "a file twice": replaced(b"input/000001.bin", b"input/000000.bin"),
    "a checksum of 16 digits": replaced(b"\nend", b"00000000\nend"),
    "no end": content(lambda good: good[: good.index(b"end\t")]),
    "text behind the end": content(lambda good: good + b"file\tinput/000000.bin\t1\t00000000\n"),
}


def _with_line(good: bytes, key: bytes, value: bytes) -> bytes:
    lines = good.split(b"\n")
    found = [key + b"\t" + value if line.startswith(key + b"\t") else line for line in lines]
    assert found != lines
    return b"\n".join(found)


METRICS_CSV: Dict[str, Attack] = {
    "a step that is text": content(lambda good: good.rpartition(b"\n")[0] + b"\nx,1,1,1\n"),
    "a step of 5,000 digits": content(lambda good: good + b"9" * 5000 + b",1,1,1\n"),
    "steps in Arabic digits": content(lambda good: good + "\u0663,1,1,1\n".encode()),
}
