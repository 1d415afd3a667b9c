"""Draw the curves of several runs into one picture: losses, learning rate and top-1.

python scripts/plot_runs.py RUN...

A run is its folder, or its metrics.csv. Each has a colour; dashed is the top-1 of the averaged
weights.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.runs.records import COLUMNS, draw_runs, read_records
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import check_output, unused

NEEDED = ("step", "epoch", "loss", "lr", "val_loss", "top1")


def plot(arguments: argparse.Namespace) -> None:
    """Reads all runs before it draws, so that nothing is written when one is wrong."""
    output = arguments.output or unused(_folder(arguments.runs[0]).parent / "runs.png")
    check_output("output", output, ".png", ".PNG")
    runs = {name: _read(path) for name, path in _names(arguments.runs).items()}
    draw_runs(runs, output, against=arguments.x)
    print(f"{output}: {len(runs)} runs")


def _folder(path: Path) -> Path:
    # Unlike `Path.resolve` of a link that leads round.
    return Path(os.path.realpath(path.parent if path.suffix == ".csv" else path))


def _names(paths: Sequence[Path]) -> Dict[str, Path]:
    """Label -> path; the folder's name where that tells the runs apart, else the whole path."""
    short = [_folder(path).name for path in paths]
    labels = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return dict(zip(labels, paths))


def _read(path: Path) -> List[Dict[str, str]]:
    file = path if path.suffix == ".csv" else path / "metrics.csv"
    if not file.is_file():
        raise UserError(f"run {str(path)!r}: no {file.name} there; give a folder that holds one")
    try:
        rows = read_records(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"run {str(path)!r}: {file} is not as a run wrote it ({reason}); leave it out"
        ) from error
    if not rows:
        raise UserError(f"run {str(path)!r}: {file} has no rows yet")
    missing = [column for column in NEEDED if column not in rows[0]]
    if missing:
        raise UserError(
            f"run {str(path)!r}: {file} lacks {', '.join(missing)}; expected the columns "
            f"{', '.join(COLUMNS)}"
        )
    return rows


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("plot_runs.py", __doc__ or "")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or its metrics.csv"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="picture to write (default: runs.png, or runs_2.png, ..., beside the first run)",
    )
    parser.add_argument(
        "--x", choices=("epoch", "step"), default="epoch", help="horizontal axis (default: epoch)"
    )
    return run_command(plot, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
