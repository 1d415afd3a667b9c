"""What others have written is read only where it is a file, and only as much as allowed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Annotated, Callable, Dict, Iterator
from unittest import mock

import msgspec
import pytest

from src.data import main_guard
from src.errors import UserError
from src.launch.supervisor import tail
from src.runs import fonts
from src.runtime import native_library
from src.runtime.json_files import parse_json, parse_typed
from src.runtime.owner import OwnerFile
from src.runtime.regular_files import (
    FileTooLarge,
    NoRegularFile,
    open_regular,
    read_regular,
    read_text,
    require_regular,
)
from src.storage.uploads import RunMirror
from src.trainer import forensics


@pytest.fixture(autouse=True)
def impatience() -> Iterator[None]:
    """What waits for the other end of a pipe fails after half a minute."""

    def give_up(*_: object) -> None:
        raise AssertionError("still waiting")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_pipes_sockets_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("pipe")
        start = time.monotonic()
        for name in ("pipe", "link", "socket", "folder", "/dev/zero", "/dev/stdin"):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - a socket has errno ENXIO
                read_regular(tmp_path / name, 100)
            assert caught.value.strerror
    assert time.monotonic() - start < 2
    with pytest.raises(NoRegularFile, match="a socket, no regular file"):
        open_regular(tmp_path / "socket", 100)
    with pytest.raises(NoRegularFile, match="a named pipe, no regular file"):
        open_regular(tmp_path / "link", 100)


def test_links_to_nothing_say_so(tmp_path: Path) -> None:
    (tmp_path / "dead").symlink_to("no\nwhere")
    (tmp_path / "round").symlink_to("round")
    for check in (open_regular, require_regular):
        with pytest.raises(FileNotFoundError, match="dead link to no where"):
            check(tmp_path / "dead", 100)
        with pytest.raises(FileNotFoundError, match="No such file") as caught:
            check(tmp_path / "none", 100)
        assert caught.value.__cause__ is None  # whoever follows the causes comes to an end
        with pytest.raises(OSError, match="symbolic links"):
            check(tmp_path / "round", 100)
    with pytest.raises(NoRegularFile, match="a device"):
        require_regular("/dev/zero", 100)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_regular(path, 100) == b"x" * 100
    with pytest.raises(FileTooLarge, match="100 bytes, more than the 99 allowed"):
        read_regular(path, 99)
    with path.open("wb") as file:
        file.truncate(60 * 10**9)
    with pytest.raises(FileTooLarge, match="60,000,000,000 bytes"):
        read_regular(path, 2**31)
    # Its size is said to be 0.
    assert b"processor" in read_regular("/proc/cpuinfo", 2**24)
    path.write_bytes("\ufeffé".encode())
    assert read_text(path, 10) == "é"


@dataclasses.dataclass(frozen=True)
class Labels:
    num_classes: Annotated[int, msgspec.Meta(ge=1)]
    labels: Dict[str, Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"num_classes": 1.0, "labels": {}}', "Expected `int`, got `float` - at `$.num_classes`"),
        ('{"num_classes": true, "labels": {}}', "Expected `int`, got `bool`"),
        ('{"num_classes": "1", "labels": {}}', "Expected `int`, got `str`"),
        ('{"num_classes": 0, "labels": {}}', "Expected `int` >= 1"),
        ('{"num_classes": 1, "labels": {"a": 4294967296}}', "Expected `int` <= 2147483647"),
        ('{"num_classes": 1}', "missing required field `labels`"),
        ("[]", "Expected `object`, got `array`"),
        ("", "Expecting value"),
    ],
)
def test_types_and_ranges_are_kept(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_typed(text.encode(), Labels)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' * 100_000, "nested too deep"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("[1e999]", "1e999 is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("NaN", "NaN is no number"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ("{}{}", "Extra data"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_what_is_no_json_is_refused_on_one_line(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_json(text)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_json_is_what_the_standard_library_reads() -> None:
    value = {"a": [1, -2.5e3, None, True, "é\n"], "b": {}}
    assert parse_json(json.dumps(value)) == value
    assert parse_json("\ufeff".encode() + json.dumps(value).encode()) == value


# --- the project's own files, in whose place others may put something --------------------------


def read_uploads(folder: Path) -> None:
    with pytest.raises(UserError, match=r"does not say what was uploaded .*; delete it, and all"):
        RunMirror(folder, "memory://run")


def read_lock(folder: Path) -> None:
    file = OwnerFile(folder / ".run.lock")
    assert file.owner() is None
    assert not file.confirm()
    os.utime(folder / ".run.lock", (1, 1), follow_symlinks=False)
    assert file.sign_of_life() < 2


def read_batch(folder: Path) -> None:
    with pytest.raises(UserError, match=r"overflow.npz: cannot be read \(.+\); replay what a run"):
        forensics.replay(None, folder)  # type: ignore[arg-type]


def read_font(folder: Path) -> None:
    assert fonts._characters(str(folder / "a.ttf")) == frozenset()


def read_library(folder: Path) -> None:
    assert native_library.whole(folder, "kernels-0") is None


def read_script(folder: Path) -> None:
    frame = mock.Mock(f_lineno=1)
    frame.f_code.co_filename = str(folder / "script.py")
    with mock.patch.object(main_guard, "_frame_of_the_script", return_value=frame):
        main_guard.require_main_guard()  # what cannot be read is no script that would start again


OWN: Dict[str, Callable[[Path], None]] = {
    ".uploaded.json": read_uploads,
    ".run.lock": read_lock,
    "overflow.npz": read_batch,
    "a.ttf": read_font,
    "kernels-0-0123456789abcdef.so": read_library,
    "script.py": read_script,
}
# Of these texts, those that may stand there.
MEANT = {".uploaded.json": ("{}",)}
TEXTS = ("[]", "{}", '{"a": NaN}', "[" * 100_000, "", "\0" * 100, '{"a": {"local": [true]}}')


@pytest.mark.parametrize("name", OWN)
def test_own_files_that_are_something_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for make in (os.mkfifo, os.mkdir, sparse, lambda path: path.symlink_to("/dev/zero")):
        make(path)
        OWN[name](tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()
    for text in TEXTS if name.endswith((".json", ".lock")) else ():
        path.write_text(text)
        if text not in MEANT.get(name, ()):
            OWN[name](tmp_path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(60 * 10**9)


def test_of_a_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "rank.log"
    with log.open("wb") as file:
        file.truncate(10**9)
        file.seek(10**9)
        file.write(b"\nlast but one\nlast \xff\n")
    assert tail(log, 2) == "last but one\nlast \ufffd"
    os.mkfifo(tmp_path / "pipe")
    assert "a named pipe" in tail(tmp_path / "pipe")
