"""What others have written is read only where it is a file, and only as much as allowed."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Annotated, Dict

import msgspec
import pytest

from src.runtime.json_files import parse_json, parse_typed
from src.runtime.regular_files import (
    FileTooLarge,
    NoRegularFile,
    open_regular,
    read_regular,
    read_text,
    require_regular,
)


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
        with pytest.raises(FileNotFoundError, match="No such file"):
            check(tmp_path / "none", 100)
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
