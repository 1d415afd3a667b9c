"""What a process gets from `setup_device`: MindSpore's log, its jit level."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

import pytest

from src.args import RunConfig
from src.errors import UserError
from src.runtime import compat, device
from src.runtime.log import FrameworkLog
from src.runtime.npu_smi import (
    ATLAS_A2,
    ATLAS_A3,
    FIRST_910,
    INFERENCE,
    Card,
    generation,
    parse_cards,
)

ROOT = Path(__file__).resolve().parent.parent

# A graph that cannot be compiled: MindSpore's C++ warns of something, and logs an error.
PROGRAM = """
import logging, sys
from pathlib import Path
from src.args import RunConfig
from src.runtime.device import setup_device
from src.runtime.log import log_to_file
logging.basicConfig(format="%(message)s")
world = setup_device(RunConfig(jit_level="O1"), seed=1, has_run_log=len(sys.argv) > 1)
import mindspore as ms
from mindspore import Tensor, log, nn
log.warning("early")
if len(sys.argv) > 1:
    log_to_file(Path(sys.argv[1]))
logging.warning("ours")
log.warning("late")
log.error("bad")
class Network(nn.Cell):
    def construct(self, x):
        return x * nowhere
print(ms.get_context("mode") == ms.GRAPH_MODE, ms.context.get_jit_config()["jit_level"])
for source in ("", "class Network(nn.Cell):\\n    def construct(self, x):\\n        return x"):
    exec(source)  # MindSpore cannot read the source of the second: an error of its C++
    try:
        Network()(Tensor([1.0]))
    except (NameError, OSError):
        print("refused")
"""


def run_program(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GLOG_")}
    environ.update({"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **variables})
    call = [sys.executable, str(program), *words]
    return subprocess.run(call, capture_output=True, text=True, env=environ)


@pytest.mark.skipif(not compat.has_jit_levels(), reason="jit_level is of MindSpore 2.3 and newer")
def test_warnings_go_to_the_runs_log_and_errors_to_the_screen_too(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    ended = run_program(tmp_path, str(log))
    assert ended.stdout.splitlines() == ["True O1", "refused", "refused"], ended.stderr
    assert "WARNING" not in ended.stderr
    assert "ours" in ended.stderr
    text = log.read_text()
    # Of Python and of C++, from before the file was there and from after our last line.
    places = [text.index(word) for word in ("] early\n", " ours\n", "] late\n")]
    assert places == sorted(places)
    assert "comm_manager.cc" in text
    assert "Log file created" not in text
    for shown in (ended.stderr, text):
        assert "] bad\n" in shown
        assert "[ERROR] ANALYZER" in shown
    assert text.count("comm_manager.cc") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "train.log"]


RANK_1 = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "RANK_ID": "1"}


@pytest.mark.parametrize(
    ("variables", "has_run_log", "level", "has_folder"),
    [
        ({}, False, "3", False),
        ({}, True, "2", True),
        ({**RANK_1, "RANK_ID": "0"}, True, "2", True),
        (RANK_1, True, "2", False),  # its screen is a file
        ({"GLOG_v": "1"}, True, "1", False),  # the user's own wish
    ],
)
def test_where_mindspore_logs(
    variables: Dict[str, str],
    has_run_log: bool,
    level: str,
    has_folder: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ = dict(variables)
    monkeypatch.setattr(os, "environ", environ)
    device.prepare_import(RunConfig(), has_run_log=has_run_log)
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, FrameworkLog)]
    assert (environ["GLOG_v"], len(handlers)) == (level, int(has_folder))
    folder = environ.get("GLOG_log_dir")
    assert (folder is not None) == has_folder
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
        handler.close()
        assert folder is not None
        assert not Path(folder).exists()


def test_without_a_temporary_folder_warnings_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    environ: Dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    device.prepare_import(RunConfig(), has_run_log=True)
    assert environ["GLOG_v"] == "3"
    assert "GLOG_log_dir" not in environ


def test_a_line_is_taken_over_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "rank_0" / "logs"
    folder.mkdir(parents=True)
    source = folder / "mindspore.host.user.log.INFO.20260101-000000.1"
    source.write_text("Log file created at: now\nRunning on machine: host\n[WARNING] one\n[WARN")
    (folder / "mindspore.INFO").symlink_to(source)
    log = FrameworkLog(tmp_path)
    log.run_log = tmp_path.parent / f"{tmp_path.name}.log"
    for expected in ("[WARNING] one\n", "[WARNING] one\n[WARNING] two\nof two lines\n"):
        log.emit(logging.makeLogRecord({}))
        assert log.run_log.read_text() == expected
        with source.open("a") as file:
            file.write("ING] two\nof two lines\n" if "two" not in source.read_text() else "end\n")
    log.close()
    assert log.run_log.read_text().endswith("of two lines\nend\n")
    assert not tmp_path.exists()


def test_jit_level_is_refused_where_no_graph_is_compiled() -> None:
    with pytest.raises(UserError, match=r"jit_level 'O2': .* mode 'pynative' compiles none; leave"):
        device._select_jit_level(RunConfig(jit_level="O2", mode="pynative"))


def test_jit_level_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "has_jit_levels", lambda: False)
    with pytest.raises(UserError, match=r"jit_level 'O1': MindSpore .* has no such levels, 2\.3"):
        device._select_jit_level(RunConfig(jit_level="O1"))


@pytest.mark.parametrize(
    ("variables", "has_levels", "warns"),
    [
        ({"RANK_TABLE_FILE": "t.json"}, True, True),
        ({"RANK_TABLE_FILE": "t.json"}, False, False),  # 2.0 knows no other way
        ({"RANK_TABLE_FILE": "t.json", "MS_ROLE": "MS_WORKER"}, True, False),
        ({}, True, False),
    ],
)
def test_a_rank_table_in_the_environment_is_said_to_force_ge(
    variables: Dict[str, str],
    has_levels: bool,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(compat, "has_jit_levels", lambda: has_levels)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    device._select_jit_level(RunConfig(device_target="Ascend"))
    assert ("compiles whole graphs by GE (jit_level O2)" in caplog.text) == warns


LISTINGS = {
    # Of a server of the first generation; a process table follows.
    """
