"""What is asked of a machine, and what a check says of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..runtime.device import process_environment
from ..runtime.native_library import find_compiler
from ..runtime.npu_smi import list_cards

PIP = f"{sys.executable} -m pip"
# `src`, or the name it is installed under.
_PACKAGE = __name__.split(".", maxsplit=1)[0]
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


def _versions(text: str) -> List[Tuple[int, int]]:
    """All `a.b` in it."""
    return [(int(a), int(b)) for a, b in re.findall(r"\b([0-9]{1,4})\.([0-9]{1,4})", text)]


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
        """Whether it loads, from where MindSpore's plugins look."""
        import ctypes

        for path in (name, f"/usr/local/cuda/lib64/{name}"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(path)
                return True
        return False

    def ascend_chips(self) -> List[str]:
        """Names from npu-smi, such as 910B2 or 310P3."""
        return [card.name for card in list_cards()]

    def gpus(self) -> List[str]:
        query = ("--query-gpu=name,driver_version", "--format=csv,noheader")
        return (self._output("nvidia-smi", *query) or "").splitlines()

    def compute_capabilities(self) -> List[Tuple[int, int]]:
        """Of each GPU, such as (8, 0); none where the driver does not tell."""
        query = ("--query-gpu=compute_cap", "--format=csv,noheader")
        return _versions(self._output("nvidia-smi", *query) or "")

    def nvcc_version(self) -> Optional[Tuple[int, int]]:
        """Of the compiler in CUDA_HOME, such as (11, 6)."""
        home = self.environment().get("CUDA_HOME", "")
        said = self._output(f"{home}/bin/nvcc", "--version") or ""
        return next(iter(_versions(said.partition("release")[2])), None)

    def root(self) -> Path:
        """Of the file system."""
        return Path("/")

    def architecture(self) -> str:
        """Such as x86_64 or aarch64."""
        return platform.machine()

    def cann_of_mindspore(self) -> List[str]:
        """Versions of CANN that the installed MindSpore asks for, such as 8.5, in its order."""
        spec = importlib.util.find_spec("mindspore")
        if spec is None or spec.origin is None:
            return []
        text = (Path(spec.origin).parent / "run_check/_check_version.py").read_text()
        listed = re.search(r"class AscendEnvChecker.*?self\.version = \[(.*?)\]", text, re.DOTALL)
        return re.findall('"([0-9.]+)"', listed.group(1)) if listed else []

    def compiler(self) -> Optional[str]:
        """The first line of what the C++ compiler says of itself."""
        command = find_compiler(self.environment())
        said = (self._output(*command, "--version") if command else None) or ""
        return next(iter(said.splitlines()), None)

    def cpu_flags(self) -> str:
        path = Path("/proc/cpuinfo")
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def repository(self) -> Path:
        """The folder of the programs and scripts."""
        return Path(__file__).resolve().parents[2]

    def cores(self) -> int:
        return os.cpu_count() or 1

    def open_files(self) -> int:
        import resource

        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def free_bytes(self, path: Path) -> Optional[int]:
        return shutil.disk_usage(path).free if path.exists() else None

    def train_three_steps(self, target: str) -> Tuple[bool, str]:
        """(whether it worked, the last line) of a process of its own, which may crash."""
        command = [sys.executable, "-c", _PROBE.format(package=_PACKAGE, target=target)]
        try:
            done = subprocess.run(
                command, cwd=self.repository(), capture_output=True, text=True, timeout=300
            )
        except subprocess.TimeoutExpired:
            return False, "no answer in 300 s"
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"

    def _output(self, *command: str) -> Optional[str]:
        if shutil.which(command[0]) is None:
            return None
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None
