"""Check a bundle on this machine: does it compute here what it computed where it was made?

python scripts/check_bundle.py FOLDER

FOLDER is what `export.py --bundle FOLDER` made, copied to this machine. Every file is compared with
its SHA-256. The five images of the bundle are turned into pixels here, and their recorded pixels
into logits. The largest differences are shown for each image. Exit code: 0; 1 when an image
differs; 2 for an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.args import PredictRun, replace
from src.runtime.device import setup_device
from src.runtime.entry import CommandParser, finite, run_command, whole
from src.runtime.text import printable


def check(arguments: argparse.Namespace) -> int:
    """Prints a line for each image, and what is wrong."""
    given = {"device_target": arguments.device_target, "device_id": arguments.device_id}
    config = replace(PredictRun(), **given)
    setup_device(config.run, seed=config.train.seed)
    from src.serving.bundle_check import check_bundle, explain

    differences = []
    for found in check_bundle(arguments.folder, config, arguments.tolerance):
        print(printable(found.line()))
        differences.append(found)
    wrong = explain(differences)
    if wrong:
        print(f"error: bundle {printable(str(arguments.folder))!r}: {wrong}", file=sys.stderr)
        return 1
    largest = max(found.logits for found in differences)
    print(f"{len(differences)} images agree, logits within {largest:.3g}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("check_bundle.py", __doc__ or "")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="bundle to check")
    parser.add_argument(
        "--device_target",
        choices=("CPU", "GPU", "Ascend"),
        default="CPU",
        help="device that a .mindir runs on (default CPU); an .onnx runs on the CPU",
    )
    parser.add_argument(
        "--device_id", type=whole, default=0, help="number of the device (default 0)"
    )
    parser.add_argument(
        "--tolerance",
        type=finite,
        help="allowed difference of a logit, as a share of the largest (default: the bundle's)",
    )
    return run_command(check, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
