"""Score what the C++ program has computed: top-1 and top-5, printed and written beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.errors import UserError
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import write_json
from src.serving.result_files import read_labels, score_results
from src.settings.programs import DATASET_NAMES

SCORES = "inference_scores.json"


def create_parser() -> CommandParser:
    """The options."""
    parser = CommandParser("postprocess.py", __doc__ or "")
    parser.add_argument("--result_dir", type=Path, required=True, help="folder it wrote into")
    parser.add_argument(
        "--dataset_name",
        required=True,
        type=str.lower,
        choices=list(DATASET_NAMES),
        help="the one that preprocess.py was given",
    )
    parser.add_argument(
        "--label_file",
        type=Path,
        default=Path("preprocess_Result/label.json"),
        help="labels that preprocess.py wrote (default: %(default)s)",
    )
    return parser


def postprocess(options: argparse.Namespace) -> None:
    """Prints the two scores and writes inference_scores.json beside the results."""
    labels = read_labels(options.label_file)
    asked = DATASET_NAMES[options.dataset_name]
    if labels.dataset_name != asked:
        raise UserError(
            f"dataset_name {options.dataset_name!r}: {options.label_file} has labels of "
            f"{labels.dataset_name}; give --dataset_name {labels.dataset_name.lower()}"
        )
    result = score_results(options.result_dir, labels)
    write_json(
        options.result_dir / SCORES,
        {
            "kind": "inference",
            "version": 1,
            "result_dir": str(options.result_dir),
            "dataset_name": asked,
            **result.as_json(),
        },
    )
    print(f"Top1 acc: {result.top1 / 100:.5f}")
    print(f"Top5 acc: {result.top5 / 100:.5f}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(postprocess, create_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
