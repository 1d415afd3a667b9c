"""Fine-tuning: what of a checkpoint changes when classes or image size do.

Everything else of it must fit as it is.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from mindspore import Parameter, Tensor

from ..data.classes import describe_difference
from ..errors import UserError
from ..models.classifier import Classifier
from ..models.layers.positions import resize_positions, sinusoidal_embedding
from ..models.registry import resolve
from .checkpoint import STATE_PREFIX, Checkpoint, load_parameters, read_checkpoint
from .named_weights import is_name, local_checkpoint

_LOGGER = logging.getLogger(__name__)

Arrays = Dict[str, np.ndarray]


def start_from_file(
    network: Classifier,
    path: Path,
    *,
    target: str,
    class_names: Optional[Sequence[str]] = None,
) -> None:
    """As `start_from_weights`, from a `.ckpt` file.

    Raises:
        UserError: missing or damaged file, besides.
    """
    start_from_weights(network, read_checkpoint(path), target=target, class_names=class_names)


def build_from_file(
    build: Callable[..., Classifier],
    pretrained: str,
    *,
    arch: str,
    given: Dict[str, Any],
    class_names: Optional[Sequence[str]] = None,
) -> Classifier:
    """A network with the weights of a file, and as large as they are where nothing is given.

    Changes are told as warnings: a script shows no others.

    Args:
        build: makes the network from keywords.
        pretrained: path of a checkpoint, or a name as of `local_checkpoint`.
        given: keywords of the caller; None: not given.
        class_names: as of `start_from_weights`.

    Raises:
        UserError: as of `start_from_file`.
    """
    path = local_checkpoint(pretrained) if is_name(pretrained) else Path(pretrained)
    checkpoint = read_checkpoint(path)
    own = {key: value for key, value in given.items() if value is not None}
    keywords = {**_keywords_in(checkpoint, arch), **own}
    network = build(**keywords)
    side = resolve(arch, **keywords)[1]["img_size"]
    free = find_sizes(_weights_of(checkpoint), network, img_size=side, given=keywords)
    network = build(**keywords, **free) if free else network
    target, level = f"arch {arch}", logging.WARNING
    start_from_weights(network, checkpoint, target=target, class_names=class_names, level=level)
    return network


def _keywords_in(checkpoint: Checkpoint, arch: str) -> Dict[str, Any]:
    """What the record of a checkpoint says of its network, as keywords of `create_model`."""
    record = checkpoint.record
    found: Dict[str, Any] = {"num_classes": record.num_classes}
    if record.arch == arch:
        found["img_size"] = record.img_size
        recipe = record.recipe(str(checkpoint.path))
        if recipe is not None:
            trained = recipe.model
            sizes = {"img_size": trained.image_size or None, "nonlinearity": trained.nonlinearity}
            found.update(**sizes, in_chans=trained.in_chans)
            found.update(trained.model_args)
    return {key: value for key, value in found.items() if value is not None}


def _weights_of(checkpoint: Checkpoint) -> Arrays:
    return {
        name: tensor.asnumpy()
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(STATE_PREFIX)
    }


def start_from_weights(
    network: Classifier,
    checkpoint: Checkpoint,
    *,
    target: str,
    class_names: Optional[Sequence[str]] = None,
    level: int = logging.INFO,
) -> None:
    """Sets the weights of `network` from a file, adapted by `adapt_weights`.

    Args:
        target: what `network` is, for the message.
        class_names: of the data that `network` will learn; None: not compared with the file's.
        level: that changes are logged at.

    Raises:
        UserError: what does not fit and may not change; as of `load_parameters`.
    """
    adapted_arrays = adapt_weights(_weights_of(checkpoint), network, level=level)
    if _learnt_others(checkpoint, class_names):
        adapted_arrays = _with_fresh_classifiers(adapted_arrays, network)
    tensors = {name: Tensor(value) for name, value in adapted_arrays.items()}
    adapted = dataclasses.replace(checkpoint, tensors=tensors)
    load_parameters(network.get_parameters(), adapted, target=target)
    _LOGGER.info("started from the weights of %s", checkpoint.describe())


def find_sizes(
    arrays: Arrays, network: Classifier, *, img_size: int, given: Collection[str] = ()
) -> Dict[str, int]:
    """Sizes of the weights that differ from `network`'s: `num_classes`, `in_chans`, `img_size`.

    Args:
        arrays: by the names of `network`. Sizes that cannot be read off them are left out.
        img_size: of `network`.
        given: sizes that are not looked for.
    """
    found: Dict[str, int] = {}
    weight = arrays.get(f"{network.classifier_layers[0]}.weight")
    classes = network.num_classes
    if weight is None and _is_backbone(arrays, network):
        classes = 0
    elif weight is not None and weight.shape[1:] == (network.num_features,):
        classes = weight.shape[0]
    if classes != network.num_classes:
        found = {"num_classes": classes}
    first = _first_conv(network)
    weight = arrays.get(first.name)
    if weight is not None and _differs_in_channels(weight, first):
        found["in_chans"] = weight.shape[1]
    due, held = _parameters(network).get(network.position_table), arrays.get(network.position_table)
    if due is not None and held is not None:
        new, old = _grid(held, network), _grid(due, network)
        if new and old and new != old:
            found["img_size"] = img_size * new[0] // old[0]
    free = {key: value for key, value in found.items() if key not in given}
    for key, value in free.items():
        _LOGGER.info("%s %d: as in the weights", key, value)
    return free


def _is_backbone(arrays: Arrays, network: Classifier) -> bool:
    """Whether everything in the weights is of `network`, and nothing of its classifiers."""
    names = set(_parameters(network))
    return set(arrays) <= names and not _held_classifiers(arrays, network)


def _held_classifiers(arrays: Arrays, network: Classifier) -> List[str]:
    layers = {name.rpartition(".")[0] for name in arrays}
    return [layer for layer in network.classifier_layers if layer in layers]


def complete(arrays: Arrays, network: Classifier) -> Arrays:
    """With a last norm that is the identity, where weights without classifier have none.

    Those of ConvNeXt V2 before fine-tuning (`fcmae`) are so, and timm does so.
    """
    layer = network.head_norm
    lacks = layer and not any(name.startswith(f"{layer}.") for name in arrays)
    if not lacks or _held_classifiers(arrays, network):
        return arrays
    initial = {n: p.asnumpy() for n, p in _parameters(network).items() if n.startswith(f"{layer}.")}
    if initial:
        _LOGGER.info("%s: not in the weights, freshly initialised", layer)
    return {**arrays, **initial}


def _learnt_others(checkpoint: Checkpoint, class_names: Optional[Sequence[str]]) -> bool:
    """Whether as many classes as here, but others, were learnt; said when it is so."""
    learnt = checkpoint.record.class_names
    if learnt is None or class_names is None or len(learnt) != len(class_names):
        return False
    difference = describe_difference(learnt, class_names)
    if difference is None:
        return False
    _LOGGER.warning(
        "pretrained %s: its classes differ from the data's: %s; the classifier is freshly "
        "initialised; to keep the one that was learnt give --allow_other_classes (to create_model "
        "no class_names)",
        checkpoint.path,
        difference,
    )
    return True


def _with_fresh_classifiers(arrays: Arrays, network: Classifier) -> Arrays:
    fresh = _fresh_classifiers(network)
    return {**arrays, **{name: value for name, value in fresh.items() if name in arrays}}


def _fresh_classifiers(network: Classifier) -> Arrays:
    fresh = _parameters(network)
    ends = [f"{layer}.{part}" for layer in network.classifier_layers for part in ("weight", "bias")]
    return {name: fresh[name].asnumpy() for name in ends}


def adapt_weights(arrays: Arrays, network: Classifier, *, level: int = logging.INFO) -> Arrays:
    """Weights for other classes, channels and image sizes; each change is logged.

    Args:
        arrays: by the names of `network`.
        level: that changes are logged at.

    Raises:
        UserError: as of `regenerate_sine_tables` and `adapt_channels`.
    """
    adapted = adapt_channels(regenerate_sine_tables(arrays, network), network, level=level)
    return reset_classifiers(_resize_positions(adapted, network, level), network, level=level)


def adapt_channels(arrays: Arrays, network: Classifier, *, level: int = logging.INFO) -> Arrays:
    """The layer that reads the images, from weights for RGB; as timm's `adapt_input_conv`.

    For grey images the sum over the channels; for others the channels repeated, and scaled by
    3 / in_chans.

    Raises:
        UserError: the weights are for neither RGB nor the channels of `network`.
    """
    first = _first_conv(network)
    held = arrays.get(first.name)
    if held is None or not _differs_in_channels(held, first):
        return arrays
    old, new = held.shape[1], first.shape[1]
    if old != 3:
        raise UserError(
            f"in_chans {new}: the weights are for in_chans {old}, and only those for 3 are "
            f"adapted; give --in_chans {old}, or other weights"
        )
    _LOGGER.log(level, "%s: adapted from 3 to %d channels", first.name, new)
    if new == 1:
        return {**arrays, first.name: held.sum(axis=1, keepdims=True)}
    repeated = np.tile(held, (1, -(-new // 3), 1, 1))[:, :new]
    return {**arrays, first.name: repeated * np.float32(3 / new)}


def _first_conv(network: Classifier) -> Parameter:
    """What reads the images, (C', in_chans, h, w)."""
    return next(parameter for parameter in network.get_parameters() if parameter.ndim == 4)


def _differs_in_channels(held: np.ndarray, due: Parameter) -> bool:
    """Whether weights (C', in_chans, h, w) fit but for in_chans."""
    own = tuple(due.shape)
    sides = (held.shape[:1] + held.shape[2:], own[:1] + own[2:])
    return held.ndim == 4 and sides[0] == sides[1] and held.shape[1] != own[1]


def reset_classifiers(arrays: Arrays, network: Classifier, *, level: int = logging.INFO) -> Arrays:
    """Gives classifiers for another number of classes the fresh weights of `network`.

    Weights without any get it too. A network without classes takes none.
    """
    if network.num_classes == 0:
        return _without_classifiers(arrays, network)
    fresh = _parameters(network)
    adapted = dict(arrays)
    if _is_backbone(arrays, network):
        layers = ", ".join(network.classifier_layers)
        _LOGGER.log(level, "%s: not in the weights, freshly initialised", layers)
        return {**arrays, **_fresh_classifiers(network)}
    for layer in network.classifier_layers:
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        if weight not in fresh or weight not in arrays or bias not in arrays:
            continue
        held, due = arrays[weight].shape, tuple(fresh[weight].shape)
        # A classifier of other features is not this one for other classes.
        if held[1:] != due[1:] or held[0] == due[0] or arrays[bias].shape != held[:1]:
            continue
        _LOGGER.log(level, "%s: %d -> %d classes, freshly initialised", layer, held[0], due[0])
        adapted.update({name: fresh[name].asnumpy() for name in (weight, bias)})
    return adapted


def _without_classifiers(arrays: Arrays, network: Classifier) -> Arrays:
    held = _held_classifiers(arrays, network)
    if held:
        _LOGGER.info("%s: left out, the network has no classifier", ", ".join(held))
    return {n: value for n, value in arrays.items() if n.rpartition(".")[0] not in held}


def regenerate_sine_tables(arrays: Arrays, network: Classifier) -> Arrays:
    """Fixed position tables are generated, whatever the file has; they belong to no weights.

    Raises:
        UserError: one side has learnt positions and the other fixed ones.
    """
    name = network.position_table
    due, held = _parameters(network).get(name), arrays.get(name)
    if due is None:
        return arrays
    fixed = not due.requires_grad
    if held is not None and _is_sine_table(held) != fixed:
        sides = ("fixed (sine)", "learnt") if fixed else ("learnt", "fixed (sine)")
        raise UserError(
            f"{name}: positions of this network are {sides[0]}, those of the weights "
            f"{sides[1]}; take the --arch {'without' if fixed else 'with'} _sine"
        )
    if not fixed:
        return arrays
    _LOGGER.info("%s: sine table of %s generated", name, _shown(_grid(due, network)))
    return {**arrays, name: due.asnumpy()}


def _is_sine_table(table: np.ndarray) -> bool:
    if table.ndim != 3 or table.shape[0] != 1:
        return False
    # Large angles lose digits in float32, which some code computes them in.
    return bool(np.allclose(table, sinusoidal_embedding(*table.shape[1:]), rtol=0, atol=1e-3))


def _resize_positions(arrays: Arrays, network: Classifier, level: int) -> Arrays:
    name, mode = network.position_table, network.position_filter
    due, held = _parameters(network).get(name), arrays.get(name)
    if due is None or held is None:
        return arrays
    old, new = _grid(held, network), _grid(due, network)
    if old is None or new is None or old == new or held.shape[2] != due.shape[2]:
        return arrays
    prefix = network.num_prefix_positions
    resized = resize_positions(held, new, num_prefix_tokens=prefix, mode=mode)
    kept = f", {prefix} further kept" if prefix else ""
    shown = (name, _shown(old), _shown(new), mode, kept)
    _LOGGER.log(level, "%s: %s -> %s positions, %s%s", *shown)
    return {**arrays, name: resized}


def _grid(table: Union[np.ndarray, Parameter], network: Classifier) -> Optional[Tuple[int, int]]:
    """(rows, columns) of the patches of a table (1, N, C); None: no square, or no such table."""
    if table.ndim != 3 or table.shape[0] != 1:
        return None
    patches = table.shape[1] - network.num_prefix_positions
    side = int(max(patches, 0) ** 0.5 + 0.5)
    return (side, side) if side * side == patches and side > 0 else None


def _shown(grid: Optional[Tuple[int, int]]) -> str:
    return f"{grid[0]}x{grid[1]}" if grid else "another form"


def _parameters(network: Classifier) -> Dict[str, Parameter]:
    return {parameter.name: parameter for parameter in network.get_parameters()}
