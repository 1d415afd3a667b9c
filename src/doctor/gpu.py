"""Checks of NVIDIA GPUs."""

from __future__ import annotations

from typing import List, Optional

from .machine import Finding, Machine

# Shared libraries the GPU plugin of MindSpore's wheel asks for: CUDA 11 and cuDNN 8.
_GPU_LIBRARIES = ("libcudart.so.11.0", "libcublas.so.11", "libcudnn.so.8", "libnvrtc.so.11.2")


def check_gpu(machine: Machine, target: Optional[str]) -> List[Finding]:
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
