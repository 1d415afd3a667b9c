"""Convert weights between PyTorch and MindSpore.

python scripts/convert_weights.py --arch A --input X.pth --output Y.ckpt
python scripts/convert_weights.py --arch A --input Y.ckpt --output Z.safetensors --to torch
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

# A script's own folder is on the path, the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.runtime.entry import CommandParser, run_command

DESCRIPTION = """\
PyTorch -> MindSpore: reads .pth, .pth.tar, .pt, .bin, lightning's .ckpt (with torch, weights only),
.safetensors, .npz and the .index.json of weights in pieces, named as by timm or by the authors, and
writes a .ckpt that train.py and eval.py take as --pretrained. MindSpore -> PyTorch (--to torch):
reads a .ckpt and writes .safetensors with timm's names (CCT, CVT and ViT-Lite: the authors'). Every
tensor of the network must have its place."""

SUFFIXES = {"mindspore": ".ckpt", "torch": ".safetensors"}


def _parser() -> CommandParser:
    parser = CommandParser("convert_weights.py", DESCRIPTION)
    parser.add_argument("--arch", required=True, help="architecture, as in recipes")
    parser.add_argument("--input", required=True, type=Path, help="weights to read")
    parser.add_argument(
        "--output", required=True, type=Path, help=".ckpt; --to torch: .safetensors"
    )
    parser.add_argument("--to", choices=tuple(SUFFIXES), default="mindspore", help="direction")
    parser.add_argument(
        "--ema", action="store_true", help="take the averaged weights (default: the raw ones)"
    )
    parser.add_argument("--key", help="entry of the file with the weights, where it has several")
    parser.add_argument(
        "--prefix", help="what the network's names begin with, where a file holds several networks"
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        help="classes of the network (default: those of the weights); a classifier for another "
        "number is freshly initialised",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        help="side of the images (default: that of the weights' positions)",
    )
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Converts; returns 0, or 2 after one line about what the user can mend."""
    return run_command(convert, _parser(), argv)


def convert(arguments: argparse.Namespace) -> None:
    """One direction or the other, after checks that cost nothing."""
    from src.args import RunConfig
    from src.errors import UserError
    from src.runtime.device import setup_device
    from src.runtime.files import check_output

    check_output("output", arguments.output, SUFFIXES[arguments.to])
    for option in ("num_classes", "image_size"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: expected 1 or more")
    setup_device(RunConfig(), seed=1)
    if arguments.to == "torch":
        _to_torch(arguments)
    else:
        _to_mindspore(arguments)


def _to_mindspore(arguments: argparse.Namespace) -> None:
    from mindspore import Tensor

    from src.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from src.checkpoints.pretrained import regenerate_sine_tables, reset_classifiers
    from src.models.registry import family_of

    arch, path = arguments.arch, arguments.input
    network, arrays, naming = _read(arguments)
    arrays = regenerate_sine_tables(arrays, network)
    if arguments.num_classes is not None:
        arrays = reset_classifiers(arrays, network)
    tensors = {name: Tensor(value) for name, value in arrays.items()}
    _load(network, Checkpoint(path, tensors, {}), arch)
    meta = {
        "arch": arch,
        "num_classes": network.num_classes,
        "img_size": arguments.image_size,
        "source": path.name,
        "naming": naming.source,
        "ema": arguments.ema,
    }
    save_checkpoint(arguments.output, network.get_parameters(), meta)
    _report(arguments, network, f"{family_of(arch).title}, named as by {naming.source}")


def _read(arguments: argparse.Namespace) -> Tuple[Any, Dict[str, Any], Any]:
    """A network as large as the weights say where the options do not, and the weights for it."""
    from src.checkpoints.pretrained import find_sizes
    from src.checkpoints.weight_conversion import to_network_names
    from src.checkpoints.weight_files import read_weights
    from src.models.registry import create_model, resolve

    arch, path, ema = arguments.arch, arguments.input, arguments.ema
    sizes = {"num_classes": arguments.num_classes, "img_size": arguments.image_size}
    network = create_model(arch, **sizes)
    arrays = read_weights(path, ema=ema, key=arguments.key)
    arrays, naming = to_network_names(
        arrays, network, arch=arch, source=path, ema=ema, prefix=arguments.prefix
    )
    found = find_sizes(arrays, network, img_size=resolve(arch, **sizes)[1]["img_size"])
    free = {key: value for key, value in found.items() if sizes.get(key) is None}
    if free:
        arguments.image_size = free.get("img_size", arguments.image_size)
        network = create_model(arch, **{**sizes, **free})
    return network, arrays, naming


def _to_torch(arguments: argparse.Namespace) -> None:
    from src.checkpoints.checkpoint import read_checkpoint
    from src.checkpoints.weight_conversion import to_reference_names
    from src.checkpoints.weight_files import write_safetensors

    checkpoint = read_checkpoint(arguments.input)
    if arguments.ema:
        checkpoint = checkpoint.averaged()
    network = _network_of(checkpoint.meta, arguments)
    _load(network, checkpoint, arguments.arch)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    write_safetensors(
        to_reference_names(arrays, network), arguments.output, {"arch": arguments.arch}
    )
    _report(arguments, network, "a MindSpore checkpoint")


def _network_of(meta: Dict[str, Any], arguments: argparse.Namespace) -> Any:
    """The network a checkpoint says it holds; options go before what it says."""
    from src.args import ModelConfig, from_yaml_text
    from src.errors import UserError
    from src.models.registry import create_model

    arch, path = arguments.arch, str(arguments.input)
    if meta.get("arch", arch) != arch:
        raise UserError(f"input {path!r}: holds {meta['arch']}; give --arch {meta['arch']}")
    trained = from_yaml_text(meta["config"], path).model if "config" in meta else None
    sizes = {"num_classes": meta.get("num_classes"), "img_size": meta.get("img_size")}
    if trained:
        sizes["img_size"] = trained.image_size
    given = {"num_classes": arguments.num_classes, "img_size": arguments.image_size}
    sizes.update({key: value for key, value in given.items() if value is not None})
    return create_model(arch, **sizes, **(trained or ModelConfig()).model_args)


def _load(network: Any, checkpoint: Any, arch: str) -> None:
    """Sets every weight; lists every tensor that does not fit, when one does not."""
    from src.checkpoints.checkpoint import find_mismatches, load_parameters

    parameters = list(network.get_parameters())
    for title, tensors in find_mismatches(parameters, checkpoint.tensors).items():
        print("\n".join(f"{title}: {tensor}" for tensor in tensors), file=sys.stderr)
    load_parameters(parameters, checkpoint, target=f"arch {arch}")


def _report(arguments: argparse.Namespace, network: Any, origin: str) -> None:
    parameters = list(network.get_parameters())
    numbers = sum(parameter.size for parameter in parameters)
    print(
        f"{arguments.output}: {arguments.arch}, {len(parameters)} tensors, {numbers:,} numbers, "
        f"from {arguments.input} ({origin})"
    )


if __name__ == "__main__":
    sys.exit(main())
