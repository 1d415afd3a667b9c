"""Check this machine for training and inference, and say how to cure what is wrong.

python scripts/doctor.py [--device_target Ascend]

Python, packages, devices, limits and the rank table are examined, and three steps are trained on
each device that is there. Every finding that is not ok comes with the command that cures it. The
exit code is 1 when something is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.doctor.diagnosis import diagnose
from src.doctor.machine import Machine
from src.runtime.entry import CommandParser, run_command

MARKS = {"ok": "ok     ", "note": "note   ", "broken": "BROKEN "}


def examine(arguments: argparse.Namespace) -> int:
    """Prints the findings."""
    machine = Machine()
    findings = diagnose(
        machine, target=arguments.device_target, probe=not arguments.no_probe, root=Path.cwd()
    )
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{MARKS[finding.verdict]}{finding.subject}: {finding.found}")
            if finding.cure:
                print(f"       -> {finding.cure}")
    return int(any(finding.verdict == "broken" for finding in findings))


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("doctor.py", __doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--no_probe", action="store_true", help="do not train the three steps")
    parser.add_argument(
        "--device_target",
        choices=("Ascend", "GPU", "CPU"),
        help="what you want to train on (default: whatever is here)",
    )
    return run_command(examine, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
