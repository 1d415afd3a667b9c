"""Archives, packed sets and index caches that lie: one line, little memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest

from src.data import cifar, folder_index
from src.data.cifar import load_arrays, open_cifar
from src.data.decode import BadImageError, Decoder
from src.data.image_folder import scan_image_folder
from src.data.packed import MANIFEST, open_packed
from src.errors import UserError

MIB = 2**20
pytestmark = pytest.mark.usefixtures("little_time_and_memory")


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        open_it()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


# --- CIFAR ----------------------------------------------------------------------------------------

NAMES = "batches.meta.txt"
CLASSES = "\n".join(f"c{number}" for number in range(10)).encode()
ROWS = np.zeros((20, 3073), np.uint8).tobytes()


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """A header, with fields that say otherwise, and the content behind it."""
    info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def with_size(header: bytes, size: bytes) -> bytes:
    """The 12 bytes of a header's size replaced, and its checksum mended."""
    header = header[:124] + size + header[136:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header[:512]) + header[156:]


VAL = member("test_batch.bin", ROWS) + member(NAMES, CLASSES)
END = bytes(1024)
NEGATIVE = with_size(member("test_batch.bin"), b"\xff" * 12)
LARGE = with_size(member("test_batch.bin"), b"\x80" + struct.pack(">Q", 2**40).rjust(11, b"\0"))
ARCHIVES: Dict[str, Tuple[bytes, str]] = {
    "empty": (b"", "damaged"),
    "no archive": (b"x" * 5000, "damaged"),
    "cut": (VAL[:40_000], "damaged"),
    "another archive": (member("x", b"y") + END, "holds no"),
    "a link": (member("test_batch.bin", type=tarfile.LNKTYPE, linkname="x") + END, "holds no"),
    "a symbolic link": (
        member("test_batch.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
        "holds no",
    ),
    "a device": (member("test_batch.bin", type=tarfile.CHRTYPE) + END, "holds no"),
    "a pipe": (member("test_batch.bin", type=tarfile.FIFOTYPE) + END, "holds no"),
    "a folder": (member("test_batch.bin", type=tarfile.DIRTYPE) + END, "holds no"),
    "a terabyte": (LARGE + bytes(1024), "damaged"),
    "negative": (NEGATIVE + VAL + END, "damaged"),
    "sparse": (member("test_batch.bin", bytes(512), type=b"S") + END, "damaged"),
    "twice": (member("test_batch.bin", ROWS) + VAL + END, "test_batch.bin twice"),
    "a long name": (with_size(member("x", type=b"L"), b"77777777777\0") + b"x" * 512, "damaged"),
    "a terabyte before": (
        with_size(member("x"), b"\x80" + struct.pack(">Q", 2**40).rjust(11, b"\0")) + VAL + END,
        "damaged",
    ),
}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "ROWS_PER_BATCH", 20)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("attack", ARCHIVES)
def test_archives_that_lie(attack: str, packed: bool, tmp_path: Path, small_batches: None) -> None:
    content, said = ARCHIVES[attack]
    path = tmp_path / ("cifar-10-binary.tar.gz" if packed else "cifar-10-binary.tar")
    path.write_bytes(gzip.compress(content) if packed else content)
    message = refusal(lambda: open_cifar(tmp_path, "CIFAR10", "val"))
    assert said in message
    assert message.startswith(str(tmp_path))


def test_a_good_archive(tmp_path: Path, small_batches: None) -> None:
    # The names of before are the last part only, wherever it says that they belong.
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(member("../../x", b"y") + VAL + END))
    assert len(open_cifar(tmp_path, "CIFAR10", "val")) == 20
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    # The checksum behind all of it.
    content = path.read_bytes()
    path.write_bytes(content[:-8] + b"\0" * 4 + content[-4:])
    assert "CRC" in refusal(lambda: open_cifar(tmp_path, "CIFAR10", "val"))


