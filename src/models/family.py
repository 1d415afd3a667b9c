"""What a family's file ends with: its architectures, and how others name its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple, Type

from .classifier import Classifier
from .keywords import Keyword

# The class, and its keywords that differ from the defaults.
Variant = Tuple[Type[Classifier], Dict[str, Any]]

# A name -> the reference's (see `weights.reference_names`). `NAME#0`, `NAME#1`, ...: parts of that
# tensor, one below the other. None: no weight of this network.
Rename = Callable[[str], Optional[str]]
PART = "#"
LEFT_OUT = "-"  # what rules make of a name for that None


def _as_it_is(name: str) -> str:
    return name


@dataclass(frozen=True)
class Naming:
    """How some code names the weights of a family.

    Attributes:
        source: whose names they are.
        mark: a weight that is there under no other naming, of this family or another.
        rename: to the reference's names.
        without_bias: layers that have no bias there, where the reference's has one.
        remark: what their weights ask for, to be said; "": nothing.
    """

    source: str
    mark: str
    rename: Rename = _as_it_is
    without_bias: Tuple[str, ...] = ()
    remark: str = ""


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
