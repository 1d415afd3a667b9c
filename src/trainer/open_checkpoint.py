"""A checkpoint as evaluation, export and prediction use it: a network with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from mindspore import nn

from ..args import AnyConfig, Config
from ..checkpoints.checkpoint import Checkpoint, load_parameters, read_checkpoint
from ..checkpoints.complete_config import complete_by_checkpoint
from ..checkpoints.pretrained import start_from_weights
from ..errors import UserError
from .build import build_backbone, build_network


def open_checkpoint(config: AnyConfig) -> Tuple[nn.Cell, AnyConfig, Checkpoint]:
    """The network of `pretrained`; with `ema` it has the averaged weights.

    Returns:
        The network, the recipe with what the file says where nobody else said something, and the
        file, raw and averaged weights in it.

    Raises:
        UserError: the file is missing, damaged or of another network, holds no averaged weights,
            or does not say its number of classes and neither does the recipe.
    """
    checkpoint = read_checkpoint(Path(config.model.pretrained or ""))
    config = complete_by_checkpoint(config, checkpoint.record, path=str(checkpoint.path))
    weights = checkpoint.averaged() if config.train.ema else checkpoint
    if config.model.num_classes == 0:
        raise UserError(
            f"num_classes 0: {checkpoint.path} does not say how many classes it has; give "
            "--num_classes"
        )
    network = build_network(config)
    load_network(network, weights, config)
    return network, config, checkpoint


def open_backbone(config: AnyConfig) -> Tuple[nn.Cell, AnyConfig, Checkpoint]:
    """As `open_checkpoint`, without the classifier, which the weights need not have.

    Positions and the first layer are adapted to image_size and in_chans, as for fine-tuning.

    Raises:
        UserError: the file is missing, damaged or of another network, or holds no averaged weights.
    """
    checkpoint = read_checkpoint(Path(config.model.pretrained or ""))
    config = complete_by_checkpoint(config, checkpoint.record, path=str(checkpoint.path))
    weights = checkpoint.averaged() if config.train.ema else checkpoint
    network = build_backbone(config)
    start_from_weights(network, weights, target=f"arch {config.model.arch}")
    return network, config, checkpoint


def load_network(network: nn.Cell, checkpoint: Checkpoint, config: Config) -> None:
    """Sets all weights from the file.

    Raises:
        UserError: it holds another architecture, another number of classes or other shapes.
    """
    model = config.model
    target = f"arch {model.arch} with num_classes {model.num_classes}, in_chans {model.in_chans}"
    for key in ("arch", "num_classes"):
        here, there = getattr(config.model, key), getattr(checkpoint.record, key)
        if there is not None and here != there:
            raise UserError(
                f"checkpoint {checkpoint.describe()} does not fit {target}: {key} is {there!r} in "
                f"the file and {here!r} here; give --{key} {there} or another checkpoint"
            )
    load_parameters(network.get_parameters(), checkpoint, target=target)
