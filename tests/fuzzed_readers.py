"""The readers of other people's files and words, with good ones, for `test_fuzz_readers.py`.

A new reader is a row of `READERS`.
"""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Sequence, Union

import numpy as np
from mindspore import Parameter, Tensor
from PIL import Image
from test_rank_table import superpod, table_of, template2
from test_report import outcomes

from src.args import parse_args
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.record import read_record
from src.checkpoints.saved_record import parse_record
from src.checkpoints.weight_files import read_weights
from src.data.augment.policy_grammar import parse_policy
from src.data.decode import Decoder
from src.launch.addresses import device_ips, parse_devices
from src.launch.rank_table import check_rank_table
from src.launch.rank_table_files import convert, is_template2, load_table
from src.report.class_names import parse_names, read_labels
from src.report.outcomes import read_outcomes, real_accuracy, write_outcomes
from src.runs.records import Records, read_records
from src.runtime.json_files import parse_json
from src.runtime.npu_smi import parse_cards
from src.runtime.owner import OwnerFile
from src.runtime.plain_numbers import decimal_number
from src.runtime.ranks import read_rank_environment
from src.serving.export_record import ExportRecord
from src.serving.export_record import read_record as read_export
from src.serving.result_files import read_labels as read_label_file
from src.storage.uploads import read_sent


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Attributes:
        read: takes its path; a result, or ValueError or OSError.
        file: its name.
        good: contents that it reads, or what makes one in a folder.
        words: what hostile ones may have in them.
        found: contents that were once read wrong.
    """

    read: Callable[[Path], Any]
    file: str
    good: Sequence[Union[bytes, Callable[[Path], bytes]]]
    words: Sequence[bytes] = ()
    found: Sequence[bytes] = ()

    def __str__(self) -> str:
        return f"{getattr(self.read, '__name__', '').strip('_<>')}-{self.file}"


_NUMBERS = [b"4294967296", b"0.9", b"true", b'"1"', b"-1", b"1e999", b"NaN", b"9" * 5000, b"null"]
_JSON = [*_NUMBERS, b"[" * 3000, b'{"a":' * 3000, b"[]", b"{}", b'"', b",", b"\\ud800", b"\xff"]
_TEXT = [b"\0", b"\x1b[2J", "\u202e".encode(), "\u2028".encode(), b"\r", b"\n\n", b"\xff", b"=1+1"]
_CSV = [*_TEXT, *_NUMBERS, b'"', b'""', b",,", b"'", b"\\u0000", b"\\"]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _of_text(read: Callable[[str], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_bytes().decode("utf-8", "replace"))


def _rank_table(path: Path) -> None:
    table = load_table(path)
    table = convert(table) if is_template2(table) else table
    check_rank_table(table)
    check_rank_table(parse_json(json.dumps(table)))


def _label_file(path: Path) -> None:
    labels = read_label_file(path)
    assert labels.labels.dtype == np.int32
    assert -1 <= labels.labels.min() <= labels.labels.max() < labels.num_classes


def _names(path: Path) -> None:
    names = read_labels(path)
    assert parse_names("\n".join(names), is_json=False) == names


def _records(path: Path) -> None:
    rows = read_records(path)
    if rows and "step" in rows[0] and all(row["step"] for row in rows):
        Records(path.with_name("again.csv"), first_step=0).close()
    for row in rows:
        for column in filter(row.get, ("loss", "lr", "top1")):
            assert row[column] in ("nan", "inf", "-inf") or decimal_number(row[column]) is not None


def _report(path: Path) -> None:
    for image, row in read_outcomes(path.parent).items():
        assert image == row["image"]
        assert row["correct"] in ("0", "1")


def _real(path: Path) -> None:
    accuracy, images = real_accuracy(outcomes(images=4), path)
    assert 0 <= images <= 4
    assert not images or 0 <= accuracy <= 100


def _record(path: Path) -> None:
    record = read_record(path)
    assert record is None or parse_record(_json(record.as_json()), path) == record


def _owner(path: Path) -> None:
    owner = OwnerFile(path).owner()
    if owner is not None:
        owner.is_here()
        assert type(owner.pid) is int


def _export(path: Path) -> None:
    path.with_suffix("").write_bytes(b"exported")
    read_export(path.with_suffix(""))


def _recipe(path: Path) -> None:
    parse_args(["--config", str(path), "--debug"])


def _words(path: Path) -> None:
    words = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    parse_args(["--debug", *(word for word in words if "config" not in word)])


def _environment(path: Path) -> None:
    pairs = (line.partition("=") for line in path.read_text("utf-8", "replace").split("\n"))
    found = read_rank_environment({name: value for name, _, value in pairs})
    assert found is None or 0 <= found.size < 2**31


def _weights(path: Path) -> None:
    for array in read_weights(path).values():
        assert array.dtype == np.float32


def _pictures() -> List[bytes]:
    image = Image.effect_noise((9, 7), 50).convert("RGB")
    found = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        found.append(buffer.getvalue())
    return found


def _written(write: Callable[[Path], Any], name: str) -> Callable[[Path], bytes]:
    def content(folder: Path) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    return content


def _metrics(path: Path) -> None:
    records = Records(path, first_step=0)
    records.write(step=1, epoch=0.5, loss=float("nan"), lr=1e-5)
    records.write(step=2, epoch=1.0, top1=12.5)
    records.close()


def _checkpoint(path: Path) -> None:
    parameter = Parameter(Tensor(np.arange(6, dtype=np.float32).reshape(2, 3)), name="weight")
    save_checkpoint(path, [parameter], {"arch": "cct_2_3x2_32", "step": 3})


def _safetensors() -> bytes:
    header = _json({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}})
    return len(header).to_bytes(8, "little") + header + bytes(24)


def _npz(path: Path) -> None:
    np.savez(path, w=np.zeros((2, 3), np.float32))


def _owner_file(folder: Path) -> bytes:
    owner = OwnerFile(folder / "lock")
    assert owner.take()
    content = owner.path.read_bytes()
    owner.release()
    return content


_EXPORT = {
    name: {} if name in ("transform", "normalisation") else 1
    for name in ExportRecord.__annotations__
}
_LABELS = {"dataset_name": "Digits", "num_classes": 3, "batch_size": 2, "labels": {"a": 0, "b": -1}}
_TABLES = [_json(table) for table in (table_of(), superpod(), template2())]


READERS = (
    Reader(
        _rank_table,
        "table.json",
        _TABLES,
        [*_JSON, '"\uff11"'.encode(), b'"1_0"', b'" 1"'],
        [b"[" * 5000, b'{"version": ' + b"9" * 5000 + b"}"],
    ),
    Reader(
        _label_file,
        "label.json",
        [_json(_LABELS)],
        _JSON,
    ),
    Reader(_names, "names.txt", ["cat\ndog\n犬\n".encode()], _TEXT),
    Reader(_names, "names.json", [_json(["a", "b"]), _json({"0": "a", "1": "b"})], _JSON),
    Reader(
        _records,
        "metrics.csv",
        [_written(_metrics, "metrics.csv")],
        _CSV,
        [b"step,epoch,loss\n1,0.5,x\n", b'step,epoch\n1,"0.5\n', b"step\n" + b"9" * 5000 + b"\n"],
    ),
    Reader(
        _report,
        "images.csv",
        [_written(lambda path: write_outcomes(outcomes(images=4), path), "images.csv")],
        _CSV,
    ),
    Reader(_real, "real.json", [_json([[1], [], [2, 999], [0]])], _JSON, [b'["12", [], [1], [2]]']),
    Reader(
        _of_text(parse_policy),
        "policy",
        [b"rand-m9-mstd0.5-inc1", b"augmix-w3-a0.5", b"original-mstd0.5", b"ta_wide"],
        [*_NUMBERS, *_TEXT, b"-", b"inf", b"tweights", "\u0663".encode(), b"1_0"],
    ),
    Reader(_record, "a.ckpt", [_written(_checkpoint, "a.ckpt")], _JSON),
    Reader(
        read_checkpoint,
        "a.ckpt",
        [_written(_checkpoint, "a.ckpt")],
        [b"\xff" * 9, b"\x80" * 9, b"Float32"],
    ),
    Reader(_weights, "a.safetensors", [_safetensors()], _JSON),
    Reader(_weights, "a.npz", [_written(_npz, "a.npz")], [b"\xff" * 4, b"(9999999999"]),
    Reader(_weights, "a.index.json", [_json({"weight_map": {"w": "b.npz"}})], _JSON, [b"[" * 5000]),
    Reader(
        read_sent,
        ".uploaded.json",
        [_json({"last.ckpt": {"local": [1, 2], "there": 1.5}, "a": {"local": [3], "there": None}})],
        _JSON,
    ),
    Reader(_export, "a.mindir.json", [_json(_EXPORT)], _JSON),
    Reader(_owner, "lock", [_owner_file], [*_JSON, b'"../.."']),
    Reader(
        lambda path: Decoder(max_pixels=10_000).decode(path.read_bytes(), "image"),
        "image",
        _pictures(),
        [b"\xff" * 4, b"\0" * 8, b"IHDR", b"IDAT", zlib.compress(bytes(10**6))],
    ),
    Reader(
        _recipe,
        "recipe.yaml",
        [
            b"arch: cct_2_3x2_32\nepochs: 3\nbatch_size: 4\nmix_up: 0.5\n",
            b"model_args: {num_layers: 2, dropout: 0.1}\nset: Digits\nmean: [1, 2, 3]\n",
        ],
        [*_TEXT, *_NUMBERS, b"&a ", b"*a", b"!!python/object", b"[" * 3000, b"? ", b"<<: "],
    ),
    Reader(
        _words,
        "words",
        [b"--arch\ncct_2_3x2_32\n--epochs=3\n--model_args\n{dropout: 0.1}"],
        [*_TEXT, *_NUMBERS, b"--", b"=", b"\n--epochs\n", b"{", b"[", b"&a", b"\xff"],
    ),
    Reader(
        _environment,
        "environment",
        [b"RANK_SIZE=2\nRANK_ID=1\nRANK_TABLE_FILE=x\nDEVICE_ID=0", b"MS_ROLE=MS_WORKER"],
        [*_TEXT, *_NUMBERS, b"\nRANK_SIZE=", b"\nMS_WORKER_NUM=", b"\nOMPI_COMM_WORLD_SIZE="],
    ),
    Reader(_of_text(parse_devices), "devices", [b"0,1,2,3", b"[0,8)"], [*_NUMBERS, b",", b"-"]),
    Reader(
        lambda path: device_ips([0, 1], hccn_tool=str(path / "none"), hccn_conf=path),
        "hccn.conf",
        [b"address_0=192.168.0.1\naddress_1=192.168.0.2\n"],
        _TEXT,
    ),
    Reader(
        _of_text(parse_cards),
        "npu-smi",
        [b"| 0 910B2 | OK | 9 |\n| 0 | 0000:C1:00.0 | 0 |\n"],
        [*_TEXT, b"|" * 3000, b" " * 3000, b"910" * 1000],
    ),
)
