"""Files that are whole or not there, and the words of an error."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import List

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.checkpoints.checkpoint import save_checkpoint
from src.errors import UserError, nearest, on_one_line, some_of, suggestion
from src.models.registry import list_models
from src.runtime import files
from src.runtime.files import (
    check_output,
    check_output_folder,
    file_sha256,
    finish_renames,
    give_mode_of_new_file,
    remove_unfinished,
    replacing,
    unused,
    write_whole,
)


def names(folder: Path) -> list:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("broken"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(
    error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "run[1].ckpt"
    path.write_bytes(b"old")

    def write() -> None:
        with replacing(path) as draft:
            assert draft.suffix == ".ckpt"
            assert draft.name.startswith(".")  # of no interest to uploads and listings
            draft.write_bytes(b"half")
            draft.with_name(f"{draft.stem}_of_a_library").touch()
            raise error

    with pytest.raises(type(error)):
        write()
    assert (names(tmp_path), path.read_bytes()) == ([path.name], b"old")


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert (names(tmp_path), path.read_text()) == (["a.json"], "first")


def test_what_must_be_on_the_disk_is_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    flushed = []
    monkeypatch.setattr(files, "_flush", lambda place: flushed.append((place, path.exists())))
    with replacing(path, to_disk=True) as draft:
        pass
    assert flushed == [(draft, False), (tmp_path, True)]


def test_the_error_names_the_file_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.json"
    with pytest.raises(NotADirectoryError) as caught:
        write_whole(path, b"")
    assert caught.value.filename == str(path)
    parameter = Parameter(Tensor(np.zeros(2, np.float32)), name="weight")
    with pytest.raises(OSError, match=r"Not a directory: .*b\.ckpt"):
        save_checkpoint(path.with_name("b.ckpt"), [parameter], {})
    save_checkpoint(tmp_path / "b.ckpt", [parameter], {})
    assert names(tmp_path) == ["b.ckpt", "file"]
    assert "weight" in ms.load_checkpoint(str(tmp_path / "b.ckpt"))


def test_what_a_killed_process_left_is_removed_and_nothing_of_others(tmp_path: Path) -> None:
    kept = [".epoch_003_good.0123abcd.tmp.ckpt", ".last.0123abcd.ckpt", ".last.ckpt.swp"]
    kept += [".uploaded.json", "last.ckpt", ".last.0123abcg.tmp.ckpt", ".my last.0123abcd.tmp.ckpt"]
    gone = [".last.0123abcd.tmp.ckpt", ".last.0123abcd.tmp.tmp", ".epoch_003.89abcdef.tmp.ckpt"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    (tmp_path / ".last.01234567.tmp.ckpt").mkdir()
    remove_unfinished(tmp_path, "last|epoch_[0-9]+")
    assert names(tmp_path) == sorted([*kept, ".last.01234567.tmp.ckpt"])


def test_what_a_kill_between_two_renames_left_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.before").write_text("old")
    (tmp_path / ".best.ckpt.before").write_text("older")
    (tmp_path / "best.ckpt").write_text("new")
    (tmp_path / ".notes.before").write_text("the user's")
    finish_renames(tmp_path, r"(?:last|best)\.ckpt")
    assert names(tmp_path) == [".notes.before", "best.ckpt", "last.ckpt"]
    assert (tmp_path / "last.ckpt").read_text() == "old"
    assert (tmp_path / "best.ckpt").read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_counts(umask: int, tmp_path: Path) -> None:
    """POSIX open(): the mode of a new file is 0666 without the bits of the umask."""
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a.json", b"{}")
        parameter = Parameter(Tensor(np.zeros(2, np.float32)), name="weight")
        save_checkpoint(tmp_path / "b.ckpt", [parameter], {})
        (tmp_path / "of_a_library").touch(0o400)
        give_mode_of_new_file(tmp_path / "of_a_library")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a.json", "b.ckpt", "of_a_library"), 0o666 & ~umask)


def test_a_name_of_any_allowed_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")  # 255 bytes, NAME_MAX of POSIX systems
    write_whole(path, b"{}")
    assert names(tmp_path) == [path.name]


def test_outputs_are_refused_before_any_work(tmp_path: Path) -> None:
    check_output("output", Path("here.png"), ".png", ".PNG")
    check_output("output", tmp_path / "any")
    with pytest.raises(UserError, match=r"output '.*a\.jpg': expected a \.png file"):
        check_output("output", tmp_path / "a.jpg", ".png", ".PNG")
    with pytest.raises(UserError, match=r"json '.*': no such folder"):
        check_output("json", tmp_path / "none" / "a.json")
    with pytest.raises(UserError, match=r"json '.*': is a folder"):
        check_output("json", tmp_path)
    (tmp_path / "file").touch()
    check_output_folder("report", tmp_path / "new" / "folder")
    for given in (tmp_path / "file" / "folder", tmp_path / "file", Path("/proc/x")):
        with pytest.raises(UserError, match=r"report '.*': .* cannot be written .*; give another"):
            check_output_folder("report", given)
    assert names(tmp_path) == ["file"]


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for due in ("a.png", "a_2.png", "a_3.png"):
        path = unused(tmp_path / "a.png")
        assert path.name == due
        path.touch()


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    data = os.urandom((1 << 22) + 17)
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("epocs", ["epochs"]),
        ("Batch-Size", ["batch_size"]),
        ("deit_small", ["deit_small_patch16_224", "deit_small_patch16_384"]),
        ("--sed", ["--seed"]),
        *(("nosuch", []), ("learning_rate", []), ("ep", []), ("", []), ("\u6570", [])),
    ],
)
def test_what_may_be_meant(word: str, meant: List[str]) -> None:
    known = ["epochs", "batch_size", "decay_rate", "--seed", *list_models()]
    assert nearest(word, known, most=2) == meant
    shown = " or ".join(f"'{name}'" for name in meant)
    assert suggestion(word, known, "none", most=2) == (
        f"did you mean {shown}?" if meant else "none"
    )


def test_every_suggestion_is_of_one_making() -> None:
    root = Path(__file__).resolve().parent.parent
    sources = [*root.glob("*.py"), *(root / "scripts").glob("*.py"), *(root / "src").rglob("*.py")]
    named = [
        path for path in sources if re.search(r"difflib|did you mean", path.read_text("utf-8"))
    ]
    assert named == [root / "src" / "errors.py"]


def test_words_of_errors() -> None:
    assert on_one_line(ValueError("a\n  b\t c")) == "a b c"
    assert on_one_line("x" * 300) == "x" * 200
    assert on_one_line(KeyError()) == "KeyError"
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(list("abcdef")) == "a, b, c, d and 2 more"
    assert some_of(["x y", "z", "w"], 1, "; ") == "x y and 2 more"
