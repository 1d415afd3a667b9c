"""Checks of Ascend cards, their driver, CANN, and what MindSpore takes from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from ..runtime.npu_smi import FIRST_910, INFERENCE, generation
from ..runtime.regular_files import RECIPE_BYTES, read_text
from .machine import PIP, Finding, Machine

_ASCEND = "usr/local/Ascend"
# Where set_env.sh is, and below it the toolkit of each architecture; CANN 8.5 moved.
_HOMES = (f"{_ASCEND}/cann", f"{_ASCEND}/ascend-toolkit/latest")


@dataclass(frozen=True)
class Toolkit:
    """An installed CANN: `version` such as 8.5.0 or 8.2.RC1, for hosts of `architecture`."""

    home: Path
    architecture: str
    version: str

    @property
    def set_env(self) -> str:
        folder = self.home.parent if self.home.name == "latest" else self.home
        return f"source {folder}/set_env.sh"


def check_ascend(machine: Machine, target: Optional[str]) -> List[Finding]:
    chips = machine.ascend_chips()
    if not chips:
        if target != "Ascend":
            return []
        cure = "install the driver so that `npu-smi info` lists devices, or --device_target CPU"
        return [Finding("Ascend", "broken", "no device found", cure), *_check_software(machine)]
    kind = generation(chips[0])
    found = f"{len(chips)} x {chips[0]} ({kind})"
    if kind == INFERENCE:
        verdict = "broken" if target == "Ascend" else "note"
        cure = "an inference chip does not train: train on a 910, export MINDIR for the 310"
        return [Finding("Ascend", verdict, found, cure)]
    return [_check_plugin(machine, found, kind), *_check_software(machine)]


def _check_software(machine: Machine) -> List[Finding]:
    return [_check_driver(machine), _check_cann(machine), _check_packages(machine)]


def _check_plugin(machine: Machine, found: str, kind: str) -> Finding:
    if not any("ascend" in name for name in machine.plugins()):
        cure = f"{PIP} install --force-reinstall -r requirements.txt"
        return Finding("Ascend", "broken", f"{found}, but MindSpore has no plugin", cure)
    version = machine.version_of("mindspore") or ""
    if kind == FIRST_910 and not version.startswith("2.0."):
        found += f": MindSpore {version} brings operators of its own for Atlas A2 only"
        cure = "python3.9 -m venv .venv20 && .venv20/bin/pip install -r requirements-ms20.txt"
        return Finding("Ascend", "note", found, cure)
    return Finding("Ascend", "ok", found)


def _check_driver(machine: Machine) -> Finding:
    path = machine.root() / _ASCEND / "driver/version.info"
    version = _value_in(path, "version")
    if version is None:
        folder = f"/{_ASCEND}/driver"
        cure = f"in a container: docker run -v {folder}:{folder} ..."
        return Finding("Ascend driver", "note", f"/{_ASCEND}/driver/version.info is missing", cure)
    return Finding("Ascend driver", "ok", version)


def toolkits(machine: Machine) -> List[Toolkit]:
    """Every CANN that is installed at a known place, the one of the environment first."""
    given = machine.environment().get("ASCEND_HOME_PATH")
    homes = [given.lstrip("/")] if given else []
    found = []
    for home in dict.fromkeys([*homes, *_HOMES]):
        for path in sorted((machine.root() / home).glob("*-linux/ascend_toolkit_install.info")):
            version = _value_in(path, "version")
            if version is not None:
                architecture = path.parent.name[: -len("-linux")]
                found.append(Toolkit(Path("/") / home, architecture, version))
    return found


def _value_in(path: Path, key: str) -> Optional[str]:
    """Of a line such as `Version=23.0.3` or `version=8.5.0`."""
    try:
        text = read_text(path, RECIPE_BYTES)
    except (OSError, ValueError):
        return None
    match = re.search(rf"^{key}\s*=\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return match.group(1) if match else None


def _check_cann(machine: Machine) -> Finding:
    here = machine.architecture()
    wanted = machine.cann_of_mindspore()
    installer = f"./Ascend-cann-toolkit_{wanted[-1] if wanted else 'VERSION'}*_linux-{here}.run"
    install = f"bash {installer} --install"
    installed = toolkits(machine)
    if not installed:
        return Finding("CANN", "broken", "not installed", install)
    fitting = [toolkit for toolkit in installed if toolkit.architecture == here]
    if not fitting:
        found = f"{installed[0].version} is for {installed[0].architecture}, this host is {here}"
        return Finding("CANN", "broken", found, install)
    cann = fitting[0]
    if not machine.environment().get("ASCEND_HOME_PATH"):
        found = f"{cann.version} in {cann.home}, but its variables are not set"
        return Finding("CANN", "broken", found, cann.set_env)
    if wanted and ".".join(cann.version.split(".")[:2]) not in wanted:
        version = machine.version_of("mindspore")
        found = f"{cann.version}; MindSpore {version} asks for {', '.join(wanted)}"
        return Finding("CANN", "note", found, install)
    return Finding("CANN", "ok", cann.version)


def _check_packages(machine: Machine) -> Finding:
    """MindSpore imports `te` to compile operators, and `hccl` before several cards meet."""
    missing = [name for name in ("te", "hccl") if not machine.has_module(name)]
    if not missing:
        return Finding("te, hccl", "ok", "CANN's Python packages can be imported")
    home = machine.environment().get("ASCEND_HOME_PATH", f"/{_ASCEND}/ascend-toolkit/latest")
    wheels = " ".join(f"{home}/lib64/{name}-*.whl" for name in missing)
    found = f"{' and '.join(missing)} cannot be imported"
    return Finding("te, hccl", "broken", found, f"{PIP} install {wheels}")
