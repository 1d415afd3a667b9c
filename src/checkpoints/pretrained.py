"""Fine-tuning: what of a checkpoint changes when classes or image size do.

Everything else of it must fit as it is.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Dict, Optional, Tuple, Union

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..errors import UserError
from ..models.layers.positions import resize_positions, sinusoidal_embedding
from .checkpoint import STATE_PREFIX, Checkpoint, load_parameters, read_checkpoint

_LOGGER = logging.getLogger(__name__)

Arrays = Dict[str, np.ndarray]

# The layers that know the number of classes.
_CLASSIFIERS = ("head", "head_dist", "head.fc", "classifier.fc")
# Tables of learnt or fixed positions, and the authors' filter for another grid.
_POSITIONS = {"pos_embed": "bicubic", "classifier.positional_emb": "bilinear"}
# Each precedes the patches and has a position of its own.
_TOKENS = ("cls_token", "dist_token", "classifier.class_emb")


def start_from_file(network: nn.Cell, path: Path, *, target: str) -> None:
    """As `start_from_weights`, from a `.ckpt` file.

    Raises:
        UserError: missing or damaged file, besides.
    """
    start_from_weights(network, read_checkpoint(path), target=target)


def start_from_weights(network: nn.Cell, checkpoint: Checkpoint, *, target: str) -> None:
    """Sets the weights of `network` from a file, adapted by `adapt_weights`.

    Args:
        target: what `network` is, for the message.

    Raises:
        UserError: what does not fit and may not change; as of `load_parameters`.
    """
    arrays = {
        name: tensor.asnumpy()
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(STATE_PREFIX)
    }
    tensors = {name: Tensor(value) for name, value in adapt_weights(arrays, network).items()}
    adapted = dataclasses.replace(checkpoint, tensors=tensors)
    load_parameters(network.get_parameters(), adapted, target=target)
    _LOGGER.info("started from the weights of %s", checkpoint.describe())


def adapt_weights(arrays: Arrays, network: nn.Cell) -> Arrays:
    """Weights for another number of classes and another image size; each change is logged.

    Args:
        arrays: by the names of `network`.

    Raises:
        UserError: as of `settle_sine_tables`.
    """
    adapted = settle_sine_tables(arrays, network)
    return reset_classifiers(_resize_positions(adapted, network), network)


def reset_classifiers(arrays: Arrays, network: nn.Cell) -> Arrays:
    """Gives classifiers for another number of classes the fresh weights of `network`."""
    fresh = _parameters(network)
    adapted = dict(arrays)
    for layer in _CLASSIFIERS:
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        if weight not in fresh or weight not in arrays or bias not in arrays:
            continue
        held, due = arrays[weight].shape, tuple(fresh[weight].shape)
        # A classifier of other features is not this one for other classes.
        if held[1:] != due[1:] or held[0] == due[0] or arrays[bias].shape != held[:1]:
            continue
        _LOGGER.info("%s: %d -> %d classes, freshly initialised", layer, held[0], due[0])
        adapted.update({name: fresh[name].asnumpy() for name in (weight, bias)})
    return adapted


def num_classes_of(network: nn.Cell) -> int:
    """Classes of a network, by its classifier."""
    fresh = _parameters(network)
    return int(
        next(fresh[f"{name}.bias"].shape[0] for name in _CLASSIFIERS if f"{name}.bias" in fresh)
    )


def settle_sine_tables(arrays: Arrays, network: nn.Cell) -> Arrays:
    """Fixed position tables are generated, whatever the file has; they belong to no weights.

    Raises:
        UserError: one side has learnt positions and the other fixed ones.
    """
    adapted = dict(arrays)
    for name, parameter in _parameters(network).items():
        if name not in _POSITIONS:
            continue
        fixed, held = not parameter.requires_grad, arrays.get(name)
        if held is not None and _is_sine_table(held) != fixed:
            sides = ("fixed (sine)", "learnt") if fixed else ("learnt", "fixed (sine)")
            raise UserError(
                f"{name}: positions of this network are {sides[0]}, those of the weights "
                f"{sides[1]}; take the --arch {'without' if fixed else 'with'} _sine"
            )
        if fixed:
            adapted[name] = parameter.asnumpy()
            _LOGGER.info("%s: sine table of %s generated", name, _shown(_grid(parameter, network)))
    return adapted


def _is_sine_table(table: np.ndarray) -> bool:
    if table.ndim != 3 or table.shape[0] != 1:
        return False
    # Large angles lose digits in float32, which some code computes them in.
    return bool(np.allclose(table, sinusoidal_embedding(*table.shape[1:]), rtol=0, atol=1e-3))


def _resize_positions(arrays: Arrays, network: nn.Cell) -> Arrays:
    adapted = dict(arrays)
    fresh = _parameters(network)
    for name, mode in _POSITIONS.items():
        if name not in fresh or name not in arrays:
            continue
        held, due = arrays[name], fresh[name]
        old, new = _grid(held, network), _grid(due, network)
        if old is None or new is None or old == new or held.shape[2] != due.shape[2]:
            continue
        prefix = _num_prefix_tokens(network)
        adapted[name] = resize_positions(held, new, num_prefix_tokens=prefix, mode=mode)
        kept = f", {prefix} further kept" if prefix else ""
        _LOGGER.info("%s: %s -> %s positions, %s%s", name, _shown(old), _shown(new), mode, kept)
    return adapted


def _grid(table: Union[np.ndarray, Parameter], network: nn.Cell) -> Optional[Tuple[int, int]]:
    """(rows, columns) of the patches of a table (1, N, C); None: no square, or no such table."""
    if table.ndim != 3 or table.shape[0] != 1:
        return None
    patches = table.shape[1] - _num_prefix_tokens(network)
    side = int(max(patches, 0) ** 0.5 + 0.5)
    return (side, side) if side * side == patches and side > 0 else None


def _shown(grid: Optional[Tuple[int, int]]) -> str:
    return f"{grid[0]}x{grid[1]}" if grid else "another form"


def _num_prefix_tokens(network: nn.Cell) -> int:
    return sum(name in _TOKENS for name in _parameters(network))


def _parameters(network: nn.Cell) -> Dict[str, Parameter]:
    return {parameter.name: parameter for parameter in network.get_parameters()}
