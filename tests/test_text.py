"""Names that are not UTF-8 and screens that are ASCII: nothing that was computed is lost."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import List

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_scripts import script

from src.errors import UserError
from src.report.outcomes import Collector, read_outcomes
from src.report.page import write_report
from src.report.predictions import FORMATS, Prediction, write_predictions
from src.runtime.log import log_to_file
from src.runtime.text import from_cell, to_cell
from src.serving.exported_network import load_mindir
from src.trainer.metrics import EvalResult

ROOT = Path(__file__).resolve().parent.parent
# As the name of a file in GBK comes from the system.
NAME = os.fsdecode(b"\xb9\xb7\xc3\xa9.png")
ESCAPED = "\\udcb9\\udcb7é.png"


@pytest.mark.parametrize("form", FORMATS)
def test_predictions(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"predictions.{form}"
    write_predictions([Prediction(NAME, [0], [NAME], [1.0])], form, path)
    if form == "json":
        # RFC 8259, section 7: `\\u` and four digits, which gives the name itself.
        assert json.loads(path.read_text(encoding="utf-8"))[0]["image"] == NAME
    elif form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(path).to_pydict()["image"] == [ESCAPED]
    else:
        assert path.read_text(encoding="utf-8").count(ESCAPED) == 2


def test_reports(tmp_path: Path) -> None:
    result = EvalResult(top1=50.0, top5=100.0, loss=1.0, images=2)
    names = ["狗", NAME]
    collector = Collector(keep=1)
    image = np.zeros((2, 8, 8, 3), np.uint8)
    collector.add(np.eye(2, dtype=np.float32), np.array([0, 0]), image)
    outcomes = collector.outcomes("raw", result, lambda index: f"{index}{NAME}", names)
    facts = {"arch": "cct", "checkpoint": NAME}
    page = write_report(tmp_path, [(outcomes, collector)], facts=facts, real_labels=None)
    assert ESCAPED in page.read_text(encoding="utf-8")
    assert list(read_outcomes(tmp_path)) == [f"0{NAME}", f"1{NAME}"]
    content = json.loads((tmp_path / "report.json").read_text())
    assert [c["name"] for c in content["results"][0]["classes"]] == names


def test_the_log_of_a_run(tmp_path: Path) -> None:
    log_to_file(tmp_path / "train.log")
    # Not by the root logger: what pytest captures must be UTF-8.
    handler = logging.getLogger().handlers[-1]
    for message in (f"left out: {NAME}", "next"):
        handler.handle(logging.makeLogRecord({"msg": message}))
    log_to_file(Path(os.devnull))
    said = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(" ")[2] for line in said] == [ESCAPED, "next"]


def test_what_mindspore_does_not_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"mindir '.*udcb7é.png': its name is not UTF-8"):
        load_mindir(tmp_path / NAME)
    words = ["--data_url", "images", "--output", str(tmp_path / NAME)]
    assert script("pack_dataset").main(words) == 2
    assert f"{ESCAPED}': its name is not UTF-8" in capsys.readouterr().err


@given(st.text(st.characters(exclude_categories=())))
@example("=1+1")
@example("'=1")
@example("\\u003d\x1b[2J\\")
@example("a;=1")
@example('a;" @x')
@example("\u202egnp.exe")
@example("-1.5")
@example("\uff1dcmd|' /C calc'!A0")
def test_a_cell_is_no_formula_and_gives_its_name_back(name: str) -> None:
    cell = to_cell(name)
    assert from_cell(cell) == name
    buffer = io.StringIO()
    csv.writer(buffer).writerow([cell])
    # What a spreadsheet computes (OWASP, "CSV Injection"), whichever sign separates its cells.
    for part in re.split("[,;\t\r\n]", cell):
        begins = part.strip(" \"'")[:1] if part is not cell.split(";")[0] else part[:1]
        is_number = re.fullmatch("-[0-9.e+-]+", cell)
        assert is_number or begins not in (
            "=",
            "+",
            "-",
            "@",
            "\uff1d",
            "\uff0b",
            "\uff0d",
            "\uff20",
        )
    assert not controls_in(buffer.getvalue().rstrip("\r\n"))


def controls_in(text: str) -> List[str]:
    """By the Unicode database: controls, ends of lines, what turns the direction of text."""
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return [
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Zl", "Zp")
        or unicodedata.bidirectional(character) in directions
    ]


HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r\n.png"
ESCAPED_HOSTILE = r"\u001b]0;owned\u0007\u009b2J\u202e\u000d\u000a.png"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_terminal_gets_nothing_to_obey(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_predictions([Prediction(HOSTILE, [0], [f"={HOSTILE}"], [1.0])], form, None)
    text = capsys.readouterr().out
    assert not controls_in(text.replace("\n", ""))
    if form == "json":
        assert json.loads(text)[0]["image"] == HOSTILE
    elif form == "csv":
        row = next(csv.DictReader(io.StringIO(text)))
        assert [from_cell(row[key]) for key in ("image", "name")] == [HOSTILE, f"={HOSTILE}"]
        assert row["probability"] == "1.0"


def test_no_program_shows_what_a_terminal_obeys(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from src.errors import UserError\n"
        "from src.runtime.entry import CommandParser, run_command\n"
        "def work(_):\n"
        "    print('one', sys.argv[1], 'of two'); sys.stderr.writelines([sys.argv[1]])\n"
        "    logging.warning('left out: %s', sys.argv[1]); raise UserError(sys.argv[1])\n"
        "sys.exit(run_command(work, CommandParser('x'), []))"
    )
    command = [sys.executable, "-c", code, HOSTILE]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert ended.returncode == 2
    for stream in (ended.stdout, ended.stderr):
        assert not controls_in(stream.decode().replace("\r\n", "").replace("\n", ""))
    log, error = ended.stderr.decode().splitlines()[-2:]
    assert log.endswith(f"left out: {ESCAPED_HOSTILE}")
    assert error == f"error: {ESCAPED_HOSTILE}"
    options = ["--result_dir", "x", "--dataset_name", "digits", HOSTILE]
    command = [sys.executable, "postprocess.py", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert not controls_in(ended.stderr.decode().rstrip("\n"))
    assert b"\\u001b" in ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_screens(encoding: str) -> None:
    code = (
        "import sys; from src.runtime.entry import CommandParser, run_command; "
        "sys.exit(run_command(lambda _: print(sys.argv[1]), CommandParser('x'), []))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, NAME],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    shown = ESCAPED if encoding == "utf-8" else ESCAPED.replace("é", "\\xe9")
    assert (ended.stdout.decode(encoding), ended.stderr) == (f"{shown}\n", b"")


def test_files_are_found_where_their_names_are_ascii_too(tmp_path: Path) -> None:
    """POSIX has bytes for names; Python gives those beyond its encoding as surrogates."""
    for split in ("train", "val"):
        for name in ("狗", NAME):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            (folder / NAME).write_bytes(b"")
    code = (
        "import sys; from pathlib import Path; "
        "from src.data.image_folder import scan_image_folder; "
        "source = scan_image_folder(Path(sys.argv[1]), 'train'); "
        "print(all(Path(sys.argv[1], 'train', source.file_name(i)).exists() for i in range(2)))"
    )
    ascii_names = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for environment in (ascii_names, {"PYTHONUTF8": "1"}):  # the second reads the first's index
        command = [sys.executable, "-c", code, str(tmp_path)]
        environment = {**os.environ, **environment}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ended.stdout == "True\n", ended.stderr
