"""Compare how well the features of several weights suit a data set.

python scripts/knn.py --weights A.ckpt B.ckpt --data_url DIR

Each image goes through each network once. Nothing is trained but a linear layer on the features.
The table is sorted by the accuracy on val/ of logistic regression learnt on train/. Beside it stand
the vote of the k nearest neighbours, by cosine similarity, and LogME (You et al. 2021), which needs
train/ only. Every key of a recipe is an option too; --data_url names the data. Features are kept in
the user's cache folder. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.args import PredictRun, replace
from src.checkpoints.named_weights import stage_weights
from src.configs.parser import COMMAND_LINE, DEFAULT
from src.errors import UserError
from src.runtime.device import setup_device
from src.runtime.entry import CommandParser, parse_recipe, run_parsed, whole
from src.runtime.files import check_output, write_whole
from src.runtime.text import printable, to_utf8
from src.storage.staging import stage_inputs

# Keys that say which images there are.
OF_DATA = (
    *("set", "data_url", "val_share", "class_order"),
    *("train_list", "val_list", "label_separator"),
)
COLUMNS = ("weights", "arch", "image_size", "features", "knn", "linear", "logme", "seconds")


def compare(arguments: argparse.Namespace, config: PredictRun) -> None:
    """Prints the table, and writes it."""
    if config.origins["data_url"] == DEFAULT and config.data.set != "Digits":
        raise UserError("data_url: not given, and weights are compared on your data; give it")
    if config.origins["pretrained"] == COMMAND_LINE:
        raise UserError(f"pretrained {config.model.pretrained!r}: give it as --weights")
    if config.data.label_separator is not None:
        raise UserError(
            f"label_separator {config.data.label_separator!r}: weights are compared by images of "
            "one label each; leave it out"
        )
    if arguments.k < 1:
        raise UserError(f"k {arguments.k}: expected 1 or more")
    if arguments.output:
        check_output("output", arguments.output, ".csv")
    from src.data.sources import count_classes, open_source
    from src.report.transfer import import_sklearn

    import_sklearn()
    config = stage_inputs(config)
    for training in (True, False):  # what is wrong with the data is said before networks are built
        source = open_source(replace(config, num_classes=count_classes(config)), training)
        if training and len(set(source.labels.tolist())) < 2:
            raise UserError(
                f"data_url {config.data.data_url!r}: has images of one class, and features are "
                "compared by how they tell classes apart; give two classes or more"
            )
    setup_device(config.run, seed=config.train.seed)
    from src.serving.complete_config import complete_by_file

    for weights in arguments.weights:  # what is missing or damaged is said before any work
        complete_by_file(replace(config, pretrained=weights))
    rows = [score(config, weights, arguments.k) for weights in arguments.weights]
    rows.sort(key=lambda row: (-row["linear"], -row["knn"]))
    _print(rows)
    if arguments.output:
        write_whole(arguments.output, to_utf8(_csv(rows)))
        print(f"wrote {arguments.output}")


def score(config: PredictRun, weights: str, neighbours: int) -> Dict[str, Any]:
    """One row of the table."""
    from src.report.transfer import linear_accuracy, log_evidence, neighbour_accuracy
    from src.serving.predictor import FeatureExtractor

    start = time.monotonic()
    extractor = FeatureExtractor(stage_weights(replace(config, pretrained=weights)))
    train, val = (features_of(config, extractor, training) for training in (True, False))
    return {
        "weights": weights,
        "arch": extractor.config.model.arch,
        "image_size": extractor.config.model.image_size,
        "features": extractor.num_features,
        "knn": round(neighbour_accuracy(train, val, neighbours), 3),
        "linear": round(linear_accuracy(train, val), 3),
        "logme": round(log_evidence(train), 4),
        "seconds": round(time.monotonic() - start, 1),
    }


def features_of(given: PredictRun, extractor: Any, training: bool) -> Any:
    """Features of a split: those of before, or of one pass over its images."""
    import numpy as np

    from src.data.imagenet import create_pass
    from src.data.sources import count_classes, open_source
    from src.report.feature_cache import features_key, load_features, store_features
    from src.report.transfer import Split

    # Weights name the data they learnt; these are other ones.
    own = {key: getattr(given.data, key) for key in OF_DATA}
    config = replace(extractor.config, **own)
    config = replace(config, num_classes=count_classes(config))
    source = open_source(config, training)
    key = features_key(config, source)
    held = load_features(key)
    if held is not None:
        return held
    parts: List[Any] = []
    labels: List[Any] = []
    for batch in create_pass(config, source).batches():
        is_there = batch.label >= 0  # neither padding nor an image that cannot be read
        parts.append(extractor(batch.image)[is_there])
        labels.append(batch.label[is_there].copy())
    split = Split(np.concatenate(parts), np.concatenate(labels))
    if len(np.unique(split.labels)) < (2 if training else 1):
        raise UserError(f"data_url {config.data.data_url!r}: too few of its images can be read")
    store_features(key, split)
    return split


def _print(rows: Sequence[Dict[str, Any]]) -> None:
    shown = [COLUMNS, *([printable(str(row[column])) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[column]) for line in shown) for column in range(len(COLUMNS))]
    for line in shown:
        cells = [cell.ljust(width) for cell, width in zip(line[:2], widths)]
        cells += [cell.rjust(width) for cell, width in zip(line[2:], widths[2:])]
        print("  ".join(cells))


def _csv(rows: Sequence[Dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def create_parser() -> CommandParser:
    """The options that are no keys of a recipe."""
    parser = CommandParser("knn.py", __doc__ or "")
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        metavar="WEIGHTS",
        help="checkpoints, or names of published weights",
    )
    parser.add_argument(
        "--k", type=whole, default=10, help="how many nearest neighbours vote (default 10)"
    )
    parser.add_argument("--output", type=Path, help=".csv to write")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments, keys = create_parser().parse_with_keys(argv)
    config = parse_recipe(keys, PredictRun)
    return run_parsed(lambda arguments: compare(arguments, config), arguments, config)


if __name__ == "__main__":
    sys.exit(main())
