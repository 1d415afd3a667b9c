"""A folder of Fashion-MNIST with classes of very unequal size, to compare what helps.

python benchmarks/long_tail.py --data_url /usr/share/datasets/fashion-mnist --output data/long_tail

train/ has N images of the first class, fewer of each next one by the same factor, and N / RATIO of
the last (the profile of Cui et al., arXiv 1901.05555). val/ has 200 of each class. The first images
of the published files are taken. docs/data.md has commands that train on it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command
from src.runtime.files import check_output_folder

_VAL_IMAGES = 200


def counts_of(largest: int, ratio: float, classes: int) -> np.ndarray:
    """Images of each class, (classes,), from `largest` to `largest` / `ratio`."""
    return np.round(largest * ratio ** (-np.arange(classes) / (classes - 1))).astype(int)


def write(arguments: argparse.Namespace) -> None:
    """Writes PNG files in class folders."""
    from PIL import Image

    from src.data.idx import open_idx

    check_output_folder("output", arguments.output)
    for split in ("train", "val"):
        images = open_idx(arguments.data_url, "FashionMNIST", split)
        classes = len(images.class_names)
        counts = np.full(classes, _VAL_IMAGES)
        if split == "train":
            counts = counts_of(arguments.largest, arguments.ratio, classes)
        for label, count in enumerate(counts):
            folder = arguments.output / split / images.class_names[label].replace("/", " or ")
            folder.mkdir(parents=True)
            for index in np.flatnonzero(images.labels == label)[:count]:
                Image.fromarray(images.read(int(index))).save(folder / f"{index:05d}.png")
        print(f"{split}: {' '.join(map(str, counts))}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/long_tail.py", __doc__ or "")
    parser.add_argument("--data_url", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--largest", type=positive, default=1000, help="images of the first class")
    parser.add_argument("--ratio", type=positive, default=50, help="first class to last class")
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
