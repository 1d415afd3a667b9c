"""Average the weights of several checkpoints of a network, and write them as one checkpoint.

python scripts/average_checkpoints.py CHECKPOINT... --output Y.ckpt

A folder stands for its epoch_*.ckpt. The mean is computed in float64; running statistics of
BatchNorm are averaged like weights. The optimizer, its averages and its counters are left out.
train.py and eval.py take the file as --pretrained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.data.classes import describe_difference
from src.errors import UserError
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import check_output

Arrays = Dict[str, np.ndarray]

# What a checkpoint says of its network, as opposed to the state of a run.
NETWORK_KEYS = (
    *("arch", "num_classes", "img_size", "config", "naming", "class_names", "class_order"),
    *("published", "licence"),
)


def average(arguments: argparse.Namespace) -> None:
    """Checks what costs nothing, then averages."""
    check_output("output", arguments.output, ".ckpt")
    paths = [file for path in arguments.checkpoints for file in _files(path)]
    if len(paths) < 2:
        raise UserError(f"checkpoint {str(paths[0])!r}: an average needs two or more")
    _average(paths, arguments.output, ema=arguments.ema)
    print(f"{arguments.output}: mean of {len(paths)} checkpoints, {' '.join(map(str, paths))}")


def _files(path: Path) -> List[Path]:
    if not path.is_dir():
        return [path]
    from src.checkpoints.record import read_record
    from src.runs.own_files import epoch_files, epoch_of

    files = epoch_files(path)
    for other in path.iterdir():
        is_file = epoch_of(other.name) is not None and other.is_file()
        if is_file and other not in files:
            read_record(other)  # a damaged one is refused, not left out
    if not files:
        raise UserError(f"checkpoint {str(path)!r}: no epoch_*.ckpt in that folder; name the files")
    return files


def _average(paths: Sequence[Path], output: Path, *, ema: bool) -> None:
    from src.args import RunConfig
    from src.runtime.device import setup_device

    setup_device(RunConfig(), seed=1)
    from mindspore import Parameter, Tensor

    from src.checkpoints.checkpoint import STATE_PREFIX, read_checkpoint, save_checkpoint
    from src.checkpoints.saved_record import SavedRecord

    totals: Dict[str, Any] = {}
    first: Any = None
    for path in paths:
        checkpoint = read_checkpoint(path)
        checkpoint = checkpoint.averaged() if ema else checkpoint
        arrays = {
            name: tensor.asnumpy()
            for name, tensor in checkpoint.tensors.items()
            if not name.startswith(STATE_PREFIX)
        }
        if first is None:
            first, dtypes = checkpoint, {name: array.dtype for name, array in arrays.items()}
            totals = {name: np.zeros(array.shape) for name, array in arrays.items()}
        _check_same_network(first, checkpoint, totals, arrays)
        for name, array in arrays.items():
            totals[name] += array
    means = [
        Parameter(Tensor((total / len(paths)).astype(dtypes[name])), name=name)
        for name, total in totals.items()
    ]
    of_network = {key: getattr(first.record, key) for key in NETWORK_KEYS}
    record = SavedRecord(**of_network, averaged=[str(path) for path in paths])
    save_checkpoint(output, means, record.as_json())


def _check_same_network(first: Any, other: Any, due: Arrays, held: Arrays) -> None:
    shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (due, held)]
    names = [checkpoint.record.class_names for checkpoint in (first, other)]
    difference = describe_difference(*names) if all(names) else None
    if difference:
        raise UserError(
            f"checkpoint {str(other.path)!r}: its classes (here) differ from those of {first.path} "
            f"(there): {difference}; average checkpoints of one data set"
        )
    archs = [checkpoint.record.arch for checkpoint in (first, other)]
    if shapes[0] == shapes[1] and archs[0] == archs[1]:
        return
    names = sorted({*due, *held})
    differing = [name for name in names if shapes[0].get(name) != shapes[1].get(name)]
    shown = [f"{name} {shapes[0].get(name)} and {shapes[1].get(name)}" for name in differing]
    more = f"; {len(shown)} tensors differ: {', '.join(shown[:3])}" if shown else ""
    raise UserError(f"{other.describe()}: another network than {first.describe()}{more}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("average_checkpoints.py", __doc__ or "")
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="file, or folder of a run"
    )
    parser.add_argument("--output", required=True, type=Path, help=".ckpt to write")
    parser.add_argument(
        "--ema",
        action="store_true",
        help="take the averaged weights of each (default: the raw ones)",
    )
    return run_command(average, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
