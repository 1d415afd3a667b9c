"""The kernels `native/*.cc`, compiled for this machine."""

from __future__ import annotations

import platform
from pathlib import Path

from ..runtime.native_library import NativeLibrary

SOURCES = Path(__file__).resolve().parent / "native"
# On ARM -march=native sets the instructions alone, -mcpu=native also the core they are ordered for.
NATIVE = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
# No -ffast-math: it drops NaN and infinity, by which overflow is recognised. The two switches give
# up errno and floating-point traps, which nothing here reads.
FLAGS = (
    f"-std=c++17 -O3 {NATIVE} -ffp-contract=fast -fno-math-errno -fno-trapping-math "
    "-fopenmp -fPIC -shared"
).split()
KERNELS = NativeLibrary("kernels", SOURCES, tuple(FLAGS))
