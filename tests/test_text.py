"""Names that are not UTF-8 and screens that are ASCII: nothing that was computed is lost."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_scripts import script

from src.errors import UserError
from src.report.outcomes import Collector, read_outcomes
from src.report.page import write_report
from src.report.predictions import FORMATS, Prediction, write_predictions
from src.runtime.log import log_to_file
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
    assert list(read_outcomes(tmp_path)) == [f"0{ESCAPED}", f"1{ESCAPED}"]
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
