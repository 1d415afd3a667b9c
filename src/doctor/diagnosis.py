"""All checks of a machine: a list of findings, each with its cure."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Optional

from . import host
from .ascend import check_ascend
from .gpu import check_gpu
from .machine import Finding, Machine

# Without these MindSpore cannot be imported.
_FATAL = ("Python", "MindSpore", "NumPy")


def diagnose(machine: Machine, *, target: Optional[str], probe: bool, root: Path) -> List[Finding]:
    """All findings, from Python to the probe.

    Args:
        target: what training is wanted on; None: whatever is there.
        root: a folder of the disk that checkpoints go to.
    """
    checks: List[Callable[[Machine], Optional[Finding]]] = [
        host.check_python,
        host.check_mindspore,
        host.check_numpy,
        host.check_moxing,
        host.check_avx512,
        host.check_shared_memory,
        host.check_open_files,
        host.check_line_endings,
        host.check_compiler,
        host.check_rank_table,
    ]
    findings = [finding for check in checks for finding in [check(machine)] if finding]
    findings += [
        host.check_disk(machine, root),
        *check_ascend(machine, target),
        *check_gpu(machine, target),
    ]
    if probe and not any(f.verdict == "broken" for f in findings if f.subject in _FATAL):
        findings += [_probe(machine, device) for device in _devices(machine, target)]
    return findings


def _devices(machine: Machine, target: Optional[str]) -> List[str]:
    if target:
        return [target]
    here = ["CPU"]
    here += ["GPU"] if machine.gpus() else []
    return here + (["Ascend"] if machine.ascend_chips() else [])


def _probe(machine: Machine, device: str) -> Finding:
    worked, said = machine.train_three_steps(device)
    subject = f"three steps on {device}"
    if worked:
        return Finding(subject, "ok", said)
    return Finding(subject, "broken", said, "cure what is broken above, then run this again")
