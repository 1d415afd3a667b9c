"""Checks of NVIDIA GPUs: the card, and what the GPU plugin of MindSpore's wheel asks for."""

from __future__ import annotations

import sys
from typing import List, Optional, Tuple

from .machine import PIP, Finding, Machine

# What the plugin is linked with: CUDA 11, cuDNN 8 and the driver's library.
_LIBRARIES = (
    "libcudart.so.11.0",
    "libcublas.so.11",
    "libcudnn.so.8",
    "libcurand.so.10",
    "libcusolver.so.11",
    "libcufft.so.10",
    "libcusparse.so.11",
)
_DRIVER = "libcuda.so.1"
_DRIVER_CURE = "install the NVIDIA driver so that `nvidia-smi` lists devices"
_PLUGIN = "libmindspore_gpu.so."
_WHEELS = f"{PIP} install -r requirements-gpu.txt"
_VARIABLES = f'eval "$({sys.executable} scripts/gpu_environment.py)"'
# The kernels' machine code is for 6.0, 6.1, 7.0, 7.5 and 8.0, each good for its whole generation;
# beyond, the driver compiles them from their intermediate code.
_OLDEST, _NEWEST = (6, 0), (8, 9)


def check_gpu(machine: Machine, target: Optional[str]) -> List[Finding]:
    gpus = machine.gpus()
    if not gpus and target != "GPU":
        return []
    card = Finding("GPU", "ok", f"{len(gpus)} x {gpus[0]}") if gpus else _no_card()
    capabilities = [_check_capability(value) for value in machine.compute_capabilities()[:1]]
    return [card, *capabilities, _check_cuda_home(machine), _check_libraries(machine)]


def _no_card() -> Finding:
    return Finding("GPU", "broken", "no device found", _DRIVER_CURE)


def _check_capability(capability: Tuple[int, int]) -> Finding:
    subject, found = "compute capability", "{}.{}".format(*capability)
    if capability < _OLDEST:
        found += ": MindSpore's kernels begin with 6.0"
        return Finding(subject, "broken", found, "use a card of 2016 or newer, or a CPU")
    if capability <= _NEWEST:
        return Finding(subject, "ok", found)
    found += ": the wheel has no machine code for it, so the driver compiles all kernels at the "
    found += "first one, for minutes"
    if capability >= (10, 0):
        found += "; cuBLAS and cuDNN of CUDA 11 end with 9.0, nothing is known to work"
    cure = "export CUDA_CACHE_MAXSIZE=4000000000, which keeps them for the next run, and wait"
    return Finding(subject, "note", found, cure)


def _check_cuda_home(machine: Machine) -> Finding:
    """The framework passes its GPU plugin by, without a word, when this is not as it likes."""
    home = machine.environment().get("CUDA_HOME")
    cure = f"export CUDA_HOME=/usr/local/cuda-11.6; without CUDA 11: {_WHEELS} && {_VARIABLES}"
    if not home:
        found = "not set: MindSpore does not look for its GPU plugin"
        return Finding("CUDA_HOME", "broken", found, cure)
    version = machine.nvcc_version()
    found = f"{home}, nvcc {'{}.{}'.format(*version) if version else 'not found'}"
    plugins = _plugins(machine)
    if not plugins:
        cure = f"{PIP} install --force-reinstall -r requirements.txt, on x86-64"
        return Finding("CUDA_HOME", "broken", f"{found}; MindSpore has no GPU plugin", cure)
    # With one plugin nothing is asked of nvcc.
    if len(plugins) == 1 or (version and version[0] == 11 and version[1] >= 1):
        return Finding("CUDA_HOME", "ok", found)
    return Finding("CUDA_HOME", "broken", f"{found}; MindSpore wants 11.1 to 11.8", cure)


def _plugins(machine: Machine) -> List[str]:
    return [name for name in machine.plugins() if name.startswith(_PLUGIN)]


def _check_libraries(machine: Machine) -> Finding:
    version = machine.nvcc_version() or (11, 8)
    # CUDA 11.1 to 11.5 get the plugin for 11.1.
    is_old = len(_plugins(machine)) > 1 and version < (11, 6)
    nvrtc = "libnvrtc.so.11.1" if is_old else "libnvrtc.so.11.2"
    wanted = (*_LIBRARIES, nvrtc, _DRIVER)
    missing = [name for name in wanted if not machine.has_library(name)]
    if not missing:
        return Finding("CUDA libraries", "ok", "CUDA 11 and cuDNN 8 load")
    cures = []
    if missing != [_DRIVER]:
        cures.append(f"{_WHEELS} && {_VARIABLES}")
    if _DRIVER in missing:
        cures.append(_DRIVER_CURE)
    return Finding("CUDA libraries", "broken", f"missing {', '.join(missing)}", "; ".join(cures))
