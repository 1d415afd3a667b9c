"""Checkpoints: whole or not there, and everything in them accounted for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO, List
from unittest import mock

import mindspore
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.checkpoints import checkpoint
from src.checkpoints.checkpoint import (
    load_parameters,
    read_checkpoint,
    save_checkpoint,
)
from src.checkpoints.record import read_record
from src.checkpoints.saved_record import SavedRecord
from src.errors import UserError
from src.runs import folder as run_folder
from src.runs.folder import CheckpointFolder


def parameters(value: float) -> List[Parameter]:
    return [
        Parameter(Tensor(np.full((2, 3), value, np.float32)), name="fc.weight"),
        Parameter(Tensor(np.full((2,), value, np.float32)), name="fc.bias"),
        Parameter(Tensor(np.array(7, np.int32)), name="train.step", requires_grad=False),
    ]


def test_round_trip_keeps_values_types_and_record(tmp_path: Path) -> None:
    record = SavedRecord(step=3, best_top1=0.1, class_names=["中文 # : 1e-4", "\udcff"])
    save_checkpoint(tmp_path / "a.ckpt", parameters(0.1), record.as_json())
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert found.record == record
    target = parameters(5.0)
    load_parameters(target, found, target="test")
    for ours, saved in zip(target, parameters(0.1)):
        np.testing.assert_array_equal(ours.asnumpy(), saved.asnumpy())
        assert ours.dtype == saved.dtype
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_a_failed_save_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, parameters(1.0), {"step": 1})

    def half_then_full_disk(file: BinaryIO, *_: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", half_then_full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, parameters(2.0), {"step": 2})
    monkeypatch.undo()
    assert read_checkpoint(path).record.step == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_best_and_epochs_survive_the_next_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, save_every=2, keep_max=2)
    for epoch in range(1, 9):
        folder.save(parameters(epoch), SavedRecord(step=epoch), epoch=epoch, is_best=epoch == 3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.ckpt", "epoch_006.ckpt", "epoch_008.ckpt", "last.ckpt"]
    held = {name: read_checkpoint(tmp_path / name).record.step for name in names}
    assert held == {"best.ckpt": 3, "epoch_006.ckpt": 6, "epoch_008.ckpt": 8, "last.ckpt": 8}


def test_save_every_0_keeps_no_epoch(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, save_every=0, keep_max=1)
    folder.save(parameters(1), SavedRecord(step=1), epoch=1, is_best=False)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_file_system_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(run_folder.os, "link", refuse)
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
    folder.save(parameters(1), SavedRecord(step=1), epoch=1, is_best=True)
    folder.save(parameters(2), SavedRecord(step=2), epoch=2, is_best=False)
    assert read_checkpoint(tmp_path / "best.ckpt").record.step == 1
    assert len(os.listdir(tmp_path)) == 3


def test_each_reason_has_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, parameters(1.0), {"step": 1})
    data = path.read_bytes()
    cases = {
        "renamed.ckpt.bak": (data, "a checkpoint whose name must end in .ckpt; rename it"),
        "notes.txt": (b"text", "no MindSpore checkpoint; give the path of a .ckpt file"),
        "torch.pth": (b"PK", "no MindSpore checkpoint; scripts/convert_weights.py makes one of it"),
        "empty.ckpt": (b"", r"damaged \(an empty file\); copy it again"),
        "half.ckpt": (
            data[:40],
            r"damaged \(its end is missing\); copy it again, or give .*a.ckpt, the newest",
        ),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}': {words}"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.ckpt': no such file; give the path of a \.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match=r": a folder; give a file in it: .*a\.ckpt"):
        read_checkpoint(tmp_path)
    for number, words in (
        (errno.EACCES, r"cannot be read \(Permission denied\); as its owner: chmod \+r"),
        (errno.EIO, r"cannot be read \(Input/output error\); try again, or give another one"),
    ):
        failing = mock.Mock(side_effect=OSError(number, os.strerror(number)))
        monkeypatch.setattr(checkpoint, "open_regular", failing)
        with pytest.raises(UserError, match=words):
            read_checkpoint(path)


def test_the_record_is_read_past_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    record = SavedRecord(source="中文", names=["best.ckpt"], class_names=["x" * 1000] * 100)
    large = Parameter(Tensor(np.zeros((3000, 70), np.float32)), name="x" * 300)
    save_checkpoint(path, [*parameters(0.1), large], record.as_json())
    assert read_record(path) == record
    data = path.read_bytes()
    for size in (0, 1, 20, len(data) - 1):
        path.write_bytes(data[:size])
        assert read_record(path) is None
    mindspore.save_checkpoint([{"name": "w", "data": large}], str(path))
    assert read_record(path) == SavedRecord()
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="byte 0 is not as in a MindSpore checkpoint"):
        read_record(path)


def test_mismatch_names_both_sides_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, parameters(1.0), {"arch": "cct_2_3x2_32", "num_classes": 2})
    target = [
        Parameter(Tensor(np.zeros((4, 3), np.float32)), name="fc.weight"),
        Parameter(Tensor(np.zeros((4,), np.float32)), name="norm.gamma"),
    ]
    with pytest.raises(UserError) as caught:
        load_parameters(target, read_checkpoint(path), target="arch y")
    message = str(caught.value)
    assert message.startswith(f"checkpoint {path} (cct_2_3x2_32, 2 classes) does not fit")
    for part in ("arch y", "1 missing: norm.gamma", "1 unexpected: fc.bias"):
        assert part in message
    assert "fc.weight (2, 3) where (4, 3) is due" in message
    assert "train.step" not in message
    assert not np.any(target[0].asnumpy())


def test_resume_chooses_and_refuses(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, save_every=1, keep_max=1)
    assert folder.find_resumed("auto") is None
    assert folder.find_resumed(None) is None
    with pytest.raises(UserError, match="no such file"):
        folder.find_resumed(str(tmp_path / "other.ckpt"))
    folder.save(parameters(1), SavedRecord(step=3), epoch=1, is_best=False)
    found = folder.find_resumed("auto")
    assert found is not None
    assert found.record.step == 3
    with pytest.raises(UserError, match="--resume auto"):
        folder.find_resumed(None)
    save_checkpoint(tmp_path / "weights.ckpt", parameters(1), {})
    with pytest.raises(UserError, match="--pretrained"):
        folder.find_resumed(str(tmp_path / "weights.ckpt"))
