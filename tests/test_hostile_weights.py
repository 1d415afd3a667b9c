"""Weights of other frameworks that lie: refused on one line, before memory is taken.

What is good is compared with the readers of torch, safetensors and NumPy.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from torch_oracle import torch

from src.checkpoints.weight_files import read_weights
from src.errors import UserError
from src.runtime.memory import Allowance

MIB = 2**20
ROOM = Allowance(32 * MIB, "files of a test may take")
Attack = Callable[[Path], object]
pytestmark = pytest.mark.usefixtures("little_time_and_memory")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_weights(path, room=ROOM)
    message = str(caught.value)
    assert message.startswith(f"input {str(path)!r}: ")
    assert "\n" not in message
    assert len(message) < 600
    return message


def sparse(path: Path, num_bytes: int = 60 * 2**30) -> Path:
    with path.open("ab") as file:
        file.truncate(num_bytes)
    return path


# --- safetensors ----------------------------------------------------------------------------------


def tensors(header: Any, content: bytes = b"", **more: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", more.get("size", len(text))) + text + content


def entry(
    shape: Optional[List[Any]] = None, offsets: Optional[List[int]] = None, dtype: str = "F32"
) -> Dict[str, Any]:
    return {"dtype": dtype, "shape": shape or [2], "data_offsets": offsets or [0, 8]}


ONE = entry()
TEXT = json.dumps({"a": ONE}).encode()
SAFETENSORS: Dict[str, Tuple[bytes, str]] = {
    "empty": (b"", "0 bytes of a header"),
    "seven bytes": (b"1234567", "a header of"),
    "no header": (tensors(b""), "0 bytes of a header"),
    "header beyond the file": (tensors(TEXT, size=10_000_000), "of a header of 10,000,000"),
    "header of exabytes": (tensors(TEXT, size=2**63), "a header of 9,223,372,036,854,775,808"),
    "header of 17 MB": (tensors(TEXT, size=17 * MIB), "a header of 17,825,792"),
    "no JSON": (tensors(b"{]", bytes(8)), "line 1"),
    "no UTF-8": (tensors(b'{"\xff":1}', bytes(8)), "utf-8"),
    "nested": (tensors(b"[" * 1_000_000), "nested too deep"),
    "a list": (tensors([1], bytes(8)), "no table"),
    "no tensor": (tensors({"a": 1}, bytes(8)), "Expected `object`"),
    "no shape": (tensors({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "shape"),
    "twice": (tensors(TEXT[:-1] + b"," + TEXT[1:], bytes(8)), "twice"),
    "fractions": (tensors({"a": entry([2.0])}, bytes(8)), "Expected `int`"),
    "booleans": (tensors({"a": entry([True])}, bytes(4)), "Expected `int`"),
    "words": (tensors({"a": entry(["2"])}, bytes(8)), "Expected `int`"),
    "negative": (tensors({"a": entry([-2, -1])}, bytes(8)), "shape"),
    "NaN": (tensors(b'{"a": NaN}', bytes(8)), "NaN"),
    "5000 digits": (tensors(TEXT.replace(b"[2]", b"[" + b"9" * 5000 + b"]")), "digits"),
    "overflow": (tensors({"a": entry([2**32, 2**33])}, bytes(8)), "are due"),
    "terabytes": (tensors({"a": entry([2**40], [0, 2**42])}, bytes(8)), "8 bytes of tensors"),
    "other size": (tensors({"a": entry([3])}, bytes(8)), "12 bytes from 0 are due"),
    "overlap": (tensors({"a": ONE, "b": ONE}, bytes(8)), "from 8 are due"),
    "gap": (tensors({"a": ONE, "b": entry([2], [12, 20])}, bytes(20)), "from 8 are due"),
    "backwards": (tensors({"a": entry([2], [8, 0])}, bytes(8)), "are due"),
    "more at the end": (tensors({"a": ONE}, bytes(9)), "9 bytes of tensors, 8 are due"),
    "less at the end": (tensors({"a": ONE}, bytes(7)), "7 bytes of tensors, 8 are due"),
    "33 dimensions": (tensors({"a": entry([1] * 33, [0, 4])}, bytes(4)), "shape"),
    "unknown type": (tensors({"a": entry(dtype="F99\nx")}, bytes(8)), "F99 x is no type of"),
}


@pytest.mark.parametrize("attack", SAFETENSORS)
def test_safetensors_that_lie(attack: str, tmp_path: Path) -> None:
    content, said = SAFETENSORS[attack]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert said in refusal(path)


def test_safetensors_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert "0 bytes of a header" in refusal(sparse(path))
    # One tensor of 40 GiB, as the file says and has.
    path.write_bytes(tensors({"a": entry([10 * 2**30], [0, 40 * 2**30])}))
    message = refusal(sparse(path, path.stat().st_size + 40 * 2**30))
    assert "weights take 40.00 GiB, files of a test may take 0.03 GiB" in message


def test_safetensors_are_read_as_their_library_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "float": rng.normal(size=(3, 4)).astype(np.float32),
        "double": rng.normal(size=(2, 2, 2)),
        "half": rng.normal(size=5).astype(np.float16),
        "none": np.zeros((0, 3), np.float32),
        "number": np.array(3, np.float32),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(arrays, metadata={"format": "pt"}))
    found, theirs = read_weights(path, room=ROOM), load_file(path)
    assert sorted(found) == sorted(theirs)
    for name, value in theirs.items():
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value.astype(np.float32))


# --- npz ------------------------------------------------------------------------------------------


def npy(array: Any = None, **changes: Any) -> bytes:
    """A member, with a header that says otherwise."""
    stream = io.BytesIO()
    array = np.zeros(2, np.float32) if array is None else array
    np.lib.format.write_array(stream, array, allow_pickle=True)
    if not changes:
        return stream.getvalue()
    head = {"descr": "<f4", "fortran_order": False, "shape": (2,), **changes}
    text = changes.get("text", repr(head)).encode()
    version = b"\x02\0" + struct.pack("<I", len(text))
    return b"\x93NUMPY" + version + text + array.tobytes()


def zipped(members: Dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def twice() -> bytes:
    return zipped({"a.npy": npy(), "b.npy": npy()}).replace(b"b.npy", b"a.npy")


def large_directory(num_bytes: int) -> bytes:
    """The end of an archive with zip64's records: its directory is said to be this long."""
    start = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, num_bytes, 0)
    place = b"PK\x06\x07" + struct.pack("<IQI", 0, num_bytes, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, *[2**32 - 1] * 2, 0)
    return start + place + end


