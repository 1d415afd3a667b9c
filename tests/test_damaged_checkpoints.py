"""Checkpoint files that are not as they were written: refused in one line, whatever is changed.

MindSpore's own reader, writer and protobuf classes are what ours is compared with.
"""

from __future__ import annotations

import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Dict, List

import mindspore
import numpy as np
import pytest
import xxhash
from mindspore import Parameter, Tensor
from mindspore.train import serialization
from mindspore.train.checkpoint_pb2 import Checkpoint as Messages

from src.checkpoints import tensor_file
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.record import read_record
from src.checkpoints.saved_record import SavedRecord
from src.checkpoints.tensor_file import DIGEST, META, DamagedCheckpoint, is_whole
from src.errors import UserError
from src.runtime.memory import Allowance

Change = Callable[[Messages], Any]

TYPES = ["bool_", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
TYPES += ["float16", "float32", "float64"]


def tensors() -> List[Parameter]:
    random = np.random.default_rng(1)
    shapes = {"conv.weight": (3, 2, 2), "norm.gamma": (7,), "fc.weight": (2, 7), "fc.bias": (2,)}
    arrays = {name: random.uniform(1, 2, shape) for name, shape in shapes.items()}
    weights = [Parameter(Tensor(a.astype(np.float32)), name=name) for name, a in arrays.items()]
    return [*weights, Parameter(Tensor(np.int32(7)), name="train.step", requires_grad=False)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.ckpt"
    save_checkpoint(path, tensors(), {"arch": "cct_x", "num_classes": 2, "step": 3})
    return path.read_bytes()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("foreign") / "x.ckpt"
    mindspore.save_checkpoint([{"name": p.name, "data": p} for p in tensors()], str(path))
    return path.read_bytes()


def refusal(path: Path, content: bytes) -> str:
    """The line that a file of these bytes is refused with."""
    path.write_bytes(content)
    return refusal_of(path)


def refusal_of(path: Path) -> str:
    assert not is_whole(path)
    with pytest.raises(UserError) as refused:
        read_checkpoint(path)
    said = str(refused.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def flipped(content: bytes, index: int) -> bytes:
    """One bit of the byte at `index` changed; which one goes round."""
    draft = bytearray(content)
    draft[index] ^= 1 << index % 8
    return bytes(draft)


def test_no_byte_can_be_changed(ours: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    for index in range(len(ours)):
        path.write_bytes(flipped(ours, index))
        with pytest.raises(DamagedCheckpoint):
            read_checkpoint(path)
    path.write_bytes(ours)
    assert is_whole(path)


def test_no_byte_can_be_missing_added_or_zeroed(ours: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    for size in range(len(ours)):
        assert "damaged" in refusal(path, ours[:size])
        assert read_record(path) is None
    for more in (b"\0", b"\n", b"crc_num" + bytes(10), ours):
        assert "damaged" in refusal(path, ours + more)
    random = np.random.default_rng(2)
    for _ in range(50):
        start, size = random.integers(len(ours)), random.integers(2, 200)
        zeroed = bytearray(ours)
        zeroed[start : start + size] = bytes(len(zeroed[start : start + size]))
        assert "damaged" in refusal(path, bytes(zeroed))


def swap(messages: Messages) -> None:
    a, b = messages.value[1].tensor, messages.value[2].tensor
    a.tensor_content, b.tensor_content = b.tensor_content, a.tensor_content


def of(messages: Messages, name: str) -> Any:
    return next(value for value in messages.value if value.tag == name).tensor


def tensor_of(content: bytes, name: str = META) -> Any:
    value = Messages().value.add()
    value.tag, value.tensor.tensor_type, value.tensor.tensor_content = name, "UInt8", content
    value.tensor.dims.append(len(content))
    return value


EDITS: Dict[str, Change] = {
    "contents of two tensors swapped": swap,
    "names of two tensors swapped": lambda m: (
        setattr(m.value[1], "tag", m.value[2].tag),
        setattr(m.value[2], "tag", "conv.weight"),
    ),
    "a tensor twice": lambda m: m.value.add().CopyFrom(m.value[1]),
    "a tensor twice, before the end": lambda m: m.value.insert(2, m.value[1]),
    "a tensor behind the digest": lambda m: m.value.append(tensor_of(b"more", "more")),
    "a tensor missing": lambda m: m.value.__delitem__(2),
    "order": lambda m: m.value.reverse(),
    "type": lambda m: setattr(of(m, "fc.weight"), "tensor_type", "Int32"),
    "dims": lambda m: of(m, "fc.weight").dims.reverse(),
    "record": lambda m: setattr(of(m, META), "tensor_content", b'{"arch": "cct_x", "step": 9}'),
    "no record": lambda m: m.value.__delitem__(0),
    "no digest": lambda m: m.value.__delitem__(-1),
    "another digest": lambda m: setattr(of(m, DIGEST), "tensor_content", bytes(16)),
    "a shorter digest": lambda m: setattr(of(m, DIGEST), "tensor_content", b""),
    "a larger digest": lambda m: setattr(of(m, DIGEST), "tensor_content", bytes(17)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_passes(edit: str, ours: bytes, tmp_path: Path) -> None:
    messages = Messages.FromString(ours)
    assert messages.SerializeToString() == ours
    EDITS[edit](messages)
    assert "damaged" in refusal(tmp_path / "x.ckpt", messages.SerializeToString())


def with_dims(*dims: int) -> Change:
    def change(messages: Messages) -> None:
        tensor = of(messages, "fc.weight")
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return change


def with_content(size: int) -> Change:
    return lambda m: setattr(of(m, "fc.weight"), "tensor_content", bytes(size))


def map_parameter(messages: Messages) -> None:
    value = messages.value[1]
    value.maptensor.tensor.add().CopyFrom(of(messages, "fc.bias"))


# Of a file without a digest, and words of the refusal.
STRUCTURES = {
    "more dims": (with_dims(2**40), r"'fc.weight' has 56 bytes, and dims \(1099511627776,\)"),
    "dims beyond int64": (with_dims(2**62, 2**62, 2**62), "'fc.weight' has 56 bytes"),
    "a negative one": (with_dims(-2, -7), "a negative length or dimension"),
    "no elements": (with_dims(2, 0, 7), "'fc.weight' has 56 bytes, and dims"),
    "a scalar of 56 bytes": (with_dims(0), "'fc.weight' has 56 bytes, and dims"),
    "40 dims": (with_dims(*[1] * 40), "'fc.weight' has more than 16 dimensions"),
    "shorter": (with_content(52), "'fc.weight' has 52 bytes, and dims"),
    "longer": (with_content(60), "'fc.weight' has 60 bytes, and dims"),
    "empty": (with_content(0), "'fc.weight' has 0 bytes, and dims"),
    "a smaller type": (
        lambda m: setattr(of(m, "fc.weight"), "tensor_type", "Float16"),
        "'fc.weight' has 56 bytes, and dims",
    ),
    "no bool": (
        lambda m: (with_dims(56)(m), setattr(of(m, "fc.weight"), "tensor_type", "Bool")),
        "'fc.weight' has other values than true and false",
    ),
    "an unknown type": (
        lambda m: setattr(of(m, "fc.weight"), "tensor_type", "Int4"),
        "'fc.weight' is of type 'Int4', which is not known",
    ),
    "twice": (lambda m: m.value.add().CopyFrom(m.value[1]), "two tensors are called 'norm.gamma'"),
    "a long name": (lambda m: setattr(m.value[1], "tag", "x" * 10**5), "a name of 100000 bytes"),
    "a map": (map_parameter, "byte .* is not as in a MindSpore checkpoint"),
    "a record that is no JSON": (
        lambda m: m.value.add().CopyFrom(tensor_of(b"{NaN}")),
        "its record: ",
    ),
    "a long record": (
        lambda m: m.value.add().CopyFrom(tensor_of(b" " * 2**24 + b"{}")),
        "a record of 16,777,218 bytes",
    ),
}


@pytest.mark.parametrize("attack", STRUCTURES)
def test_without_a_digest_the_structure_is_compared(
    attack: str, foreign: bytes, tmp_path: Path
) -> None:
    change, words = STRUCTURES[attack]
    messages = Messages.FromString(foreign)
    change(messages)
    path = tmp_path / "x.ckpt"
    path.write_bytes(messages.SerializeToString())
    tracemalloc.start()
    with pytest.raises(DamagedCheckpoint, match=words):
        read_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 + 2 * path.stat().st_size


@pytest.mark.parametrize("part", [b"\x12\x47", b"\x1a\x38"])  # of fc.weight: tensor, content
def test_lengths_within_lengths_are_compared(part: bytes, foreign: bytes, tmp_path: Path) -> None:
    assert foreign.count(part) == 1
    shorter = foreign.replace(part, bytes([part[0], part[1] - 1]))
    said = refusal(tmp_path / "x.ckpt", shorter)
    assert "'fc.weight' has parts of different lengths" in said


def test_a_foreign_file_with_a_bit_changed_ends_in_one_line_or_is_read(
    foreign: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lengths among them: byte 1 and others are those of the messages."""
    path, said = tmp_path / "x.ckpt", []
    for index in range(len(foreign)):
        path.write_bytes(flipped(foreign, index))
        try:
            read_checkpoint(path)
        except UserError as error:
            said.append(str(error))
    assert len(said) > len(foreign) // 3
    assert not [line for line in said if "\n" in line]
    caplog.clear()
    path.write_bytes(foreign)
    with caplog.at_level(logging.WARNING):
        read_checkpoint(path)
    assert caplog.messages == [
        f"checkpoint {path}: without a digest (an older version's, or MindSpore's own file), so "
        "changed numbers would not be noticed; whatever is saved from here on has one"
    ]


def test_an_older_file_of_ours_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its record is the last tensor, and it has no digest."""
    path, record = tmp_path / "x.ckpt", np.frombuffer(b'{"step": 3}', np.uint8)
    listed = [{"name": p.name, "data": p} for p in tensors()]
    mindspore.save_checkpoint([*listed, {"name": META, "data": Tensor(record)}], str(path))
    found = read_checkpoint(path)
    assert found.record == read_record(path) == SavedRecord(step=3)
    assert list(found.tensors) == [p.name for p in tensors()]
    content = path.read_bytes()
    path.chmod(0o600)
    for size in (len(content) - 20, content.index(b"fc.weight") + 50):
        path.write_bytes(content[:size])
        assert read_record(path) is None
    assert "changed numbers would not be noticed" in caplog.text


def test_a_scalar_as_mindspore_2_0_writes_it(foreign: bytes, tmp_path: Path) -> None:
    messages = Messages.FromString(foreign)
    of(messages, "train.step").dims.append(0)
    path = tmp_path / "x.ckpt"
    path.write_bytes(messages.SerializeToString())
    assert read_checkpoint(path).tensors["train.step"].shape == ()
    assert mindspore.load_checkpoint(str(path))["train.step"].shape == ()


def test_two_tensors_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two tensors are called 'fc\.bias'"):
        save_checkpoint(tmp_path / "x.ckpt", [*tensors(), tensors()[3]], {})
    assert not list(tmp_path.iterdir())


def test_the_digest_is_where_the_page_says(ours: bytes) -> None:
    """docs/checkpoints.md"""
    assert xxhash.xxh3_128(ours[:-45]).digest() == ours[-16:]


def test_a_file_of_holes_is_not_read(foreign: bytes, tmp_path: Path) -> None:
    messages = Messages.FromString(foreign)
    messages.value[0].tensor.dims.append(2**32)
    path = tmp_path / "x.ckpt"
    path.write_bytes(messages.SerializeToString())
    os.truncate(path, 2**34)
    assert "of its 17,179,869,184 bytes 4,096 have been written" in refusal_of(path)


def test_more_than_memory_holds_is_not_read(
    ours: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(ours)
    monkeypatch.setattr(tensor_file, "host_allowance", lambda: Allowance(99, "ulimit -v allows"))
    words = f"cannot be read \\({len(ours)} bytes; ulimit -v allows 99\\)"
    with pytest.raises(UserError, match=words):
        read_checkpoint(path)


def of_every_type() -> Dict[str, Tensor]:
    values = np.arange(-3, 3)
    held = {name: Tensor(values.astype(getattr(np, name))) for name in TYPES}
    held["scalar"] = Tensor(np.float32(2.5))
    if hasattr(mindspore, "bfloat16"):
        held["bfloat16"] = Tensor(np.float32([1.5, -3e38, 1e-40]), mindspore.bfloat16)
    return held


def test_every_type_of_mindspores_writer_is_read(tmp_path: Path) -> None:
    path, held = tmp_path / "x.ckpt", of_every_type()
    listed: List[Dict[str, Any]] = [{"name": name, "data": held[name]} for name in held]
    more = {"epoch": 3, "rate": 0.5, "said": "a text"}
    mindspore.save_checkpoint(listed, str(path), append_dict=more)
    theirs = mindspore.load_checkpoint(str(path))
    found = read_checkpoint(path).tensors
    assert {*found, "said"} == set(theirs)
    for name, tensor in found.items():
        assert tensor.dtype == (mindspore.float32 if name == "bfloat16" else theirs[name].dtype)
        assert tensor.shape == theirs[name].shape
        due = theirs[name].asnumpy()
        due = due.astype(np.float32) if name == "bfloat16" else due
        np.testing.assert_array_equal(tensor.asnumpy(), due)


def test_every_type_is_written_as_mindspore_reads_it(tmp_path: Path) -> None:
    path, held = tmp_path / "x.ckpt", of_every_type()
    save_checkpoint(path, [Parameter(held[name], name=name) for name in held], {"step": 1})
    theirs = mindspore.load_checkpoint(str(path))
    assert list(theirs) == [META, *held, DIGEST]
    for name, tensor in held.items():
        assert theirs[name].dtype == tensor.dtype
        np.testing.assert_array_equal(theirs[name].asnumpy(), tensor.asnumpy())


def test_slices_and_a_checksum_of_mindspores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A tensor beyond half a GiB is written in slices; `crc_check` adds a checksum."""
    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB
    path, large = tmp_path / "x.ckpt", np.random.default_rng(3).random((500, 3), np.float32)
    listed = [{"name": name, "data": Tensor(large)} for name in ("a", "b")]
    mindspore.save_checkpoint(listed, str(path))
    whole = path.read_bytes()
    assert len(Messages.FromString(whole).value) > 4
    np.testing.assert_array_equal(read_checkpoint(path).tensors["b"].asnumpy(), large)
    messages = Messages.FromString(whole)
    del messages.value[2]
    assert "'a' has " in refusal(path, messages.SerializeToString())
    messages = Messages.FromString(whole)
    messages.value[1].tensor.tensor_content += bytes(len(whole))
    assert "'a' has " in refusal(path, messages.SerializeToString())
    try:
        mindspore.save_checkpoint(listed, str(tmp_path / "y.ckpt"), crc_check=True)
    except TypeError:
        return  # MindSpore 2.0 has none
    caplog.clear()
    found = read_checkpoint(tmp_path / "y.ckpt").tensors
    np.testing.assert_array_equal(found["a"].asnumpy(), large)
    assert not caplog.messages
    content = (tmp_path / "y.ckpt").read_bytes()
    assert "its checksum is another one" in refusal(path, flipped(content, len(content) - 20))
