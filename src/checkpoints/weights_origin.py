"""What is known of a file of weights beside its tensors: by its name, or by what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple

from msgspec import Meta

from ..data.imagenet_names import imagenet_names
from ..errors import UserError
from ..models.published import TRANSFORM, PublishedWeights, find_published, read_published
from ..runtime.json_files import read_typed
from ..runtime.regular_files import RECORD_BYTES
from .saved_record import MOST_SIDE, ClassNames, Text

# Of the hub, beside the weights.
CONFIG_FILE = "config.json"

_Share = Annotated[float, Meta(gt=0, le=1)]
_Rgb = Tuple[float, float, float]


@dataclass(frozen=True)
class WeightsOrigin:
    """Of weights that somebody published.

    Attributes:
        said_by: what says so, for messages.
        arch: None: not said.
        keys: values of a recipe's keys: sizes, and how images are made for evaluation.
        published: name it was published by.
        class_names: by label.
    """

    said_by: str
    arch: Optional[str] = None
    keys: Dict[str, Any] = field(default_factory=dict)
    published: Optional[str] = None
    licence: Optional[str] = None
    class_names: Optional[List[str]] = None


def find_origin(path: Path, name: Optional[str]) -> Optional[WeightsOrigin]:
    """By its name, else by the hub's config.json beside it, else by the file's name.

    Args:
        path: of the weights.
        name: that the weights were published by; None: not given.

    Raises:
        UserError: no published weights have that name, or a damaged config.json.
    """
    if name is not None:
        return _of_row(find_published(name), f"published.csv, {name}")
    beside = path.with_name(CONFIG_FILE)
    if beside.is_file():
        return read_config(beside)
    for row in read_published():
        files = (f"{row.id}.{suffix}" for suffix in ("safetensors", "bin", "pth", "pt"))
        if path.name in files or (row.url and row.url.rpartition("/")[2] == path.name):
            return _of_row(row, f"the file's name, {row.id}")
    return None


def _of_row(row: PublishedWeights, said_by: str) -> WeightsOrigin:
    # All of the table's weights with so many classes are ImageNet-1k's, whose folders are synsets.
    synsets = list(imagenet_names()) if row.num_classes == 1000 else None
    return WeightsOrigin(
        said_by,
        row.arch,
        {"num_classes": row.num_classes, **row.transform},
        row.hub_name,
        row.licence,
        synsets,
    )


@dataclass(frozen=True)
class _HubTransform:
    """`pretrained_cfg` as timm writes it; what it does not say is its default."""

    input_size: Tuple[int, int, int] = (3, 224, 224)
    crop_pct: _Share = 0.875
    crop_mode: Literal["center", "squash", "border"] = "center"
    interpolation: Text = "bicubic"
    mean: _Rgb = (0.485, 0.456, 0.406)
    std: _Rgb = (0.229, 0.224, 0.225)
    tag: Optional[Text] = None
    license: Optional[Text] = None


@dataclass(frozen=True)
class _HubConfig:
    """The hub's config.json as timm writes it."""

    architecture: Text
    num_classes: Annotated[int, Meta(ge=0)]
    pretrained_cfg: _HubTransform
    label_names: Optional[ClassNames] = None


def read_config(path: Path) -> WeightsOrigin:
    """Of the config.json of a model that timm has written.

    Raises:
        UserError: it cannot be read or is none of timm's, or says what is not there here.
    """
    try:
        config = read_typed(path, RECORD_BYTES, _HubConfig)
        own = config.pretrained_cfg
        _, height, width = own.input_size
        if height != width or not 1 <= height <= MOST_SIDE:
            raise ValueError(f"input_size {own.input_size}: expected a square")
        if own.crop_mode == "border":
            raise ValueError("crop_mode border: not there here; center or squash")
        names = config.label_names
        if names is not None and len(names) != config.num_classes:
            raise ValueError(f"{len(names)} label_names of {config.num_classes} classes")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: lies beside the weights, but says nothing of them ({error}); move it away, "
            "and give --arch and how their images are made (--crop_pct, ...)"
        ) from error
    keys: Dict[str, Any] = {"num_classes": config.num_classes, "image_size": height}
    keys.update({key: getattr(own, key) for key in TRANSFORM})
    name = f"{config.architecture}.{own.tag}" if own.tag else None
    return WeightsOrigin(str(path), config.architecture, keys, name, own.license, names)
