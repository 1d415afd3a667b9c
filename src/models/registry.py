"""Architectures by name."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace
from typing import Any, Dict, List, Literal, Optional, Sequence, Type, Union, overload

from ..errors import UserError, on_one_line, suggestion
from . import cct, convmixer, convnext, deit, twins
from .classifier import Classifier, Layers
from .family import Family, Variant
from .features import FeatureMaps
from .keywords import STANDARD, check_keywords

# A row for each family: the name of its file here and of its page in docs/models.
FAMILIES: Dict[str, Family] = {
    "convmixer": convmixer.FAMILY,
    "convnext": convnext.FAMILY,
    "cct": cct.FAMILY,
    "deit": deit.FAMILY,
    "twins": twins.FAMILY,
}


# Of an image whose last stage has one place, and the places of its first stage; of a patch, those
# of tokens and of the convolutions that make them.
_LEAST_SIDE, _MOST_PLACES, _MOST_PLACES_OF_A_PATCH = 32, 64, 9


def _variants() -> Dict[str, Variant]:
    return {name: variant for row in FAMILIES.values() for name, variant in row.variants.items()}


def family_of(name: str) -> Family:
    """The family of an architecture.

    Raises:
        UserError: unknown name (near ones are listed).
    """
    _find(name)
    (family,) = [family for family in FAMILIES.values() if name in family.variants]
    return family


def list_models(filter: str = "") -> List[str]:
    """Names of all architectures that contain `filter`, sorted."""
    return sorted(name for name in _variants() if filter in name)


@overload
def create_model(
    name: str, *, features_only: Literal[True], out_indices: Layers = None, **keywords: Any
) -> FeatureMaps: ...


@overload
def create_model(
    name: str, *, features_only: Literal[False] = False, **keywords: Any
) -> Classifier: ...


def create_model(
    name: str,
    *,
    features_only: bool = False,
    out_indices: Layers = None,
    pretrained: Optional[str] = None,
    class_names: Optional[Sequence[str]] = None,
    num_classes: Optional[int] = None,
    in_chans: Optional[int] = None,
    img_size: Optional[int] = None,
    drop_path_rate: Optional[float] = None,
    nonlinearity: Optional[str] = None,
    **keywords: Any,
) -> Union[Classifier, FeatureMaps]:
    """Builds an architecture; `None` leaves the architecture's own value.

    Args:
        features_only: it gives maps for another head, see `FeatureMaps`; without classifier.
        out_indices: of which layers, as of `Classifier.forward_intermediates`.
        pretrained: checkpoint (.ckpt) or name of published weights (scripts/list_models.py
            --pretrained, `hf-hub:OWNER/NAME`) that it gets, whose sizes and keywords count where
            none are given. Another number of classes resets the classifier, another image size
            resizes the positions; both are logged as warnings.
        class_names: by label, of the data the network is for: a checkpoint of as many classes with
            other names resets the classifier too. None: they are not compared.
        num_classes: 0: no classifier; the network gives the pooled features (B, num_features).
        keywords: further constructor keywords of the family's class.

    Raises:
        UserError: unknown name (near ones are listed), unknown or impossible keyword, a
            checkpoint that does not fit, or no such layer.
    """
    given = dict(
        keywords,
        num_classes=0 if features_only else num_classes,
        in_chans=in_chans,
        img_size=img_size,
        drop_path_rate=drop_path_rate,
        nonlinearity=nonlinearity,
    )
    if out_indices is not None and not features_only:
        raise UserError(f"out_indices {out_indices}: are of features_only=True; give that too")
    if pretrained is None:
        network = _build(name, **given)
    else:
        network = _load(name, pretrained, given, class_names)
    return FeatureMaps(network, out_indices) if features_only else network


def _load(
    name: str, pretrained: str, given: Dict[str, Any], class_names: Optional[Sequence[str]]
) -> Classifier:
    # Only here do models call tools, which know the models: at run time, and when asked.
    from ..checkpoints.pretrained import build_from_file

    build = partial(_build, name)
    return build_from_file(build, pretrained, arch=name, given=given, class_names=class_names)


def _build(name: str, **keywords: Any) -> Classifier:
    constructor, values = resolve(name, **keywords)
    try:
        return constructor(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"arch {name!r}: {on_one_line(error)}") from error
    except MemoryError as error:
        raise UserError(
            f"arch {name!r}: a network of this size does not fit into memory; give smaller sizes "
            f"than {', '.join(f'{key} {value}' for key, value in keywords.items() if value)}"
        ) from error


def resolve(name: str, **keywords: Any) -> Variant:
    """The class that `create_model(name, **keywords)` builds, and every keyword it is built with.

    Raises:
        UserError: unknown name (near ones are listed), unknown keyword or a value of none.
    """
    constructor, own = _find(name)
    _check_names(name, constructor, keywords)
    left_out = [key for key in STANDARD if keywords.get(key) is None]
    given = {key: value for key, value in keywords.items() if key not in left_out}
    check_keywords(name, {**STANDARD, **family_of(name).keywords}, given)
    return constructor, {**_defaults_of(constructor), **own, **given}


def own_values(family: str, keyword: str) -> List[str]:
    """Values of a keyword without `model_args`, in the architectures that have it, as in YAML."""
    values: List[str] = []
    held = (resolve(name)[1] for name in FAMILIES[family].variants)
    for value in (keywords[keyword] for keywords in held if keyword in keywords):
        shown = "null" if value is None else str(value).lower() if value in (True, False) else value
        shown = str(list(shown) if isinstance(shown, tuple) else shown)
        values += [shown] if shown not in values else []
    return values


def count_macs(name: str, **keywords: Any) -> int:
    """Multiply-accumulates of `create_model(name, **keywords)` for one image (see `macs.py`).

    Raises:
        UserError: an unknown name or keyword.
    """
    constructor, values = resolve(name, **keywords)
    return constructor.count_macs(SimpleNamespace(**values))


def least_weights(name: str, **keywords: Any) -> int:
    """So many weights `create_model(name, **keywords)` has at least; most have 10 times as many.

    Told from the multiply-accumulates of the smallest image, which uses each weight at few places.

    Raises:
        UserError: an unknown name or keyword.
    """
    constructor, values = resolve(name, **keywords)
    patch = values.get("patch_size") or values.get("kernel_size")
    values["img_size"] = patch or _LEAST_SIDE
    places = _MOST_PLACES_OF_A_PATCH if patch else _MOST_PLACES
    return constructor.count_macs(SimpleNamespace(**values)) // places


def default_image_size(name: str) -> int:
    """Side of the images an architecture is meant for, pixels.

    Raises:
        UserError: unknown name (near ones are listed).
    """
    return int(resolve(name)[1]["img_size"])


def _find(name: str) -> Variant:
    variants = _variants()
    if name in variants:
        return variants[name]
    hint = suggestion(name, variants, "scripts/list_models.py lists all", most=3)
    raise UserError(f"arch {name!r}: unknown architecture; {hint}")


def _check_names(name: str, constructor: Type[Classifier], keywords: Dict[str, Any]) -> None:
    known = [key for key in _defaults_of(constructor) if key not in STANDARD]
    for key in keywords:
        if key in known or key in STANDARD:
            continue
        hint = suggestion(key, known, f"known: {', '.join(known)}")
        raise UserError(f"model_args {key!r}: no keyword of {name}; {hint}")


def _defaults_of(constructor: Type[Classifier]) -> Dict[str, Any]:
    """Its own keywords with their defaults and, where it hands others on, its base class's."""
    parameters = inspect.signature(constructor).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        keywords = {**_defaults_of(constructor.__base__), **keywords}
    return keywords
