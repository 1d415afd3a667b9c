"""The record of a checkpoint: every field has a type and a range, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from mindspore import Parameter, Tensor

import eval as eval_program
from src import args
from src.args import Config, from_saved_text, parse_args, replace, to_yaml
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.saved_record import FORMAT, MOST_CLASSES, SavedRecord, parse_record
from src.checkpoints.tensor_file import DamagedCheckpoint, write_tensors
from src.errors import UserError
from src.models.registry import list_models

RECIPE = to_yaml(replace(parse_args([]), num_classes=2))
# As the current version saves it, every field said.
WHOLE: Dict[str, Any] = {
    "arch": "cct_2_3x2_32",
    "num_classes": 2,
    "config": RECIPE,
    "versions": {"mindspore": "2.10.0"},
    "step": 8,
    "best_top1": 51.5,
    "best_score": 0.75,
    "best_epoch": 1,
    "overflows": 0,
    "world_size": 2,
    "steps_per_epoch": 4,
    "names": ["best.ckpt", "epoch_002.ckpt"],
    "class_names": ["猫", "dog\udcff"],  # a name that is no UTF-8
    "images_per_class": [3, 0],
    "class_weights": "abcdef0123456789" * 4,
    "class_order": "natural",
    "img_size": 32,
    "source": "x.pth",
    "sha256": "0123456789abcdef" * 4,
    "published": "timm/x.in1k",
    "licence": "mit",
    "started_from": "timm/x.in12k",
    "changes": [],
    "naming": "timm",
    "ema": True,
    "averaged": ["a.ckpt"],
    "format": FORMAT,
}
# What the first version saved, and weights of scripts/convert_weights.py without positions.
FIRST = {key: WHOLE[key] for key in "arch num_classes step best_top1 best_epoch config".split()}
CONVERTED = {"arch": "cct_2_3x2_32", "num_classes": 2, "img_size": None, "naming": "timm"}

WRONG = [
    ("arch", "../x", "its record says arch '../x': unknown architecture"),
    ("arch", "cct_2_3x2_33", "did you mean 'cct_2_3x2_32'"),
    ("arch", 7, "Expected `str | null`, got `int`"),
    ("arch", "x" * 10**6, "length <= 200"),
    ("num_classes", -1, ">= 0"),
    ("num_classes", 10**9, "<= 1000000"),
    ("num_classes", 2.0, "got `float`"),
    ("num_classes", True, "got `bool`"),
    ("num_classes", 3, "num_classes 3, class_names 2, images_per_class 2"),
    ("config", "a" * 10**7, "length <= 262144"),
    ("config", RECIPE.replace("image_size: 0", "image_size: -4"), "image_size: -4 is not allowed"),
    ("config", RECIPE.replace("batch_size: 128", "batch_size: 0"), "batch_size: 0 is not allowed"),
    ("config", "no_such_key: 1\n", "no_such_key"),
    ("config", "arch: !!python/object:os.system {}\n", "tags are not allowed"),
    ("config", {"arch": "x"}, "got `object`"),
    ("versions", {"mindspore": 2}, "got `int`"),
    ("step", -1, ">= 0"),
    ("step", 10**30, "<= 1000000000000"),
    ("step", "8", "got `str`"),
    ("best_top1", float("nan"), "NaN is no number"),
    ("best_top1", float("inf"), "Infinity is no number"),
    ("best_top1", 100.5, "<= 100"),
    ("best_score", -0.5, ">= 0"),
    ("best_epoch", -2, ">= 0"),
    ("overflows", 0.5, "got `float`"),
    ("changes", [{"step": -1, "what": []}], ">= 0"),
    ("changes", [{"step": 1, "what": ["x" * 10**5]}], "length <= 4096"),
    ("world_size", 0, ">= 1"),
    ("steps_per_epoch", 0, ">= 1"),
    ("names", ["../../best.ckpt"], "matching regex"),
    ("names", ["/etc/best.ckpt"], "matching regex"),
    ("names", ["best.ckpt\n"], "matching regex"),
    ("class_names", ["a", ""], "length >= 1"),
    ("class_names", ["a", "b\0"], "matching regex"),
    ("class_names", ["a", "x" * 10**5], "length <= 1024"),
    ("class_names", ["a"], "num_classes 2, class_names 1"),
    ("class_names", "ab", "got `str`"),
    ("class_names", [None, "a"], "got `null`"),
    ("images_per_class", [1, -1], ">= 0"),
    ("images_per_class", [1], "images_per_class 1"),
    ("class_order", "random", "Invalid enum value 'random'"),
    ("img_size", 10**6, "<= 100000"),
    ("source", "x" * 10**5, "length <= 4096"),
    ("naming", ["timm"], "got `array`"),
    ("ema", 1, "got `int`"),
    ("averaged", "a.ckpt", "got `str`"),
    ("sha256", "0123", "matching regex"),
    ("class_weights", "w.csv", "matching regex"),
    ("published", 7, "got `int`"),
    ("licence", ["mit"], "got `array`"),
    ("started_from", 1, "got `int`"),
    ("format", 0, ">= 1"),
    ("format", FORMAT + 1, f"of a newer version than this, which reads up to {FORMAT}; update"),
]


EVERY_KEY = Path(__file__).resolve().parent / "fixtures" / "every_key.yaml"


def content(record: Any) -> bytes:
    return json.dumps(record).encode()


def parameters() -> Any:
    return [Parameter(Tensor(np.ones(3, np.float32)), name="weight")]


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    record = SavedRecord(**WHOLE)
    assert set(WHOLE) == {field.name for field in fields(SavedRecord)}
    save_checkpoint(tmp_path / "a.ckpt", parameters(), record.as_json())
    assert read_checkpoint(tmp_path / "a.ckpt").record == record


@pytest.mark.parametrize("older", [{}, FIRST, CONVERTED])
def test_older_records_lack_keys_and_newer_ones_have_more(older: Dict[str, Any]) -> None:
    record = parse_record(content({**older, "of_a_newer_version": [1]}), Path("x.ckpt"))
    assert record.as_json() == SavedRecord(**older).as_json()
    assert (record.world_size, record.overflows, record.names) == (1, 0, None)


def test_every_architecture_is_known() -> None:
    for arch in list_models():
        assert parse_record(content({"arch": arch}), Path("x.ckpt")).arch == arch


def test_every_field_is_wrong_once() -> None:
    assert {key for key, _, _ in WRONG} == {field.name for field in fields(SavedRecord)}


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=lambda value: str(value)[:20])
def test_a_wrong_field_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_record(content({**WHOLE, key: value}), Path("x.ckpt"))
    message = str(caught.value)
    assert words in message
    assert "x.ckpt" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 500


@pytest.mark.parametrize("text", ["", "[]", "{", "7", '{"step": 1, "step": 2}', "[" * 10**5])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint 'x\.ckpt': damaged \(its record: "):
        parse_record(text.encode(), Path("x.ckpt"))


def test_ten_million_classes_are_refused() -> None:
    names = b'{"class_names": [' + b'"a",' * MOST_CLASSES + b'"a"]}'
    with pytest.raises(DamagedCheckpoint, match="length <= 1000000"):
        parse_record(names, Path("x.ckpt"))


def test_a_program_says_it_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.ckpt"
    with path.open("wb") as file:
        write_tensors(file, content({**WHOLE, "step": -1}), [("weight", np.ones(3, np.float32))])
    assert eval_program.main(["--pretrained", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: checkpoint '{path}': damaged (its record: Expected `int` >= 0")
    assert error.count("\n") == 1


def test_every_key_that_a_checkpoint_may_hold_is_known() -> None:
    """Each stays in that file for ever; one that is renamed or dropped goes into args._FORMER."""
    text = EVERY_KEY.read_text()
    from_saved_text(text, "old.ckpt")
    missing = set(Config().flat()) - {line.partition(":")[0] for line in text.splitlines()}
    assert not missing, f"add them to {EVERY_KEY}"


def test_keys_that_were_renamed_or_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(args, "_FORMER", {"learning_rate": "base_lr", "bells": None})
    old = to_yaml(Config()).replace("base_lr:", "learning_rate:") + "bells: 3\n"
    record = parse_record(content({"config": old}), Path("x.ckpt"))
    assert record.recipe("x") == Config()
    with pytest.raises(UserError, match="never_there"):
        from_saved_text("never_there: 1\n", "x.ckpt")


def test_a_newer_format_may_be_otherwise_in_all_else() -> None:
    with pytest.raises(UserError, match=f"format {FORMAT + 1}, of a newer version"):
        parse_record(content({"format": FORMAT + 1, "arch": 7}), Path("x.ckpt"))
