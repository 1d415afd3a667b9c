"""Pack a data set into a few large files (MindRecord), or check a packed one.

python scripts/pack_dataset.py --data_url data/imagenet --output data/packed --short_side 256
python scripts/pack_dataset.py --data_url data/cifar10 --set CIFAR10 --output data/packed
python scripts/pack_dataset.py --data_url pets --train_list all.csv --val_share 0.1 --output packs
python scripts/pack_dataset.py --verify data/packed

Train from them with `set: MindRecord` and `data_url: data/packed`. If the program was stopped,
start it again: it goes on with the first file that is not whole.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.data.classes import CLASS_ORDERS
from src.data.packing_options import (
    add_packing_options,
    check_packing_options,
    packing_settings,
    report_packed,
)
from src.errors import UserError
from src.runtime.entry import CommandParser, finite, run_command
from src.runtime.files import check_output_folder, file_sha256
from src.runtime.text import check_utf8
from src.settings.data import SEPARATORS, UNPACKED_SETS

_SPLITS = ("train", "val")


def work(arguments: argparse.Namespace) -> None:
    """Packs, or checks what is packed."""
    if arguments.verify:
        verify(arguments.verify)
    else:
        check(arguments)
        pack(arguments)


def pack(arguments: argparse.Namespace) -> None:
    """Packs both splits."""
    from src.data.image_lists import Lists
    from src.data.packing import pack_split
    from src.data.sources import open_unpacked

    settings = packing_settings(arguments, arguments.set)
    lists = Lists(arguments.train_list, arguments.val_list, arguments.label_separator)
    # Both before anything is written: what is wrong with one may lie hours behind the other.
    sources = {
        split: open_unpacked(
            arguments.set,
            arguments.data_url,
            split,
            val_share=arguments.val_share,
            class_order=arguments.class_order,
            decoder=settings.decoder(arguments.max_image_pixels),
            lists=lists,
        )
        for split in _SPLITS
    }
    for split, source in sources.items():
        manifest = pack_split(
            source, arguments.output / split, settings, num_workers=arguments.num_workers
        )
        report_packed(manifest, arguments.output / split, len(source))


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for what the command line cannot mean."""
    if not arguments.data_url or not arguments.output:
        raise UserError("--data_url and --output are needed, or --verify")
    check_utf8("--output", arguments.output)
    check_packing_options(arguments)
    if not 0 <= arguments.val_share < 1:
        raise UserError(f"--val_share {arguments.val_share}: allowed: [0, 1)")
    if arguments.set != "ImageNet" and (arguments.train_list or arguments.val_list):
        raise UserError(f"--set {arguments.set}: has no lists; leave train_list and val_list out")
    if arguments.label_separator and not arguments.train_list:
        raise UserError("--label_separator: divides the labels of a list; give --train_list FILE")
    check_output_folder("output", arguments.output)


def verify(folder: Path) -> None:
    """Compares every shard with its SHA-256, and every image with its CRC-32."""
    from src.data.decode import Decoder
    from src.data.packed import open_packed, read_manifest

    for split in _SPLITS:
        manifest = read_manifest(folder / split)
        images = open_packed(folder / split, Decoder())
        for entry in manifest["shards"]:
            if file_sha256(folder / split / entry["file"]) != entry["sha256"]:
                raise UserError(
                    f"{folder / split / entry['file']}: its SHA-256 differs from the manifest's; "
                    "copy it again, or pack it again"
                )
        for index in range(len(images)):
            images.read_bytes(index)
        print(f"{folder / split}: {len(images)} images, all as packed")


def add_data_options(parser: CommandParser) -> None:
    """Those that a recipe has too."""
    parser.add_argument("--data_url", type=Path, help="folder of the data set, as in a recipe")
    parser.add_argument(
        "--set",
        choices=list(UNPACKED_SETS),
        default="ImageNet",
        help="what that is, as in a recipe (default: %(default)s)",
    )
    parser.add_argument("--train_list", metavar="FILE", help="as in a recipe")
    parser.add_argument("--val_list", metavar="FILE", help="as in a recipe")
    parser.add_argument("--label_separator", choices=list(SEPARATORS), help="as in a recipe")
    parser.add_argument("--val_share", type=finite, default=0.0, help="as in a recipe")
    parser.add_argument(
        "--class_order",
        choices=CLASS_ORDERS,
        default="code_point",
        help="as in a recipe (default: %(default)s)",
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("pack_dataset.py", __doc__ or "")
    add_data_options(parser)
    parser.add_argument("--output", type=Path, help="folder to write; gets train/ and val/")
    parser.add_argument("--verify", type=Path, help="check this packed folder instead")
    add_packing_options(parser)
    return run_command(work, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