| npu-smi 23.0.rc1                 Version: 23.0.rc1                                        |
| NPU   Name           | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                 | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+======================+===============+====================================================+
| 0     910ProB        | OK            | 78.0        38                0    / 0             |
| 0                    | 0000:C1:00.0  | 0           2387 / 13553      18   / 32768         |
+======================+===============+====================================================+
| 1     910ProB        | OK            | 78.0        38                0    / 0             |
| 0                    | 0000:81:00.0  | 0           2387 / 13553      18   / 32768         |
+======================+===============+====================================================+
| NPU     Chip         | Process id    | Process name             | Process memory(MB)      |
| 0       0            | 3107          | python                   | 28                      |
""": [Card("910ProB", "0000:c1:00.0"), Card("910ProB", "0000:81:00.0")],
    # Of an Atlas A3, whose cards have two chips.
    """
| 0     Ascend910           | OK            | 178.7       37                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3419 / 65536         |
| 0     Ascend910           | OK            | -           36                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          3419 / 65536         |
""": [Card("Ascend910", "0000:9d:00.0"), Card("Ascend910", "0000:9f:00.0")],
    # Of an inference chip, without an address.
    """
| 0       310       | OK              | 12.8              58                   |
| 0       0         | NA              | 0                 5324 / 8192          |
""": [Card("310")],
    "": [],
}


@pytest.mark.parametrize(("text", "cards"), list(LISTINGS.items()))
def test_cards_are_read_from_npu_smi(text: str, cards: List[Card]) -> None:
    assert parse_cards(text) == cards


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("910A 910B 910ProA 910ProB 910PremiumA", FIRST_910),
        ("910B1 910B2 910B2C 910B3 910B4 910B4-1", ATLAS_A2),
        ("Ascend910 910_9391", ATLAS_A3),
        ("310 310P1 310P3 310B4", INFERENCE),
    ],
)
def test_the_generation_of_each_chip(names: str, expected: str) -> None:
    assert {generation(name) for name in names.split()} == {expected}
