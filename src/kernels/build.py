"""Compiles `native/*.cc` for this machine, once: the library is kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import List, Mapping, Optional, Sequence

from ..errors import UserError

SOURCES = Path(__file__).resolve().parent / "native"
COMPILERS = ("g++", "clang++", "c++")
# On ARM -march=native sets the instructions alone, -mcpu=native also the core they are ordered for.
NATIVE = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
# No -ffast-math: it drops NaN and infinity, by which overflow is recognised. The two switches give
# up errno and floating-point traps, which nothing here reads.
FLAGS = (
    f"-std=c++17 -O3 {NATIVE} -ffp-contract=fast -fno-math-errno -fno-trapping-math "
    "-fopenmp -fPIC -shared"
).split()


def find_compiler(environment: Mapping[str, str]) -> Optional[str]:
    """Path of a C++ compiler: CXX if set, else the first of `COMPILERS`; None: there is none."""
    names = [environment["CXX"]] if environment.get("CXX") else COMPILERS
    found = (shutil.which(name, path=environment.get("PATH")) for name in names)
    return next((path for path in found if path), None)


def library(environment: Mapping[str, str]) -> Path:
    """Path of the compiled library, after compiling it if this machine has none yet.

    Raises:
        UserError: no compiler, a compiler that fails, or a cache that cannot be written.
    """
    compiler = find_compiler(environment)
    if compiler is None:
        raise UserError(f"no C++ compiler ({', '.join(COMPILERS)}, or CXX) on this machine")
    path = cached(compiler, environment)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            compile_library(compiler, FLAGS, path)
        except (OSError, subprocess.SubprocessError) as error:
            output = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise UserError(f"{compiler} fails: {output[0] if output else error}") from error
    return path


def cached(compiler: str, environment: Mapping[str, str]) -> Path:
    """Where the library of this compiler lies, or will.

    In `$XDG_CACHE_HOME/mindspore_vision_kernels` (`~/.cache` without the variable), under a name
    made of sources, flags, compiler and processor.
    """
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mindspore_vision_kernels" / f"kernels-{_fingerprint(compiler)}.so"


def compile_library(compiler: str, flags: Sequence[str], path: Path) -> None:
    """Compiles every source into `path`, which appears whole or not at all.

    Raises:
        subprocess.SubprocessError: the compiler fails, or takes more than five minutes.
    """
    handle, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        sources = [str(source) for source in sorted(SOURCES.glob("*.cc"))]
        command = [compiler, *flags, "-o", name, *sources]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _fingerprint(compiler: str) -> str:
    try:
        processor = identity(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        processor = platform.processor()
    words = [compiler, *FLAGS, platform.machine(), processor]
    parts: List[bytes] = [word.encode() for word in words]
    parts += [source.read_bytes() for source in sorted(SOURCES.iterdir())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def identity(cpuinfo: str) -> str:
    """Model and instruction sets: a home folder may be shared by different machines.

    Linux on ARM gives no name, but numbers: of the designer, the core and its revision.
    """
    said = ("model name", "flags", "Features", "CPU implementer", "CPU variant", "CPU part")
    return "\n".join(sorted({line for line in cpuinfo.splitlines() if line.startswith(said)}))
