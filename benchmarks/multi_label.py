"""Images with several labels each, made of Fashion-MNIST, and lists that say them.

python benchmarks/multi_label.py --data_url /usr/share/datasets/fashion-mnist --output data/multi

An image has four quarters; each holds a piece of clothing with probability 0.6, else nothing. Its
labels are the classes of what it holds, none where that is nothing. train.csv and val.csv name the
images of either split, made of that split of the published files. docs/data.md has commands that
train on it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output_folder

_FILLED = 0.6
_SIDE = 28


def write(arguments: argparse.Namespace) -> None:
    """Writes PNG files and the lists."""
    from PIL import Image

    from src.data.idx import open_idx

    check_output_folder("output", arguments.output)
    for split, count in (("train", arguments.train), ("val", arguments.val)):
        source = open_idx(arguments.data_url, "FashionMNIST", split)
        rng = np.random.default_rng(count)
        (arguments.output / split).mkdir(parents=True)
        total = 0
        with (arguments.output / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "labels"))
            for number in range(count):
                pixels, names = np.zeros((2 * _SIDE, 2 * _SIDE, 3), np.uint8), set()
                for quarter in np.flatnonzero(rng.random(4) < _FILLED):
                    row, column = (_SIDE * int(place) for place in divmod(quarter, 2))
                    index = int(rng.integers(len(source)))
                    pixels[row : row + _SIDE, column : column + _SIDE] = source.read(index)
                    names.add(source.class_names[source.labels[index]])
                Image.fromarray(pixels).save(arguments.output / split / f"{number:05d}.png")
                writer.writerow((f"{split}/{number:05d}.png", "|".join(sorted(names))))
                total += len(names)
        print(f"{split}: {count} images with {total} labels")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/multi_label.py", __doc__ or "")
    parser.add_argument("--data_url", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--train", type=positive, default=6000, help="images to train on")
    parser.add_argument("--val", type=positive, default=1000, help="images to evaluate on")
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
