"""scripts/doctor.py on Ascend hosts that are simulated: what npu-smi lists, and trees of files."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from test_doctor import Simulated

from src.doctor.ascend import check_ascend
from src.doctor.machine import Finding, Machine

OLD, NEW = "usr/local/Ascend/ascend-toolkit/latest", "usr/local/Ascend/cann"
# What /usr/local/Ascend holds.
DRIVER = {"usr/local/Ascend/driver/version.info": "Version=24.1.0\nascendhal_version=7.35.23\n"}


def toolkit(version: str, home: str = OLD, architecture: str = "aarch64") -> Dict[str, str]:
    text = f"package_name=Ascend-cann-toolkit\nversion={version}\narch={architecture}\n"
    return {f"{home}/{architecture}-linux/ascend_toolkit_install.info": text}


class AscendHost(Simulated):
    """A healthy aarch64 server of eight Atlas A2 cards but for what the test says."""

    def __init__(self, root: Path, files: Dict[str, str], **facts: Any) -> None:
        healthy = {
            "chips": ["910B2"] * 8,
            "plugins": ["libmindspore_ascend.so.2"],
            "modules": ["te", "hccl"],
            "environment": {"ASCEND_HOME_PATH": f"/{OLD}"},
            "asks": ["8.2", "8.3", "8.5", "9.0", "9.1"],
        }
        super().__init__(**{**healthy, **facts})
        self._root = root
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def root(self) -> Path:
        return self._root

    def architecture(self) -> str:
        return "aarch64"

    def cann_of_mindspore(self) -> List[str]:
        return self.facts["asks"]


def examined(
    root: Path,
    files: Optional[Dict[str, str]] = None,
    target: Optional[str] = None,
    **facts: Any,
) -> Dict[str, Finding]:
    files = {**DRIVER, **toolkit("8.5.0")} if files is None else files
    found = check_ascend(AscendHost(root, files, **facts), target)
    assert all(bool(finding.cure) == (finding.verdict != "ok") for finding in found)
    return {finding.subject: finding for finding in found}


def test_a_healthy_server_is_described(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert {subject: (f.verdict, f.found) for subject, f in found.items()} == {
        "Ascend": ("ok", "8 x 910B2 (Atlas A2)"),
        "Ascend driver": ("ok", "24.1.0"),
        "CANN": ("ok", "8.5.0"),
        "te, hccl": ("ok", "CANN's Python packages can be imported"),
    }


FIRST = {"chips": ["910ProB"] * 8}
MS20 = {"versions": {"mindspore": "2.0.0"}, "asks": ["6.11", "6.3"]}
SETS = r"source /usr/local/Ascend/{}/set_env\.sh"
INSTALL = r"bash \./Ascend-cann-toolkit_9\.1\*_linux-aarch64\.run --install"


@pytest.mark.parametrize(
    ("facts", "subject", "verdict", "said", "cure"),
    [
        ({"chips": []}, "Ascend", None, "", ""),
        ({"chips": [], "target": "Ascend"}, "Ascend", "broken", "no device", "npu-smi info"),
        ({"chips": [], "target": "Ascend", "files": {}}, "CANN", "broken", "not inst", INSTALL),
        ({"chips": ["310P3"]}, "Ascend", "note", r"310P3 \(inference\)", "MINDIR"),
        ({"chips": ["310"], "target": "Ascend"}, "Ascend", "broken", "310", "does not train"),
        ({"plugins": []}, "Ascend", "broken", "no plugin", "pip install --force-reinstall"),
        (FIRST, "Ascend", "note", r"8 x 910ProB \(first 910\)", "requirements-ms20.txt"),
        ({**FIRST, **MS20}, "Ascend", "ok", "first 910", ""),
        ({"files": toolkit("8.5.0")}, "Ascend driver", "note", "version.info", "docker run -v"),
        ({"files": {}}, "CANN", "broken", "not installed", INSTALL),
        ({"files": {}, **MS20}, "CANN", "broken", "not installed", r"toolkit_6\.3\*"),
        (
            {"files": toolkit("8.5.0", architecture="x86_64")},
            "CANN",
            "broken",
            "is for x86_64, this host is aarch64",
            INSTALL,
        ),
        ({"environment": {}}, "CANN", "broken", "variables", SETS.format("ascend-toolkit")),
        (
            {"environment": {}, "files": toolkit("9.0.0", home=NEW)},
            "CANN",
            "broken",
            "9.0.0 in /usr/local/Ascend/cann",
            SETS.format("cann"),
        ),
        ({"files": toolkit("8.2.RC1")}, "CANN", "ok", "8.2.RC1", ""),
        ({"files": toolkit("8.0.0")}, "CANN", "note", "2.10.0 asks for 8.2, .*, 9.1$", INSTALL),
        ({"files": toolkit("6.3.RC1"), **MS20}, "CANN", "ok", "6.3.RC1", ""),
        ({"modules": ["te"]}, "te, hccl", "broken", "^hccl cannot", rf"install /{OLD}/lib64/hccl-"),
        ({"modules": []}, "te, hccl", "broken", "te and hccl", r"te-\*.whl \S+hccl-\*.whl"),
    ],
)
def test_a_wrong_combination_is_recognised(
    facts: Dict[str, Any],
    subject: str,
    verdict: Optional[str],
    said: str,
    cure: str,
    tmp_path: Path,
) -> None:
    finding = examined(tmp_path, **facts).get(subject)
    assert (finding.verdict if finding else None) == verdict
    if finding:
        assert re.search(said, finding.found)
        assert re.search(cure, finding.cure)


def test_the_cann_of_the_environment_comes_first(tmp_path: Path) -> None:
    files = {**DRIVER, **toolkit("9.0.0", home=NEW), **toolkit("8.2.RC1", home="opt/mine")}
    found = examined(tmp_path, files, environment={"ASCEND_HOME_PATH": "/opt/mine"})
    assert found["CANN"].found == "8.2.RC1"


def test_the_wheel_here_says_what_it_asks_for() -> None:
    expected = {"2.10.0": ["8.2", "8.3", "8.5", "9.0", "9.1"], "2.0.0": ["6.11", "6.3"]}
    found = Machine().cann_of_mindspore()
    assert found == expected[importlib.metadata.version("mindspore")]
