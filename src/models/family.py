"""What a family's file ends with: its architectures, and how others name its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Tuple, Type

from .classifier import Classifier
from .keywords import Keyword

# The class, and its keywords that differ from the defaults.
Variant = Tuple[Type[Classifier], Dict[str, Any]]


def _as_it_is(name: str) -> str:
    return name


@dataclass(frozen=True)
class Naming:
    """How some code names the weights of a family.

    Attributes:
        source: whose names they are.
        mark: a weight that is there under no other naming, of this family or another.
        rename: name -> the reference's (see `weights.reference_names`).
    """

    source: str
    mark: str
    rename: Callable[[str], str] = _as_it_is


@dataclass(frozen=True)
class Family:
    """One row of the registry.

    Attributes:
        title: as people call it.
        variants: architectures by name.
        namings: of its weights, wherever they are found.
        keywords: of its constructor beside those that all families have.
    """

    title: str
    variants: Dict[str, Variant]
    namings: Tuple[Naming, ...]
    keywords: Dict[str, Keyword] = field(default_factory=dict)
