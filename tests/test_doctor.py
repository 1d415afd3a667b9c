"""scripts/doctor.py on this machine, and on machines that are simulated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from test_scripts import script

from src.doctor.diagnosis import diagnose
from src.doctor.machine import Finding, Machine

CUDA = [
    *("libcudart.so.11.0", "libcublas.so.11", "libcudnn.so.8", "libcurand.so.10"),
    *("libcusolver.so.11", "libcufft.so.10", "libcusparse.so.11", "libnvrtc.so.11.2"),
    "libcuda.so.1",
]
ROOT = Path(__file__).resolve().parent.parent
# Facts of a machine that can train on a GPU.
GPU: Dict[str, Any] = {
    "gpus": ["A100, 535.1"],
    "capabilities": [(8, 0)],
    "libraries": CUDA,
    "plugins": ["libmindspore_gpu.so.11.1", "libmindspore_gpu.so.11.6"],
    "environment": {"CUDA_HOME": "/usr/local/cuda-11.6"},
    "nvcc": (11, 6),
}


class Simulated(Machine):
    """A healthy CPU machine but for what the test says."""

    def __init__(self, **facts: Any) -> None:
        self.facts: Dict[str, Any] = {
            "python": (3, 11, 7),
            "versions": {"mindspore": "2.10.0", "numpy": "1.26.4"},
            "modules": [],
            "plugins": [],
            "environment": {},
            "libraries": [],
            "chips": [],
            "gpus": [],
            "repository": ROOT,
            "compiler": "g++ (Debian 12.2.0-14) 12.2.0",
            "capabilities": [],
            "nvcc": None,
            "flags": "avx2",
            "files": 65536,
            "free": 100 * 1024**3,
            "probe": (True, "losses 1 0"),
            **facts,
        }
        self.probed: List[str] = []

    def python(self) -> Tuple[int, ...]:
        return self.facts["python"]

    def version_of(self, package: str) -> Optional[str]:
        return self.facts["versions"].get(package)

    def has_module(self, name: str) -> bool:
        return name in self.facts["modules"]

    def plugins(self) -> List[str]:
        return self.facts["plugins"]

    def environment(self) -> Dict[str, str]:
        return self.facts["environment"]

    def has_library(self, name: str) -> bool:
        return name in self.facts["libraries"]

    def ascend_chips(self) -> List[str]:
        return self.facts["chips"]

    def gpus(self) -> List[str]:
        return self.facts["gpus"]

    def repository(self) -> Path:
        return self.facts["repository"]

    def compiler(self) -> Optional[str]:
        return self.facts["compiler"]

    def compute_capabilities(self) -> List[Tuple[int, int]]:
        return self.facts["capabilities"]

    def nvcc_version(self) -> Optional[Tuple[int, int]]:
        return self.facts["nvcc"]

    def cpu_flags(self) -> str:
        return self.facts["flags"]

    def open_files(self) -> int:
        return self.facts["files"]

    def free_bytes(self, path: Path) -> Optional[int]:
        return self.facts["free"]

    def train_three_steps(self, target: str) -> Tuple[bool, str]:
        self.probed.append(target)
        return self.facts["probe"]


def examined(target: Optional[str] = None, **facts: Any) -> Dict[str, Finding]:
    found = diagnose(Simulated(**facts), target=target, probe=True, root=Path("/"))
    assert all(bool(finding.cure) == (finding.verdict != "ok") for finding in found)
    return {finding.subject: finding for finding in found}


def test_a_healthy_machine_has_nothing_to_cure() -> None:
    found = examined(versions={"mindspore": "2.10.0", "numpy": "1.26.4"}, flags="avx512f")
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert found["three steps on CPU"].found == "losses 1 0"


@pytest.mark.parametrize(
    ("facts", "subject", "verdict", "cure"),
    [
        ({"versions": {"mindspore": "2.10.0", "numpy": "2.1.0"}}, "NumPy", "broken", "numpy<2"),
        ({"versions": {"numpy": "1.26.4"}}, "MindSpore", "broken", "requirements.txt"),
        ({"versions": {"mindspore": "1.3.0", "numpy": "1.26"}}, "MindSpore", "broken", "pip"),
        ({"python": (3, 13, 0)}, "Python", "broken", "python3.11 -m venv"),
        (
            {"python": (3, 9, 18), "versions": {"mindspore": "2.0.0", "numpy": "1"}},
            "Python",
            "ok",
            "",
        ),
        ({"python": (3, 9, 18), "versions": {}}, "Python", "broken", "requirements-ms20.txt"),
        ({"compiler": None}, "C++ compiler", "note", "apt-get install g++"),
        ({"compiler": "g++ (GCC) 7.3.0"}, "C++ compiler", "note", "CXX=g++-9"),
        (
            {"compiler": "g++ (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)"},
            "C++ compiler",
            "note",
            "g++-9",
        ),
        ({"compiler": "g++-9 (Ubuntu 9.4.0-1ubuntu1) 9.4.0"}, "C++ compiler", "ok", ""),
        ({"compiler": "Debian clang version 14.0.6"}, "C++ compiler", "ok", ""),
        ({"modules": ["moxing"]}, "moxing", "broken", "uninstall"),
        ({"modules": ["moxing", "moxing.file"]}, "moxing", "ok", ""),
        ({"target": "GPU"}, "GPU", "broken", "nvidia-smi"),
        (
            {"flags": "avx512f", "environment": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}},
            "AVX-512",
            "note",
            "unset",
        ),
        ({"free": 10}, "shared memory", "note", "--shm-size"),
        ({"free": 10}, "disk", "note", "--train_url"),
        ({"files": 256}, "open files", "note", "ulimit"),
        ({"probe": (False, "RuntimeError: x")}, "three steps on CPU", "broken", "again"),
    ],
)
def test_a_wrong_combination_is_recognised(
    facts: Dict[str, Any], subject: str, verdict: str, cure: str
) -> None:
    finding = examined(**facts)[subject]
    assert finding.verdict == verdict
    assert cure in finding.cure


@pytest.mark.parametrize(
    ("changes", "subject", "verdict", "said"),
    [
        ({}, "CUDA_HOME", "ok", "nvcc 11.6"),
        ({}, "CUDA libraries", "ok", "load"),
        ({"environment": {}}, "CUDA_HOME", "broken", "gpu_environment.py"),
        ({"nvcc": None}, "CUDA_HOME", "broken", "nvcc not found"),
        ({"nvcc": (10, 2)}, "CUDA_HOME", "broken", "nvcc 10.2"),
        ({"nvcc": (11, 0)}, "CUDA_HOME", "broken", "nvcc 11.0"),
        ({"nvcc": (13, 0)}, "CUDA_HOME", "broken", "gpu_environment.py"),
        ({"nvcc": (13, 0), "plugins": GPU["plugins"][1:]}, "CUDA_HOME", "ok", "13.0"),
        ({"plugins": ["libmindspore_ascend.so.2"]}, "CUDA_HOME", "broken", "no GPU plugin"),
        ({"nvcc": (11, 4)}, "CUDA libraries", "broken", "missing libnvrtc.so.11.1,"),
        ({"libraries": CUDA[:2]}, "CUDA libraries", "broken", "libcudnn.so.8, libcurand.so.10"),
        ({"libraries": CUDA[1:]}, "CUDA libraries", "broken", "install -r requirements-gpu.txt"),
        ({"libraries": CUDA[:-1]}, "CUDA libraries", "broken", "NVIDIA driver"),
        ({"capabilities": [(5, 2)]}, "compute capability", "broken", "begin with 6.0"),
        ({"capabilities": [(8, 9)]}, "compute capability", "ok", "8.9"),
        ({"capabilities": [(9, 0)]}, "compute capability", "note", "for minutes"),
        ({"capabilities": [(12, 0)]}, "compute capability", "note", "end with 9.0"),
    ],
)
def test_a_gpu_machine(changes: Dict[str, Any], subject: str, verdict: str, said: str) -> None:
    finding = examined("GPU", **{**GPU, **changes})[subject]
    assert finding.verdict == verdict
    assert said in f"{finding.found}, {finding.cure}"


def test_scripts_with_the_line_endings_of_windows(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "train.sh"
    script.parent.mkdir()
    script.write_bytes(b"set -euo pipefail\r\necho works\r\n")
    finding = examined(repository=tmp_path)["scripts"]
    assert (finding.verdict, finding.found[:16]) == ("broken", "scripts/train.sh")
    subprocess.run(["bash", "-c", finding.cure], check=True)
    assert subprocess.run(["bash", script], capture_output=True).stdout == b"works\n"
    assert "scripts" not in examined(repository=tmp_path)


def test_a_clone_has_them_not_whatever_git_is_set_to(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    git = ["git", "-c", "core.autocrlf=true"]
    subprocess.run([*git, "clone", "-q", "--shared", ROOT, tmp_path / "clone"], check=True)
    assert "scripts" not in examined(repository=tmp_path / "clone")
    digits = (tmp_path / "clone/src/data/digits.npz").read_bytes()
    assert digits == (ROOT / "src/data/digits.npz").read_bytes()


def test_nvidias_tools_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine()
    monkeypatch.setattr(machine, "_output", lambda *command: "8.0\n9.0\n")
    assert machine.compute_capabilities() == [(8, 0), (9, 0)]
    monkeypatch.undo()
    monkeypatch.setattr(machine, "environment", lambda: {"CUDA_HOME": str(tmp_path)})
    assert machine.nvcc_version() is None
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'V1.2'\necho 'tools, release 11.8, V11.8.89'\n")
    nvcc.chmod(0o755)
    assert machine.nvcc_version() == (11, 8)
    nvcc.write_text("no program")
    assert machine.nvcc_version() is None


def rank_table(ranks: List[str]) -> str:
    devices = [{"device_id": r, "device_ip": f"10.0.0.{r}", "rank_id": r} for r in ranks]
    servers = [{"server_id": "a", "device": devices}]
    head = {"version": "1.0", "status": "completed", "server_count": "1"}
    return json.dumps({**head, "server_list": servers})


@pytest.mark.parametrize(
    ("text", "verdict", "said"),
    [
        (rank_table(["0", "1"]), "ok", "1 servers, 2 devices"),
        (rank_table(["0", "2"]), "broken", "rank_id 1 is missing"),
        ("{}", "broken", "'version' is missing"),
        ("not json", "broken", "not JSON"),
        (None, "broken", "no such file"),
    ],
)
def test_the_rank_table_is_read(
    text: Optional[str], verdict: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    if text is not None:
        path.write_text(text)
    finding = examined(environment={"RANK_TABLE_FILE": str(path)})["rank table"]
    assert finding.verdict == verdict
    assert said in finding.found


def test_nothing_is_probed_where_mindspore_cannot_be_imported() -> None:
    machine = Simulated(versions={"numpy": "2.0.0"})
    diagnose(machine, target=None, probe=True, root=Path("/"))
    assert machine.probed == []
    machine = Simulated(gpus=["A100"], chips=["910B2"])
    diagnose(machine, target=None, probe=True, root=Path("/"))
    assert machine.probed == ["CPU", "GPU", "Ascend"]


def test_this_machine_trains(capsys: pytest.CaptureFixture[str]) -> None:
    code = script("doctor").main(["--json", "--device_target", "CPU"])
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["three steps on CPU"]["verdict"] == "ok", findings
    assert findings["MindSpore"]["found"].startswith("2.")
    assert code == int(any(f["verdict"] == "broken" for f in findings.values()))


def test_the_screen_shows_the_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = script("doctor")
    monkeypatch.setattr(program, "Machine", lambda: Simulated(modules=["moxing"]))
    assert program.main(["--no_probe"]) == 1
    lines = capsys.readouterr().out.splitlines()
    position = next(i for i, line in enumerate(lines) if line.startswith("BROKEN moxing"))
    assert "pip uninstall -y moxing" in lines[position + 1]
