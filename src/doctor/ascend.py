"""Checks of Ascend devices."""

from __future__ import annotations

from typing import List, Optional

from .machine import PIP, Finding, Machine


def check_ascend(machine: Machine, target: Optional[str]) -> List[Finding]:
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
        cure = f"{PIP} install --force-reinstall -r requirements.txt"
        return [Finding("Ascend", "broken", f"{found}, but MindSpore has no plugin", cure)]
    return [Finding("Ascend", "ok", f"{found}, CANN {cann}")]