def test_archives_that_unpack_to_too_much(
    tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "_ARCHIVE_BYTES", 8 * MIB)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(VAL + member("x", bytes(9 * MIB)) + END, 1))
    said = "more than 8,388,608 bytes"
    assert said in refusal(lambda: open_cifar(tmp_path, "CIFAR10", "val"))
    path.write_bytes(gzip.compress(VAL + END + bytes(9 * MIB), 1))
    assert said in refusal(lambda: open_cifar(tmp_path, "CIFAR10", "val"))


@pytest.mark.parametrize(
    "name", ["cifar-10-binary.tar", "cifar-10-binary.tar.gz", "cifar-10-batches-bin/test_batch.bin"]
)
def test_files_of_cifar_without_end(name: str, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    if "/" in name:
        (tmp_path / "cifar-10-batches-bin" / NAMES).write_bytes(CLASSES)
    with (tmp_path / name).open("wb") as file:
        file.truncate(60 * 2**30)
    assert "64,424,509,440 bytes, more than" in refusal(
        lambda: open_cifar(tmp_path, "CIFAR10", "val")
    )


ARRAY = pickle.dumps(np.zeros((2, 3), np.uint8), 2)
PICKLES: Dict[str, bytes] = {
    "memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "a million dicts": b"\x80\x02(" + b"}" * 1_100_000 + b"l.",
    "an array of terabytes": b"\x80\x02}(U\x01acnumpy\nndarray\n(\x8a\x06\0\0\0\0\0\x04\x85tRu.",
    "other shape": b"\x80\x02}U\x01a" + ARRAY[2:-1].replace(b"K\x02K\x03", b"K\x02K\x04") + b"s.",
    "objects": b"\x80\x02}U\x01a" + pickle.dumps(np.array([{}]), 2)[2:-1] + b"s.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "long bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
    "bytes again and again": (
        b"\x80\x02" + pickle.dumps("x" * MIB, 2)[2:-1] + b"q\0"
        + b"c_codecs\nencode\n(h\0X\x06\0\0\0latin1tR" * 1000 + b"."
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", PICKLES)
def test_batches_that_lie(attack: str) -> None:
    if attack == "memo":
        assert load_arrays(PICKLES[attack], "x") == {}
    else:
        assert "x: damaged (" in refusal(lambda: load_arrays(PICKLES[attack], "x"))


# --- packed sets ----------------------------------------------------------------------------------


def entry(**changes: Any) -> Dict[str, Any]:
    return {"file": "0.mindrecord", "images": 2, "bytes": 100, "sha256": "", **changes}


def manifest(**changes: Any) -> Dict[str, Any]:
    settings = {"short_side": 0, "exif_orientation": False, "background": None}
    whole = {"format": 1, "images": 2, "class_names": ["a", "b"], "settings": settings}
    return {**whole, "shards": [entry()], "skipped": [], **changes}


def columns(**changes: Any) -> Dict[str, Any]:
    return {
        "offsets": np.array([10, 30], np.int64),
        "lengths": np.array([20, 30], np.int64),
        "checksums": np.zeros(2, np.uint32),
        "labels": np.array([0, 1], np.int32),
        **changes,
    }


def write_set(folder: Path, described: Any, index: Dict[str, Any]) -> Path:
    text = described if isinstance(described, str) else json.dumps(described)
    (folder / MANIFEST).write_text(text)
    (folder / "0.mindrecord").write_bytes(bytes(100))
    np.savez(folder / "0.index.npz", **index)
    return folder


MANIFESTS: Dict[str, Tuple[Any, str]] = {
    "no JSON": ("{", "no packed data set"),
    "a list": ("[]", "Expected `object`"),
    "format": (manifest(format=2), "format 2, not 1"),
    "a format that is true": (manifest(format=True), "Expected `int`"),
    "nested": ("[" * 100_000, "nested too deep"),
    "large": ('"' + "x" * 17 * MIB + '"', "more than the 16,777,216 allowed"),
    "images in words": (manifest(images="2"), "Expected `int`"),
    "fractions": (manifest(images=2.0), "Expected `int`"),
    "5000 digits": (json.dumps(manifest()).replace(": 2,", f": {'9' * 5000},"), "digits"),
    "more images": (manifest(images=3), "2 images in the shards, not 3"),
    "no shards": (manifest(shards=[], images=0), "no shards"),
    "above": (manifest(shards=[entry(file="../0.mindrecord")]), "no name of a shard"),
    "absolute": (manifest(shards=[entry(file="/0.mindrecord")]), "no name of a shard"),
    "NUL": (manifest(shards=[entry(file="\0.mindrecord")]), "no name of a shard"),
    "another file": (manifest(shards=[entry(file="0.index.npz")]), "no name of a shard"),
    "twice": (manifest(shards=[entry(), entry()], images=4), "a shard is there twice"),
    "absent": (manifest(shards=[entry(file="1.mindrecord")]), "no bytes instead of 100"),
    "other size": (manifest(shards=[entry(bytes=99)]), "100 bytes instead of 99"),
    "negative": (manifest(shards=[entry(images=-2)], images=-2), "-2 images in 100 bytes"),
    "no bytes": (manifest(shards=[entry(images=10**9)], images=10**9), "images in 100 bytes"),
    "classes in numbers": (manifest(class_names=[1, 2]), "Expected `str`"),
    "no settings": (manifest(settings=None), "Expected `object`"),
    "a class less": (manifest(class_names=["a"]), "labels 0 to 1 of 1 classes"),
}  # fmt: skip


@pytest.mark.parametrize("attack", MANIFESTS)
def test_manifests_that_lie(attack: str, tmp_path: Path) -> None:
    described, said = MANIFESTS[attack]
    write_set(tmp_path, described, columns())
    assert said in refusal(lambda: open_packed(tmp_path, Decoder()))


def longs(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


INDEXES: Dict[str, Tuple[Dict[str, Any], str]] = {
    "negative offset": ({"offsets": longs(-1, 30)}, "out of the shard"),
    "offset beyond": ({"offsets": longs(10, 101)}, "out of the shard"),
    "length beyond": ({"lengths": longs(20, 71)}, "out of the shard"),
    "length of all": ({"lengths": longs(20, 2**63 - 1)}, "out of the shard"),
    "no length": ({"lengths": longs(0, 30)}, "out of the shard"),
    "negative length": ({"lengths": longs(-5, 30)}, "out of the shard"),
    "overlap": ({"lengths": longs(21, 30)}, "on each other"),
    "the same place": ({"offsets": longs(10, 10)}, "on each other"),
    "fractions": ({"offsets": np.zeros(2)}, "offsets of type float64"),
    "unsigned": ({"lengths": np.ones(2, np.uint64)}, "lengths of type uint64"),
    "a table": ({"labels": np.zeros((2, 2), np.int32)}, "labels of shape (2, 2)"),
    "a cube": ({"labels": np.zeros((2, 2, 2), np.int32)}, "labels of type int32"),
    "short": ({"labels": np.zeros(1, np.int32)}, "not 2 images"),
    "long": ({"labels": np.zeros(3, np.int32)}, "not 2 images"),
    "label": ({"labels": np.array([0, 2], np.int32)}, "labels 0 to 2 of 2 classes"),
    "negative label": ({"labels": np.array([-1, 0], np.int32)}, "labels -1 to 0 of 2"),
    "objects": ({"labels": np.array([{}, {}])}, "Python objects"),
}


@pytest.mark.parametrize("attack", INDEXES)
def test_indexes_that_lie(attack: str, tmp_path: Path) -> None:
    changes, said = INDEXES[attack]
    write_set(tmp_path, manifest(), columns(**changes))
    message = refusal(lambda: open_packed(tmp_path, Decoder()))
    assert said in message
    assert "pack it again" in message


def test_an_index_that_unpacks_to_more(tmp_path: Path) -> None:
    write_set(tmp_path, manifest(), {})
    large = {name: np.zeros(4 * MIB, column.dtype) for name, column in columns().items()}
    np.savez_compressed(tmp_path / "0.index.npz", **large)
    assert "arrays of 100,6" in refusal(lambda: open_packed(tmp_path, Decoder()))
    with (tmp_path / "0.index.npz").open("wb") as file:
        file.truncate(60 * 2**30)
    assert "more than" in refusal(lambda: open_packed(tmp_path, Decoder()))


def test_a_shard_of_sixty_gigabytes(tmp_path: Path) -> None:
    write_set(tmp_path, manifest(shards=[entry(bytes=60 * 2**30)]), columns())
    with (tmp_path / "0.mindrecord").open("r+b") as file:
        file.truncate(60 * 2**30)
    images = open_packed(tmp_path, Decoder())
    with pytest.raises(BadImageError, match="checksum differs"):
        images.read(0)


# --- index caches ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_index, "_TICK_NS", 0)
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").write_bytes(b"x")
    time.sleep(0.02)
    scan_image_folder(tmp_path, "train")
    return tmp_path


def text_array(text: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(text).encode(), np.uint8)


def named(text: bytes, *lengths: int) -> Callable[[Dict[str, Any]], Dict[str, Any]]:
    return lambda old: {
        "names": np.frombuffer(text, np.uint8),
        "lengths": np.array(lengths, np.uint16),
    }


def search_with(**changes: Any) -> Callable[[Dict[str, Any]], Dict[str, Any]]:
    return lambda old: {
        "search": text_array({**json.loads(old["search"].tobytes().decode()), **changes})
    }


CACHES: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
    "above": named(b"0.jpg../..", 5, 5),
    "above, deeper": named(b"0.jpg../x.jpg", 5, 8),
    "absolute": named(b"0.jpg/etc/x", 5, 6),
    "NUL": lambda old: {"names": np.frombuffer(b"0.jpg1\0jpg", np.uint8)},
    "negative counts": lambda old: {"counts": np.array([3, -1])},
    "counts that run over": lambda old: {"counts": np.array([2**62, -(2**62) + 2])},
    "other types": lambda old: {"counts": old["counts"].astype(float)},
    "long lengths": lambda old: {"lengths": old["lengths"].astype(np.int64)},
    "a table": lambda old: {"names": old["names"].reshape(-1, 1)},
    "an empty name": lambda old: {"lengths": np.array([10, 0], np.uint16)},
    "a format in words": lambda old: {"format": np.array("3")},
    "formats": lambda old: {"format": np.array([3, 3])},
    "no JSON": lambda old: {"search": np.frombuffer(b"{", np.uint8)},
    "inner in numbers": search_with(inner=[[1], [2]]),
    "inner in words": search_with(inner="ab"),
    "tallies in words": search_with(tallies=["ab", "cd"]),
    "no tallies": search_with(tallies=[]),
}  # fmt: skip


@pytest.mark.parametrize("attack", CACHES)
def test_caches_that_lie_are_made_anew(
    attack: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "train" / ".image_index.npz"
    with np.load(path) as held:
        arrays = dict(held)
    np.savez(path, **{**arrays, **CACHES[attack](arrays)})
    images = scan_image_folder(folder, "train")
    assert [images.file_name(index) for index in range(2)] == ["ant/0.jpg", "bee/0.jpg"]
    with np.load(path) as held:
        assert all((held[name] == arrays[name]).all() for name in ("counts", "names", "search"))


def test_caches_without_end(folder: Path) -> None:
    path = folder / "train" / ".image_index.npz"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names.npy", bytes(100 * MIB))
    spoilt: List[Callable[[], object]] = [
        lambda: os.truncate(path, 60 * 2**30),
        lambda: path.write_bytes(bomb.getvalue()),
        lambda: (path.unlink(), os.mkfifo(path)),
    ]
    for spoil in spoilt:
        spoil()
        assert len(scan_image_folder(folder, "train")) == 2
        assert 0 < path.stat().st_size < 10_000
