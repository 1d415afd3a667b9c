"""Checks of what every machine has: Python, packages, processor, limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from ..errors import UserError, some_of
from ..launch import rank_table
from ..launch.rank_table_files import load_table
from .machine import PIP, Finding, Machine

_GIB = 1024**3
_FIRST_GCC = 9


def check_python(machine: Machine) -> Finding:
    version = machine.python()
    found = f"{'.'.join(map(str, version))} on {machine.architecture()}"
    is_for_2_0 = version[:2] == (3, 9) and machine.version_of("mindspore") is not None
    if (3, 10) <= version[:2] < (3, 13) or is_for_2_0:
        return Finding("Python", "ok", found)
    found += ": MindSpore 2.10 has wheels for 3.10 to 3.12, 2.0 for 3.9"
    cure = "python3.11 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    if version[:2] == (3, 9):
        cure += f"; or, for MindSpore 2.0: {PIP} install -r requirements-ms20.txt"
    return Finding("Python", "broken", found, cure)


def check_mindspore(machine: Machine) -> Finding:
    version = machine.version_of("mindspore")
    if version is None:
        cure = f"{PIP} install -r requirements.txt"
        return Finding("MindSpore", "broken", "not installed", cure)
    plugins = ", ".join(machine.plugins()) or "none: CPU only"
    found = f"{version}, plugins {plugins}"
    if version.startswith("2."):
        return Finding("MindSpore", "ok", found)
    return Finding("MindSpore", "broken", found, f"{PIP} install -r requirements.txt")


def check_numpy(machine: Machine) -> Finding:
    version = machine.version_of("numpy")
    if version is None:
        return Finding("NumPy", "broken", "not installed", f"{PIP} install 'numpy<2'")
    if int(version.split(".")[0]) < 2:
        return Finding("NumPy", "ok", version)
    found = f"{version}: operators of MindSpore 2.10 fail with it (numpy.core.multiarray)"
    return Finding("NumPy", "broken", found, f"{PIP} install 'numpy<2' 'scipy<1.18'")


def check_moxing(machine: Machine) -> Optional[Finding]:
    # Only PyPI's package of that name says it is about llama.cpp; Huawei's comes with ModelArts.
    if not machine.has_module("moxing"):
        return None
    if machine.has_module("moxing.file"):
        return Finding("moxing", "ok", "Huawei's, reads and writes OBS")
    found = "PyPI's package of that name, which has nothing to do with OBS"
    return Finding("moxing", "broken", found, f"{PIP} uninstall -y moxing")


def check_avx512(machine: Machine) -> Optional[Finding]:
    if "avx512f" not in machine.cpu_flags():
        return None
    limit = machine.environment().get("ONEDNN_MAX_CPU_ISA")
    if limit in (None, "AVX2"):
        return Finding("AVX-512", "ok", "convolutions are kept off its slow path (AVX2 is used)")
    found = f"ONEDNN_MAX_CPU_ISA={limit}: convolutions take the slow path, up to 100 times slower"
    return Finding("AVX-512", "note", found, "unset ONEDNN_MAX_CPU_ISA")


def check_shared_memory(machine: Machine) -> Optional[Finding]:
    free = machine.free_bytes(Path("/dev/shm"))
    if free is None:
        return None
    found = f"{free / _GIB:.1f} GiB free in /dev/shm, {machine.cores()} cores"
    if free >= _GIB:
        return Finding("shared memory", "ok", found)
    return Finding("shared memory", "note", found, "docker run --shm-size=8g ...")


def check_compiler(machine: Machine) -> Finding:
    """The C++ program needs <filesystem> in the standard library and <charconv>: GCC 9."""
    said = machine.compiler()
    if said is None:
        found = "none: cpu_kernels auto takes the slower `pure`, the C++ program cannot be built"
        return Finding("C++ compiler", "note", found, "apt-get install g++")
    version = re.search(r"\) ([0-9]{1,4})\.", said)
    if "clang" not in said and version and int(version.group(1)) < _FIRST_GCC:
        found = f"{said}: too old for the C++ program (<charconv>, <filesystem>)"
        cure = "apt-get install g++-9 && export CXX=g++-9 (CentOS 7: devtoolset-9)"
        return Finding("C++ compiler", "note", found, cure)
    return Finding("C++ compiler", "ok", said)


def check_line_endings(machine: Machine) -> Optional[Finding]:
    root = machine.repository()
    scripts = [
        path for glob in ("scripts/*.sh", "*/build.sh", ".ci/run") for path in root.glob(glob)
    ]
    wrong = [str(path.relative_to(root)) for path in scripts if b"\r\n" in path.read_bytes()]
    if not wrong:
        return None
    found = f"{some_of(wrong)}: lines end as on Windows, at which bash stumbles (set: pipefail)"
    return Finding("scripts", "broken", found, f"cd {root} && sed -i 's/\\r$//' {' '.join(wrong)}")


def check_open_files(machine: Machine) -> Finding:
    limit = machine.open_files()
    verdict = "ok" if limit >= 4096 or limit < 0 else "note"
    cure = "" if verdict == "ok" else "ulimit -n 65536"
    return Finding("open files", verdict, f"limit {limit}", cure)


def check_disk(machine: Machine, root: Path) -> Finding:
    free = machine.free_bytes(root) or 0
    found = f"{free / _GIB:.1f} GiB free in {root}"
    if free >= 5 * _GIB:
        return Finding("disk", "ok", found)
    return Finding("disk", "note", found, "make room, or give train.py --train_url on another disk")


def check_rank_table(machine: Machine) -> Optional[Finding]:
    given = machine.environment().get("RANK_TABLE_FILE")
    if not given:
        return None
    path = Path(given)
    cure = "export RANK_TABLE_FILE=/ABSOLUTE/PATH.json; scripts/rank_table.py makes one"
    try:
        table = load_table(path)
        rank_table.check_rank_table(table)
    except UserError as error:
        return Finding("rank table", "broken", f"{given}: cannot be used ({error})", cure)
    devices = [device for server in table["server_list"] for device in server["device"]]
    found = f"{given}: {len(table['server_list'])} servers, {len(devices)} devices"
    if not path.is_absolute():
        return Finding("rank table", "note", f"{found}; the path is relative", cure)
    return Finding("rank table", "ok", found)
