"""What a machine has, and whether it can train: a list of findings, each with its cure."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from .runtime.device import process_environment

_GIB = 1024**3
_PIP = f"{sys.executable} -m pip"
# Shared libraries the GPU plugin of MindSpore's wheel asks for: CUDA 11 and cuDNN 8.
_GPU_LIBRARIES = ("libcudart.so.11.0", "libcublas.so.11", "libcudnn.so.8", "libnvrtc.so.11.2")
_PROBE = """
import os
os.environ.setdefault("GLOG_v", "3")
from {package}.runtime.device import setup_device
from {package}.args import RunConfig
setup_device(RunConfig(device_target={target!r}), seed=1)
import numpy as np
from mindspore import Tensor, nn
network = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dense(8 * 64, 4))
loss = nn.WithLossCell(network, nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"))
step = nn.TrainOneStepCell(loss, nn.SGD(network.trainable_params(), 0.05))
rng = np.random.default_rng(0)
image = Tensor(rng.normal(size=(8, 3, 8, 8)).astype(np.float32))
label = Tensor(np.arange(8, dtype=np.int32) % 4)
losses = [float(step(image, label).asnumpy()) for _ in range(3)]
assert losses[2] < losses[0], losses
print("losses", *(f"{{value:.4f}}" for value in losses))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        verdict: `ok`, `note` (works, but) or `broken`.
        found: what is there.
        cure: a command or a sentence; empty when there is nothing to cure.
    """

    subject: str
    verdict: str
    found: str
    cure: str = ""


class Machine:
    """Everything that is asked of the machine, so that a test can be another one."""

    def python(self) -> Tuple[int, ...]:
        return sys.version_info[:3]

    def version_of(self, package: str) -> Optional[str]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def has_module(self, name: str) -> bool:
        return importlib.util.find_spec(name) is not None

    def plugins(self) -> List[str]:
        """Files of the wheel that reach a device, such as libmindspore_gpu.so.11.6."""
        spec = importlib.util.find_spec("mindspore")
        if spec is None or spec.origin is None:
            return []
        folder = Path(spec.origin).parent / "lib" / "plugin"
        return sorted(path.name for path in folder.glob("libmindspore_*.so*"))

    def environment(self) -> Dict[str, str]:
        return process_environment()

    def has_library(self, name: str) -> bool:
        import ctypes

        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    def ascend_chips(self) -> List[str]:
        """Names from npu-smi, such as 910B2 or 310P3."""
        lines = (self._output("npu-smi", "info") or "").splitlines()
        cells = [line.split("|")[1].split() for line in lines if line.count("|") >= 3]
        return [
            c[1] for c in cells if len(c) >= 2 and c[0].isdigit() and c[1][:3] in ("310", "910")
        ]

    def gpus(self) -> List[str]:
        query = ("--query-gpu=name,driver_version", "--format=csv,noheader")
        return (self._output("nvidia-smi", *query) or "").splitlines()

    def cann_version(self) -> Optional[str]:
        home = self.environment().get("ASCEND_HOME_PATH", "/usr/local/Ascend/ascend-toolkit/latest")
        for path in Path(home).glob("*/ascend_toolkit_install.info"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("version="):
                    return line[8:]
        return None

    def cpu_flags(self) -> str:
        path = Path("/proc/cpuinfo")
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def cores(self) -> int:
        return os.cpu_count() or 1

    def open_files(self) -> int:
        import resource

        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def free_bytes(self, path: Path) -> Optional[int]:
        return shutil.disk_usage(path).free if path.exists() else None

    def train_three_steps(self, target: str) -> Tuple[bool, str]:
        """(whether it worked, the last line) of a process of its own, which may crash."""
        command = [sys.executable, "-c", _PROBE.format(package=__package__, target=target)]
        root = Path(__file__).resolve().parents[1]
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return False, "no answer in 300 s"
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"

    def _output(self, *command: str) -> Optional[str]:
        if shutil.which(command[0]) is None:
            return None
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else None


def diagnose(machine: Machine, *, target: Optional[str], probe: bool, root: Path) -> List[Finding]:
    """All findings, from Python to the probe.

    Args:
        target: what training is wanted on; None: whatever is there.
        root: a folder of the disk that checkpoints go to.
    """
    checks: List[Callable[[Machine], Optional[Finding]]] = [
        _python,
        _mindspore,
        _numpy,
        _moxing,
        _avx512,
        _shared_memory,
        _open_files,
        _rank_table,
    ]
    findings = [finding for check in checks for finding in [check(machine)] if finding]
    findings += [_disk(machine, root), *_ascend(machine, target), *_gpu(machine, target)]
    if probe and not any(f.verdict == "broken" for f in findings if f.subject in _FATAL):
        findings += [_probe(machine, device) for device in _devices(machine, target)]
    return findings


# Without these MindSpore cannot be imported.
_FATAL = ("Python", "MindSpore", "NumPy")


def _python(machine: Machine) -> Finding:
    version = machine.python()
    found = f"{'.'.join(map(str, version))} on {platform.machine()}"
    if (3, 9) <= version[:2] < (3, 13):
        return Finding("Python", "ok", found)
    return Finding("Python", "broken", found, "MindSpore has wheels for 3.9 to 3.12; use 3.11")


def _mindspore(machine: Machine) -> Finding:
    version = machine.version_of("mindspore")
    if version is None:
        cure = f"{_PIP} install -r requirements.txt"
        return Finding("MindSpore", "broken", "not installed", cure)
    plugins = ", ".join(machine.plugins()) or "none: CPU only"
    found = f"{version}, plugins {plugins}"
    if version.startswith("2."):
        return Finding("MindSpore", "ok", found)
    return Finding("MindSpore", "broken", found, f"{_PIP} install -r requirements.txt")


def _numpy(machine: Machine) -> Finding:
    version = machine.version_of("numpy")
    if version is None:
        return Finding("NumPy", "broken", "not installed", f"{_PIP} install 'numpy<2'")
    if int(version.split(".")[0]) < 2:
        return Finding("NumPy", "ok", version)
    found = f"{version}: operators of MindSpore 2.10 fail with it (numpy.core.multiarray)"
    return Finding("NumPy", "broken", found, f"{_PIP} install 'numpy<2' 'scipy<1.18'")


def _moxing(machine: Machine) -> Optional[Finding]:
    # Only PyPI's package of that name says it is about llama.cpp; Huawei's comes with ModelArts.
    if not machine.has_module("moxing"):
        return None
    if machine.has_module("moxing.file"):
        return Finding("moxing", "ok", "Huawei's, reads and writes OBS")
    found = "PyPI's package of that name, which has nothing to do with OBS"
    return Finding("moxing", "broken", found, f"{_PIP} uninstall -y moxing")


def _avx512(machine: Machine) -> Optional[Finding]:
    if "avx512f" not in machine.cpu_flags():
        return None
    limit = machine.environment().get("ONEDNN_MAX_CPU_ISA")
    if limit in (None, "AVX2"):
        return Finding("AVX-512", "ok", "convolutions are kept off its slow path (AVX2 is used)")
    found = f"ONEDNN_MAX_CPU_ISA={limit}: convolutions take the slow path, up to 100 times slower"
    return Finding("AVX-512", "note", found, "unset ONEDNN_MAX_CPU_ISA")


def _shared_memory(machine: Machine) -> Optional[Finding]:
    free = machine.free_bytes(Path("/dev/shm"))
    if free is None:
        return None
    found = f"{free / _GIB:.1f} GiB free in /dev/shm, {machine.cores()} cores"
    if free >= _GIB:
        return Finding("shared memory", "ok", found)
    return Finding("shared memory", "note", found, "docker run --shm-size=8g ...")


def _open_files(machine: Machine) -> Finding:
    limit = machine.open_files()
    verdict = "ok" if limit >= 4096 or limit < 0 else "note"
    cure = "" if verdict == "ok" else "ulimit -n 65536"
    return Finding("open files", verdict, f"limit {limit}", cure)


def _disk(machine: Machine, root: Path) -> Finding:
    free = machine.free_bytes(root) or 0
    found = f"{free / _GIB:.1f} GiB free in {root}"
    if free >= 5 * _GIB:
        return Finding("disk", "ok", found)
    return Finding("disk", "note", found, "make room, or --train_url on another disk")


def _rank_table(machine: Machine) -> Optional[Finding]:
    given = machine.environment().get("RANK_TABLE_FILE")
    if not given:
        return None
    path = Path(given)
    cure = "export RANK_TABLE_FILE=/ABSOLUTE/PATH.json; scripts/rank_table.py makes one"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        devices = [device for server in table["server_list"] for device in server["device"]]
        ranks = sorted(int(device["rank_id"]) for device in devices)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{given}: cannot be used ({type(error).__name__}: {error})"
        return Finding("rank table", "broken", found, cure)
    found = f"{given}: {len(table['server_list'])} servers, {len(devices)} devices"
    if ranks != list(range(len(devices))):
        return Finding("rank table", "broken", f"{found}; ranks are {ranks}", cure)
    if not path.is_absolute():
        return Finding("rank table", "note", f"{found}; the path is relative", cure)
    return Finding("rank table", "ok", found)


def _ascend(machine: Machine, target: Optional[str]) -> List[Finding]:
    chips = machine.ascend_chips()
    if not chips:
        if target != "Ascend":
            return []
        cure = "install the driver so that `npu-smi info` lists devices, or --device_target CPU"
        return [Finding("Ascend", "broken", "no device found", cure)]
    found = f"{len(chips)} x {chips[0]}"
    if chips[0].startswith("310"):
        verdict = "broken" if target == "Ascend" else "note"
        cure = "an inference chip does not train: train on a 910, export MINDIR for the 310"
        return [Finding("Ascend", verdict, found, cure)]
    cann = machine.cann_version()
    if cann is None:
        cure = "install CANN, then: source /usr/local/Ascend/ascend-toolkit/set_env.sh"
        return [Finding("Ascend", "broken", f"{found}, but no CANN", cure)]
    if not any("ascend" in name for name in machine.plugins()):
        cure = f"{_PIP} install --force-reinstall -r requirements.txt"
        return [Finding("Ascend", "broken", f"{found}, but MindSpore has no plugin", cure)]
    return [Finding("Ascend", "ok", f"{found}, CANN {cann}")]


def _gpu(machine: Machine, target: Optional[str]) -> List[Finding]:
    gpus = machine.gpus()
    if not gpus:
        if target != "GPU":
            return []
        cure = "install the NVIDIA driver so that `nvidia-smi` lists devices"
        return [Finding("GPU", "broken", "no device found", cure)]
    missing = [name for name in _GPU_LIBRARIES if not machine.has_library(name)]
    if missing:
        cure = "install CUDA 11.6 and cuDNN 8, and put their lib folders into LD_LIBRARY_PATH"
        return [Finding("GPU", "broken", f"{gpus[0]}; missing {', '.join(missing)}", cure)]
    return [Finding("GPU", "ok", f"{len(gpus)} x {gpus[0]}, CUDA 11 and cuDNN 8")]


def _devices(machine: Machine, target: Optional[str]) -> List[str]:
    if target:
        return [target]
    here = ["CPU"]
    here += ["GPU"] if machine.gpus() else []
    return here + (["Ascend"] if machine.ascend_chips() else [])


def _probe(machine: Machine, device: str) -> Finding:
    worked, said = machine.train_three_steps(device)
    subject = f"three steps on {device}"
    if worked:
        return Finding(subject, "ok", said)
    return Finding(subject, "broken", said, "cure what is broken above, then run this again")