PLAIN = zipped({"a.npy": npy()})
NPZ: Dict[str, Tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a zip"),
    "half": (lambda: PLAIN[: len(PLAIN) // 2], "not a zip"),
    "no zip": (lambda: npy(), "not a zip"),
    "4 TB": (lambda: zipped({"a.npy": npy(shape=(2**40,))}), "4,398,046,511"),
    "overflow": (lambda: zipped({"a.npy": npy(shape=(2**40, 2**40))}), "are due"),
    "negative": (lambda: zipped({"a.npy": npy(shape=(-1,))}), "shape (-1,)"),
    "booleans": (lambda: zipped({"a.npy": npy(shape=(True, 2))}), "shape"),
    "longer": (lambda: zipped({"a.npy": npy() + b"0"}), "137 bytes where 136 are due"),
    "shorter": (lambda: zipped({"a.npy": npy()[:-1]}), "135 bytes where 136 are due"),
    "no header": (lambda: zipped({"a.npy": b"x"}), "EOF"),
    "no literal": (lambda: zipped({"a.npy": npy(text="exit(1)")}), "header"),
    "nested": (lambda: zipped({"a.npy": npy(text="(" * 5000)}), "header"),
    "long header": (lambda: zipped({"a.npy": npy(text=" " * 60_000)}), "header of 60,000"),
    "unknown type": (lambda: zipped({"a.npy": npy(descr="<q9")}), "header"),
    "objects": (lambda: zipped({"a.npy": npy(np.array([{}], object))}), "Python objects"),
    "twice": (lambda: PLAIN * 2, "something stands before it"),
    "a comment": (lambda: PLAIN[:-2] + b"\1\0", "something stands behind it"),
    "other file": (lambda: zipped({"a.txt": b"x"}), "a.txt is no array"),
    "two of a name": (twice, "two members of one name"),
    "bit": (lambda: PLAIN.replace(bytes(8), b"\1" + bytes(7)), "CRC"),
    "lzma": (lambda: zipped({"a.npy": npy()}, zipfile.ZIP_LZMA), "way of its own"),
    "encrypted": (
        lambda: PLAIN.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "encrypted",
    ),
    "bomb": (
        lambda: zipped({"a.npy": npy(np.zeros(80 * MIB, "u1"))}, zipfile.ZIP_DEFLATED),
        "arrays of 83,886,208 bytes; files of a test may take",
    ),
}


@pytest.mark.parametrize("attack", NPZ)
def test_npz_that_lie(attack: str, tmp_path: Path) -> None:
    make, said = NPZ[attack]
    path = tmp_path / "x.npz"
    path.write_bytes(make())
    assert said in refusal(path)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_archives_without_end(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    assert "not a whole" in refusal(sparse(path))
    path.write_bytes(PLAIN)
    assert "not a whole" in refusal(sparse(path))
    # A directory of 40 GiB, there in full.
    path.write_bytes(b"PK\x03\x04")
    sparse(path, 40 * 2**30)
    with path.open("ab") as file:
        file.write(large_directory(40 * 2**30))
    assert "a directory of 42,949,672,960 bytes" in refusal(path)


def test_npz_are_read_as_numpy_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "float": rng.normal(size=(3, 4)).astype(np.float32),
        "columns": np.asfortranarray(rng.normal(size=(3, 4))),
        "big": rng.normal(size=5).astype(">f8"),
        "none": np.zeros((0, 3)),
        "number": np.float64(3),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **arrays)
        found = read_weights(tmp_path / "x.npz", room=ROOM)
        with np.load(tmp_path / "x.npz") as theirs:
            assert sorted(found) == sorted(theirs.files)
            for name in theirs.files:
                assert found[name].shape == theirs[name].shape
                np.testing.assert_array_equal(found[name], theirs[name].astype(np.float32))


# --- torch ----------------------------------------------------------------------------------------


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(values: Tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    shape: Tuple[int, ...] = (2,),
    strides: Tuple[int, ...] = (1,),
    *,
    numel: int = 2,
    offset: int = 0,
    key: str = "0",
    kind: str = "FloatStorage",
) -> bytes:
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    place = number(offset) + numbers(shape) + numbers(strides)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(numel)
        + b"tQ"
        + place
        + b"\x89NtR"
    )


def state(value: bytes, key: bytes = b"") -> bytes:
    return b"\x80\x02}(" + (key or text("a")) + value + b"u."


def archive(data: bytes, storage: bytes = bytes(8), **more: bytes) -> bytes:
    small = {"x/version": b"3\n", "x/byteorder": b"little"}
    return zipped({"x/data.pkl": data, **small, "x/data/0": storage, **more})


def called(name: str, *arguments: bytes) -> bytes:
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


DEEP = b")" + b"\x85" * 200_000
GOOD = archive(state(tensor()))
# Twenty-five dicts, each of which holds the one before thirty times.
THIRTY = [text(str(n)) for n in range(30)]
LAUGHS = b"\x80\x02}q\0%b." % b"".join(
    b"}q%c(%bu" % (i + 1, b"".join(b"%bh%c" % (key, i) for key in THIRTY)) for i in range(25)
)
CYCLE = b"\x80\x02}q\0(" + text("a") + b"h\0u."
MODULES = b"\x80\x02cx\nModule\n)\x81q\0}(" + text("_modules") + b"}(" + text("a") + b"h\0uub."
TORCH: Dict[str, Tuple[bytes, str]] = {
    "empty": (b"", "neither"),
    "no torch file": (b"{}" * 100, "neither"),
    "half": (GOOD[: len(GOOD) // 2], "not a zip"),
    "no pickle": (zipped({"x/version": b"3"}), "no data.pkl"),
    "no version": (zipped({"x/data.pkl": state(tensor())}), "no version"),
    "empty pickle": (archive(b""), "not a whole"),
    "no storage": (archive(state(tensor(key="1"))), "no data/1"),
    "path": (archive(state(tensor(key="../../etc/passwd"))), "no data/../../etc/passwd"),
    "long storage": (archive(state(tensor(numel=2**40))), "8 bytes where 4,398,046,511,104 are"),
    "short storage": (archive(state(tensor(numel=1))), "leads out of its storage"),
    "negative storage": (archive(state(tensor(numel=-1))), "without a type or size"),
    "other type": (archive(state(tensor(kind="DoubleStorage"))), "8 bytes where 16 are due"),
    "no type": (archive(state(tensor(kind="XStorage"))), "not a whole"),
    "4 TB": (archive(state(tensor((2**40,)))), "weights take 4,096.00 GiB"),
    "4 TB by stride 0": (archive(state(tensor((2**40,), (0,)))), "weights take 4,096.00 GiB"),
    "16 MB by stride 0": (archive(state(tensor((4 * MIB,), (0,)))), "repeats its numbers"),
    "beyond": (archive(state(tensor((3,)))), "leads out of its storage"),
    "beyond by offset": (archive(state(tensor(offset=1))), "leads out of its storage"),
    "beyond by strides": (archive(state(tensor((2,), (2**61,)))), "leads out of its storage"),
    "negative offset": (archive(state(tensor(offset=-1))), "a tensor of shape"),
    "negative shape": (archive(state(tensor((-2,)))), "a tensor of shape (-2,)"),
    "negative stride": (archive(state(tensor((2,), (-1,)))), "a tensor of shape"),
    "64 dimensions": (archive(state(tensor((1,) * 64, (1,) * 64))), "64 dimensions"),
    "compressed": (
        zipped({"x/data.pkl": state(tensor()), "x/version": b"3"}, zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "bit": (GOOD.replace(bytes(8), bytes(7) + b"\1"), "the checksum of data/0 differs"),
    "twice": (GOOD * 2, "something stands before it"),
    "a comment": (GOOD[:-2] + b"\1\0", "something stands behind it"),
    "memo": (archive(b"\x80\x02}r\xff\xff\xff\xff" + number(1) + b"."), "holds a int"),
    "bytearray": (archive(state(called("builtins.bytearray", number(2**40)))), "expected tensors"),
    "ndarray": (archive(state(called("numpy.ndarray", numbers((2**40,))))), "not a whole"),
    "Tensor": (archive(state(called("torch.FloatTensor", number(2**40)))), "expected tensors"),
    "long text": (archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"."), "text"),
    "long bytes": (archive(b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"."), "not a whole"),
    "deep": (archive(state(DEEP)), "expected tensors"),
    "a million dicts": (archive(b"\x80\x02(" + b"}" * 1_100_000 + b"l."), "1,000,000 objects"),
    "a dict in itself": (archive(CYCLE), "expected tensors"),
    "many of the same": (archive(LAUGHS), "expected tensors"),
    "a network in itself": (archive(MODULES), "hold each other"),
    "long bytes again and again": (
        archive(
            b"\x80\x02" + text("x" * 10 * MIB) + b"q\0"
            + called("_codecs.encode", b"h\0") * 100 + b"."
        ),
        "a text longer than all weights",
    ),
    "a command": (archive(state(called("os.system", text("touch x")))), "os.system, which could"),
    "a later command": (archive(state(tensor() + text("b") + called("posix.system"))), "posix.sy"),
    "attributes of a function": (
        archive(state(b"ctorch\nSize\nN}(" + text("__code__") + b"NutR")),
        "not a whole",
    ),
    "no name": (archive(state(tensor(), key=number(1))), "expected tensors"),
}  # fmt: skip


@pytest.mark.parametrize("attack", TORCH)
def test_files_of_torch_that_lie(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, said = TORCH[attack]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert said in refusal(path)
    assert list(tmp_path.iterdir()) == [path]


def test_keys_that_cannot_be_hashed_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(archive(b"\x80\x02}(" + DEEP + number(1) + text("a") + tensor() + b"u."))
    assert list(read_weights(path, room=ROOM)) == ["a"]


def parts() -> Dict[str, Any]:
    """Tensors in every form that a storage gives."""
    torch.manual_seed(0)
    whole = torch.randn(6, 8)
    return {
        "whole": whole,
        "part": whole[2:4],
        "turned": whole.T,
        "steps": whole[::2, 1::3],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(2, 2).bfloat16(),
        "double": torch.randn(3).double(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "number": torch.tensor(0.5),
        "none": torch.zeros(0, 3),
        "channels": torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("form", ["zip", "before 1.6", "without checksums"])
def test_tensors_are_read_as_torch_does(form: str, tmp_path: Path) -> None:
    path, saved = tmp_path / "x.pth", parts()
    torch.serialization.set_crc32_options(form != "without checksums")
    torch.save(saved, path, _use_new_zipfile_serialization=form != "before 1.6")
    torch.serialization.set_crc32_options(True)
    found, theirs = read_weights(path, room=ROOM), torch.load(path, weights_only=True)
    assert list(found) == list(theirs)
    for name, value in theirs.items():
        expected = value.detach().float().numpy()
        assert found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_older_files_of_torch_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    count = content.rindex(struct.pack("<Q", 3))
    for wrong in (struct.pack("<Q", 2**40), struct.pack("<Q", 2)):
        path.write_bytes(content[:count] + wrong + content[count + 8 :])
        assert "leads out of the file" in refusal(path)
    path.write_bytes(content[:-1])
    assert "leads out of the file" in refusal(path)
    path.write_bytes(content[: count - 20])
    assert "not a whole" in refusal(sparse(path))


# --- lists of pieces ------------------------------------------------------------------------------


def pieces(folder: Path, places: Any) -> Path:
    """A list, and two files: `1.safetensors` with a, `2.safetensors` with b."""
    for number, name in enumerate("ab", 1):
        (folder / f"{number}.safetensors").write_bytes(tensors({name: ONE}, bytes(8)))
    path = folder / "x.safetensors.index.json"
    path.write_text(places if isinstance(places, str) else json.dumps({"weight_map": places}))
    return path


LISTS: Dict[str, Tuple[Any, str]] = {
    "no JSON": ("{", "not a whole"),
    "no list": ("{}", "weight_map"),
    "numbers": ({"a": 1}, "Expected `str`"),
    "above": ({"a": "../1.safetensors"}, "no name of a file beside it"),
    "absolute": ({"a": "/etc/1.safetensors"}, "no name of a file beside it"),
    "NUL": ({"a": "1.safetensors\0"}, "no name of a file beside it"),
    "nothing": ({"a": ""}, "no name of a file beside it"),
    "the folder": ({"a": "."}, "no name of a file beside it"),
    "itself": ({"a": "x.safetensors.index.json"}, "is missing"),
    "absent": ({"a": "3.safetensors"}, "3.safetensors is missing"),
    "elsewhere": ({"a": "2.safetensors"}, "2.safetensors is without a"),
    "many files": ({str(n): f"{n}.safetensors" for n in range(2_000)}, "2,000 files"),
    "many names": ({str(n): "1.safetensors" for n in range(200_000)}, "without 0, 1, 2, 3 and 19"),
    "large": ('{"a": "' + "x" * 17 * MIB + '"}', "more than the 16,777,216 allowed"),
}


@pytest.mark.parametrize("attack", LISTS)
def test_lists_that_lie(attack: str, tmp_path: Path) -> None:
    places, said = LISTS[attack]
    assert said in refusal(pieces(tmp_path, places))


def test_pieces_with_a_tensor_twice(tmp_path: Path) -> None:
    path = pieces(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    assert sorted(read_weights(path, room=ROOM)) == ["a", "b"]
    both = {"b": ONE, "a": entry([2], [8, 16])}
    (tmp_path / "2.safetensors").write_bytes(tensors(both, bytes(16)))
    assert "2.safetensors is again with a" in refusal(path)


@pytest.mark.parametrize("name", ["x.pth", "x.npz", "x.safetensors", "x.index.json", "x.ckpt"])
def test_pipes_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert "a named pipe, no regular file" in refusal(tmp_path / name)
