"""Weights of other frameworks under our names: which network of a file, and who named it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np
from mindspore import nn

from ..errors import UserError, some_of
from ..models.classifier import Classifier
from ..models.family import Family, Naming
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
    outside = [name for name in arrays if not name.startswith(place.prefix)]
    if outside:
        _LOGGER.info("left out, not of %r: %s", place.prefix, some_of(outside))
    held = {n: value for n, value in arrays.items() if n.startswith(place.prefix)}
    _check_numbers(held, source)
    ours = {reference: name for name, reference in reference_names(network).items()}
    shapes = {parameter.name: parameter.shape for parameter in network.get_parameters()}
    renamed: Arrays = {}
    for name, value in held.items():
        target = ours.get(place.naming.rename(name[len(place.prefix) :]), name)
        if target in renamed:
            raise UserError(f"weights hold {target} twice, once as {name}")
        renamed[target] = _shaped(value, shapes.get(target, value.shape))
    if 2 * len(set(ours.values()) & set(renamed)) < len(ours):
        raise UserError(
            f"weights named {some_of(list(held), 3)}: names of {place.family.title} by other code "
            f"than {' or '.join(naming.source for naming in due.namings)}; convert them to those"
        )
    return renamed, place.naming


def _check_numbers(arrays: Arrays, source: Path) -> None:
    for name, value in arrays.items():
        if not np.issubdtype(value.dtype, np.floating):
            raise UserError(
                f"input {str(source)!r}: {name} is {value.dtype}; weights are floating-point"
            )
    check_finite(arrays.items(), source, kind="input")


def _shaped(value: np.ndarray, shape: Tuple[int, ...]) -> np.ndarray:
    """In that shape where only axes of length 1 differ: a 1x1 convolution is a linear layer."""
    lengths = ([n for n in axes if n > 1] for axes in (value.shape, shape))
    return value.reshape(shape) if next(lengths) == next(lengths) else value


def to_reference_names(arrays: Arrays, network: Classifier) -> Arrays:
    """Weights of `network` under timm's names (CCT, CVT, ViT-Lite: the authors') in its shapes."""
    convs = network.pointwise_convs()
    return {
        reference: arrays[name][..., None, None] if name in convs else arrays[name]
        for name, reference in reference_names(network).items()
    }
