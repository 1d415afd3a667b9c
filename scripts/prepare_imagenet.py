"""Make a data set from ImageNet's own archives: a folder for each class, or packed files.

python scripts/prepare_imagenet.py --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar \\
    --devkit ILSVRC2012_devkit_t12.tar.gz --output data/imagenet
python scripts/prepare_imagenet.py ... --output data/packed --pack --short_side 256

Train from folders with `set: ImageNet`, from packed files with `set: MindRecord`. If the program
was stopped, start it again: it goes on with what is not there yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.data.packing_options import add_packing_options, check_packing_options, given_options
from src.errors import UserError
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import check_output_folder
from src.runtime.text import check_utf8


def work(arguments: argparse.Namespace) -> None:
    """Reads the devkit and what the archives list, then writes one split after the other."""
    check(arguments)
    from src.data.archive_extraction import sole_preparer
    from src.data.devkit import read_devkit
    from src.data.imagenet_archives import MD5, check_md5, open_archives
    from src.data.imagenet_preparation import extract, pack, write_words

    is_partial = arguments.allow_partial
    devkit = read_devkit(arguments.devkit)
    if not is_partial:
        devkit.check_whole()
    archives = open_archives(arguments.train, arguments.val, devkit, allow_partial=is_partial)
    for name in MD5 if arguments.check_md5 else ():
        if path := getattr(arguments, name):
            check_md5(path, MD5[name])
    with sole_preparer(arguments.output):
        if arguments.pack:
            class_names = pack(archives, arguments)
        else:
            class_names = extract(archives, arguments.output, allow_partial=is_partial)
        write_words(arguments.output, class_names, devkit)


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for what the command line cannot mean."""
    if not arguments.train and not arguments.val:
        raise UserError("--train or --val is needed, or both: the archives to read")
    check_utf8("--output", arguments.output)
    check_packing_options(arguments)
    given = given_options(arguments, create_parser())
    if given and not arguments.pack:
        raise UserError(f"--{given[0]}: is for --pack; give both, or neither")
    check_output_folder("output", arguments.output)


def create_parser() -> CommandParser:
    parser = CommandParser("prepare_imagenet.py", __doc__ or "")
    parser.add_argument("--train", type=Path, help="ILSVRC2012_img_train.tar")
    parser.add_argument("--val", type=Path, help="ILSVRC2012_img_val.tar")
    parser.add_argument(
        "--devkit", type=Path, required=True, help="ILSVRC2012_devkit_t12.tar.gz, for the labels"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write; gets train/ and val/"
    )
    parser.add_argument("--pack", action="store_true", help="write packed files (MindRecord)")
    parser.add_argument(
        "--allow_partial",
        action="store_true",
        help="take archives of fewer classes or images than the challenge's",
    )
    parser.add_argument(
        "--check_md5",
        action="store_true",
        help="first compare the archives with the MD5 sums of the originals",
    )
    add_packing_options(parser)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(work, create_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
