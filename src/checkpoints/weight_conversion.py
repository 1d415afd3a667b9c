"""Weights of other frameworks under our names: which network of a file, and who named it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Collection, Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np
from mindspore import nn

from ..errors import UserError, some_of
from ..models.classifier import Classifier
from ..models.family import PART, Family, Naming
from ..models.registry import FAMILIES, family_of
from ..models.weights import reference_names
from .finite import check_finite
from .weight_files import Arrays

_LOGGER = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where a network is among the tensors of a file: all whose names begin with `prefix`."""

    prefix: str
    family: Family
    naming: Naming


def find_networks(names: Iterable[str]) -> List[_Place]:
    """Networks of known families among these names.

    Training wrappers put a prefix before all of one: `module.`, `model.`, `student.`.

    Raises:
        UserError: none.
    """
    names = list(names)
    places: Dict[str, _Place] = {}
    for family in FAMILIES.values():
        for naming in family.namings:
            for name in names:
                if name == naming.mark or name.endswith(f".{naming.mark}"):
                    prefix = name[: -len(naming.mark)]
                    places.setdefault(prefix, _Place(prefix, family, naming))
    # A block within a network may look like another network.
    outer = [
        place
        for place in places.values()
        if not any(place.prefix != other and place.prefix.startswith(other) for other in places)
    ]
    if not outer:
        raise UserError(
            f"weights named {', '.join(names[:3]) or 'nothing'}, ...: none of the families known "
            f"here; these are {', '.join(family.title for family in FAMILIES.values())}"
        )
    return outer


def _choose(places: List[_Place], prefix: Optional[str], ema: bool) -> _Place:
    shown = ", ".join(repr(place.prefix) for place in places)
    if prefix is not None:
        for place in places:
            if place.prefix.rstrip(".") == prefix.rstrip("."):
                return place
        raise UserError(f"prefix {prefix!r}: no network's names begin so; those here: {shown}")
    if len(places) == 1:
        return places[0]
    fitting = [place for place in places if ("ema" in place.prefix.lower()) == ema]
    if len(fitting) != 1:
        raise UserError(f"weights of {len(places)} networks: give --prefix, one of {shown}")
    _LOGGER.info("taking the weights named %r..., of %s", fitting[0].prefix, shown)
    return fitting[0]


def to_network_names(
    arrays: Arrays,
    network: nn.Cell,
    *,
    arch: str,
    source: Path = Path("weights"),
    ema: bool = False,
    prefix: Optional[str] = None,
) -> Tuple[Arrays, Naming]:
    """Weights under the names of `network`; what it does not have keeps the name of the file.

    Args:
        source: file they come from, for messages.
        ema, prefix: which of several networks with names of their own.

    Raises:
        UserError: unknown naming, another family, two tensors for one parameter, or weights that
            are integers or not finite.
    """
    place = _choose(find_networks(arrays), prefix, ema)
    due = family_of(arch)
    if place.family is not due:
        raise UserError(
            f"arch {arch!r} is of the family {due.title}, but the weights look like "
            f"{place.family.title} ({place.naming.mark}); give the --arch they belong to"
        )
    references = _references(arrays, place)
    _check_numbers({name: arrays[name] for name in references}, source)
    renamed = _by_parameter({n: (name, arrays[n]) for n, name in references.items()}, network)
    for layer in place.naming.without_bias:
        weight = renamed.get(f"{layer}.weight")
        if weight is not None and weight.ndim:
            renamed.setdefault(f"{layer}.bias", np.zeros(weight.shape[0], np.float32))
    known = {parameter.name for parameter in network.get_parameters()}
    if 2 * len(known & set(renamed)) < len(known):
        raise UserError(
            f"weights named {some_of(list(references), 3)}: names of {place.family.title} by other "
            f"code than {' or '.join(dict.fromkeys(n.source for n in due.namings))}; convert them "
            "to those"
        )
    if place.naming.remark:
        _LOGGER.warning("weights of %s: %s", place.naming.source, place.naming.remark)
    return renamed, place.naming


def _references(names: Collection[str], place: _Place) -> Dict[str, str]:
    """Name in the file -> the reference's; names of anything else are left out, and said."""
    found = {
        name: place.naming.rename(name[len(place.prefix) :])
        for name in names
        if name.startswith(place.prefix)
    }
    outside = [name for name in names if found.get(name) is None]
    if outside:
        _LOGGER.info("left out, not of %r: %s", place.prefix + place.naming.mark, some_of(outside))
    return {name: reference for name, reference in found.items() if reference is not None}


def _by_parameter(named: Dict[str, Tuple[str, np.ndarray]], network: nn.Cell) -> Arrays:
    """Weights by their parameters' names, in one piece and of their shapes.

    Args:
        named: name in the file -> the reference's name, and the values.

    Raises:
        UserError: two tensors for one parameter, or parts that do not fit each other.
    """
    shapes = {parameter.name: parameter.shape for parameter in network.get_parameters()}
    # MindSpore's own files have its names of norms.
    ours = {name: name for name in shapes}
    ours.update({reference: name for name, reference in reference_names(network).items()})
    pieces: Dict[str, Dict[str, np.ndarray]] = {}
    for name, (reference, value) in named.items():
        whole, _, part = reference.partition(PART)
        target = ours.get(whole, name)
        if part in pieces.setdefault(target, {}):
            raise UserError(f"weights hold {target} twice, once as {name}")
        pieces[target][part] = value
    joined = {name: _joined(name, parts) for name, parts in pieces.items()}
    return {n: _shaped(value, shapes.get(n, value.shape)) for n, value in joined.items()}


def _joined(name: str, parts: Dict[str, np.ndarray]) -> np.ndarray:
    """The parts one below the other, in the order of their numbers."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    shapes = {value.shape for value in parts.values()}
    if len(shapes) > 1 or () in shapes:
        raise UserError(f"weights hold {name} in parts of the shapes {sorted(shapes)}")
    return np.concatenate([parts[part] for part in sorted(parts)])


def _check_numbers(arrays: Arrays, source: Path) -> None:
    for name, value in arrays.items():
        if not np.issubdtype(value.dtype, np.floating):
            raise UserError(
                f"input {str(source)!r}: {name} is {value.dtype}; weights are floating-point"
            )
    check_finite(arrays.items(), source, kind="input")


def _shaped(value: np.ndarray, shape: Tuple[int, ...]) -> np.ndarray:
    """In that shape where only axes of length 1 differ: a 1x1 convolution is a linear layer."""
    held, due = ([n for n in axes if n > 1] for axes in (value.shape, shape))
    return value.reshape(shape) if held == due else value


def to_reference_names(arrays: Arrays, network: Classifier) -> Arrays:
    """Weights of `network` under timm's names (CCT, CVT, ViT-Lite: the authors') in its shapes."""
    convs = network.pointwise_convs()
    return {
        reference: arrays[name][..., None, None] if name in convs else arrays[name]
        for name, reference in reference_names(network).items()
    }
