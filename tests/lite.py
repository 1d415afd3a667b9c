"""The C++ program on MindSpore Lite 2.0 and MindSpore 2.0.0, for tests that run both."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, List, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent
# LITE_HOME and VENV20 name installations elsewhere.
_BUILD = ROOT / "build" / "tests" / "infer"


@functools.cache
def lite_home() -> Path:
    """Lite 2.0, fetched when it is not there; skips the test where it cannot be."""
    if "LITE_HOME" in os.environ:
        return Path(os.environ["LITE_HOME"])
    command = ["bash", str(ROOT / "scripts" / "get_lite.sh")]
    fetched = subprocess.run(command, capture_output=True, text=True)
    if fetched.returncode != 0:
        pytest.skip(f"no MindSpore Lite 2.0: {fetched.stderr.strip()}")
    return Path(fetched.stdout.strip())


def python_of_ms20() -> str:
    """The interpreter that has MindSpore 2.0.0; skips the test where there is none."""
    path = Path(os.environ.get("VENV20", ROOT / ".venv20")) / "bin" / "python"
    if not path.exists():
        pytest.skip("no MindSpore 2.0.0; bash scripts/run_core_tests.sh installs it")
    return str(path)


@functools.cache
def program() -> Path:
    """The C++ program, built against `lite_home`; skips the test where it cannot be."""
    need_compiler()
    environment = {**os.environ, "LITE_HOME": str(lite_home()), "BUILD_DIR": str(_BUILD)}
    command = ["bash", str(ROOT / "ascend310_infer" / "build.sh")]
    built = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return _BUILD / "main"


def need_compiler() -> None:
    """Skips the test without CMake or a C++ compiler."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def infer(
    mindir: Path,
    inputs: Path,
    output: Path,
    *more: str,
    before: Optional[Callable[[], None]] = None,
) -> subprocess.CompletedProcess:
    """Runs the C++ program on this CPU; its times go beside `output`, `before` runs in it first."""
    command = [str(program()), *arguments(mindir, inputs, output), *more]
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=before
    )


def arguments(mindir: Path, inputs: Path, output: Path) -> List[str]:
    """Options of the C++ program on this CPU."""
    paths = {"mindir_path": mindir, "input0_path": inputs, "output_path": output}
    paths["time_path"] = output.with_name(f"{output.name}-time")
    return ["--device_target=CPU", *(f"--{name}={path}" for name, path in paths.items())]


def export_with_ms20(*exports: List[str]) -> None:
    """Runs export.py of MindSpore 2.0.0 once for each list of options."""
    code = f"import sys, export; sys.exit(any([export.main(words) for words in {exports!r}]))"
    done = subprocess.run([python_of_ms20(), "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
