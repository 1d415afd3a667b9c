"""Convert files of weights between PyTorch and MindSpore.

python scripts/convert_weights.py --arch A --input X.pth --output Y.ckpt
python scripts/convert_weights.py --arch A --input Y.ckpt --output Z.safetensors --to torch
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

# A script's own folder is on the path, the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.data.classes import CLASS_ORDERS, sort_classes
from src.errors import UserError
from src.models.published import TRANSFORM
from src.runtime.entry import CommandParser, run_command, whole

if TYPE_CHECKING:
    from src.checkpoints.saved_record import SavedRecord

DESCRIPTION = f"""{__doc__ or ""}
The first way reads .pth, .pth.tar, .pth.zip, .pt, .bin, lightning's and mindcv's .ckpt,
.safetensors, .npz and the .index.json of weights in pieces, and runs no code in them. The names of
weights may be those of timm, the authors, torchvision, transformers, mmpretrain, open_clip or
mindcv. train.py and eval.py take the written .ckpt as --pretrained. The second way writes timm's
names (CCT, CVT and ViT-Lite: the authors'). A weight that does not fit is an error.

The .ckpt also says how images are made for these weights, and programs that read it do the same.
That comes from the options, else from --name, else from the hub's config.json beside the file, else
from the file's own name.

If the weights learnt classes of your own, give --data_url or --class_names: the .ckpt then has
their names, and eval.py and train.py compare them with their data.
"""

SUFFIXES = {"mindspore": ".ckpt", "torch": ".safetensors"}


def _parser() -> CommandParser:
    parser = CommandParser("convert_weights.py", DESCRIPTION)
    parser.add_argument(
        "--arch", help="architecture, as in recipes (default: what --name or config.json says)"
    )
    parser.add_argument(
        "--name", help="name of the published weights (scripts/list_models.py --pretrained)"
    )
    parser.add_argument("--input", required=True, type=Path, help="weights to read")
    parser.add_argument(
        "--output", required=True, type=Path, help=".ckpt; --to torch: .safetensors"
    )
    parser.add_argument("--to", choices=tuple(SUFFIXES), default="mindspore", help="what to write")
    parser.add_argument(
        "--ema", action="store_true", help="take the averaged weights (default: the raw ones)"
    )
    parser.add_argument("--key", help="entry that has the weights, where the file has several")
    parser.add_argument(
        "--prefix", help="how the names of the network begin, where the file has several networks"
    )
    parser.add_argument(
        "--num_classes",
        type=whole,
        help="classes of the network (default: those of the weights); a classifier for another "
        "number gets new weights",
    )
    parser.add_argument(
        "--image_size",
        type=whole,
        help="side of the images (default: that of the weights' positions)",
    )
    for key in TRANSFORM:
        parser.add_argument(
            f"--{key}", nargs="+", metavar="VALUE", help="how images are made, as in recipes"
        )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--class_names", type=Path, help="names of the classes by label: one a line, or JSON"
    )
    classes.add_argument(
        "--data_url", type=Path, help="folder of class folders that the weights learnt"
    )
    parser.add_argument(
        "--class_order",
        choices=CLASS_ORDERS,
        default="natural",
        help="how the weights' trainer sorted the folders of data_url: timm naturally, torchvision "
        "by code points (default: %(default)s)",
    )
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Converts; returns 0, or 2 after one line about what the user can mend."""
    return run_command(convert, _parser(), argv)


def convert(arguments: argparse.Namespace) -> None:
    """One direction or the other, after checks that cost nothing."""
    from src.args import RunConfig
    from src.runtime.device import setup_device
    from src.runtime.files import check_output

    check_output("output", arguments.output, SUFFIXES[arguments.to])
    for option in ("num_classes", "image_size"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: expected 1 or more")
    if arguments.to == "torch" and (arguments.class_names or arguments.data_url):
        raise UserError(
            "class_names, data_url: are recorded in a .ckpt; leave them out with --to torch"
        )
    if arguments.to == "torch" and arguments.arch is None:
        raise UserError("arch: not given; --to torch needs it")
    setup_device(RunConfig(), seed=1)
    if arguments.to == "torch":
        _to_torch(arguments)
    else:
        _to_mindspore(arguments)


def _to_mindspore(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from src.checkpoints.conversion import Request, convert_file
    from src.models.registry import family_of

    request = Request(
        arguments.input,
        arguments.arch,
        arguments.name,
        _given_keys(arguments),
        ema=arguments.ema,
        key=arguments.key,
        prefix=arguments.prefix,
    )
    conversion = convert_file(request)
    network, arch = conversion.network, str(conversion.record.arch)
    classes = _classes_of(arguments, network.num_classes)
    replace(conversion, record=replace(conversion.record, **classes)).save(arguments.output)
    origin = f"{family_of(arch).title}, named as by {conversion.naming.source}"
    _report(arguments, arch, network, origin)
    print("\n".join(conversion.notes))


def _given_keys(arguments: argparse.Namespace) -> Dict[str, Any]:
    """Values of a recipe's keys that somebody gave, checked as there."""
    import yaml

    from src.args import from_yaml_text
    from src.configs.parser import command_line_entry

    words = {key: getattr(arguments, key) for key in TRANSFORM}
    given = {
        key: command_line_entry(key, value, is_flag=False).value
        for key, value in words.items()
        if value is not None
    }
    sizes = {key: getattr(arguments, key) for key in ("num_classes", "image_size")}
    given.update({key: value for key, value in sizes.items() if value is not None})
    if not given:
        return {}
    checked = from_yaml_text(yaml.safe_dump(given), "command line").flat()
    return {key: checked[key] for key in given}


def _classes_of(arguments: argparse.Namespace, num_classes: int) -> Dict[str, Any]:
    """What the checkpoint says of its classes: their names, and which order of folders that is."""
    from src.data.image_folder import list_classes
    from src.data.splits import known_set
    from src.report.class_names import read_labels

    if arguments.class_names:
        source, names = arguments.class_names, read_labels(arguments.class_names, "class_names")
    elif arguments.data_url:
        known = known_set(arguments.data_url)
        if known and not known.is_folders():
            raise UserError(
                f"data_url {str(arguments.data_url)!r}: {known.what}, no class folders; write the "
                "names of the classes, one a line by label, into a file for --class_names"
            )
        source, names = arguments.data_url, list_classes(arguments.data_url)
        names = sort_classes(names, arguments.class_order)
    else:
        return {}
    if len(names) != num_classes:
        raise UserError(
            f"{source}: {len(names)} classes, but the network has {num_classes}; give the data or "
            f"the names that the weights learnt, or --num_classes {len(names)}"
        )
    orders = [order for order in CLASS_ORDERS if sort_classes(names, order) == names]
    return {"class_names": names, **({"class_order": orders[0]} if orders else {})}


def _to_torch(arguments: argparse.Namespace) -> None:
    from src.checkpoints.checkpoint import read_checkpoint
    from src.checkpoints.conversion import load_all
    from src.checkpoints.weight_conversion import to_reference_names
    from src.checkpoints.weight_files import write_safetensors
    from src.runtime.files import write_whole

    checkpoint = read_checkpoint(arguments.input)
    if arguments.ema:
        checkpoint = checkpoint.averaged()
    network = _network_of(checkpoint.record, arguments)
    load_all(network, checkpoint, arguments.arch)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    write_safetensors(
        to_reference_names(arrays, network), arguments.output, {"arch": arguments.arch}
    )
    _report(arguments, arguments.arch, network, "a MindSpore checkpoint")
    names = checkpoint.record.class_names
    if names and names != sort_classes(names, "natural"):
        path = arguments.output.with_suffix(".classes.txt")
        write_whole(path, "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
        print(f"{path}: timm sorts folders of these classes otherwise; give it --class-map {path}")


def _network_of(record: SavedRecord, arguments: argparse.Namespace) -> Any:
    """The network a checkpoint says it holds; options go before what it says."""
    from src.args import ModelConfig
    from src.models.registry import create_model

    arch, path = arguments.arch, str(arguments.input)
    if record.arch not in (None, arch):
        raise UserError(f"input {path!r}: holds {record.arch}; give --arch {record.arch}")
    recipe = record.recipe(path)
    model = recipe.model if recipe else ModelConfig()
    sizes = {"num_classes": record.num_classes, "img_size": record.img_size}
    if recipe:
        sizes["img_size"] = model.image_size or None
    given = {"num_classes": arguments.num_classes, "img_size": arguments.image_size}
    sizes.update({key: value for key, value in given.items() if value is not None})
    return create_model(arch, **sizes, **model.model_args)


def _report(arguments: argparse.Namespace, arch: str, network: Any, origin: str) -> None:
    parameters = list(network.get_parameters())
    numbers = sum(parameter.size for parameter in parameters)
    print(
        f"{arguments.output}: {arch}, {len(parameters)} tensors, {numbers:,} numbers, "
        f"from {arguments.input} ({origin})"
    )


if __name__ == "__main__":
    sys.exit(main())
