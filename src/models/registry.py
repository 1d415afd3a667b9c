"""Architectures by name."""

from __future__ import annotations

import difflib
import inspect
from typing import Any, Dict, List, Optional, Tuple, Type

from mindspore import nn

from src.errors import UserError

from . import cct, convmixer, convnext, deit, twins

Variant = Tuple[Type[nn.Cell], Dict[str, Any]]

_FAMILIES = (cct, convmixer, convnext, deit, twins)


def _variants() -> Dict[str, Variant]:
    return {name: variant for family in _FAMILIES for name, variant in family.VARIANTS.items()}


def list_models(filter: str = "") -> List[str]:
    """Names of all architectures that contain `filter`, sorted."""
    return sorted(name for name in _variants() if filter in name)


def create_model(
    name: str,
    *,
    num_classes: Optional[int] = None,
    in_chans: Optional[int] = None,
    img_size: Optional[int] = None,
    drop_path_rate: Optional[float] = None,
    nonlinearity: Optional[str] = None,
    **keywords: Any,
) -> nn.Cell:
    """Builds an architecture; `None` leaves the architecture's own value.

    `keywords` are further constructor keywords of the family's class.

    Raises:
        UserError: unknown name (near ones are listed) or unknown or impossible keyword.
    """
    variants = _variants()
    if name not in variants:
        near = difflib.get_close_matches(name, variants, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "scripts know list_models()"
        raise UserError(f"arch {name!r}: unknown architecture; {hint}")
    constructor, own = variants[name]
    standard = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "img_size": img_size,
        "drop_path_rate": drop_path_rate,
        "nonlinearity": nonlinearity,
    }
    given = {key: value for key, value in standard.items() if value is not None}
    _check_keywords(name, constructor, keywords, standard)
    try:
        return constructor(**{**own, **given, **keywords})
    except (TypeError, ValueError) as error:
        raise UserError(f"arch {name!r}: {error}") from error


def _check_keywords(
    name: str, constructor: Type[nn.Cell], keywords: Dict[str, Any], standard: Dict[str, Any]
) -> None:
    known = [key for key in _keywords_of(constructor) if key not in standard]
    for key in keywords:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"model_args {key!r}: no keyword of {name}; {hint}")


def _keywords_of(constructor: Type[nn.Cell]) -> List[str]:
    """Its own keywords and, where it hands others on, those of its base class."""
    parameters = inspect.signature(constructor).parameters.values()
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        keywords += _keywords_of(constructor.__base__)
    return keywords
