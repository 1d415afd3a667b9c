"""Weights that timm publishes: the images they expect, how well they do, licence and place.

`published.csv` holds facts of timm 1.0.31: its configurations, and top-1 as timm measured each file
on ImageNet's validation images (`results/results-imagenet.csv` of 2025-10-30).
`tests/published_rows.py` writes it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ..errors import UserError, suggestion

_FILE = Path(__file__).with_name("published.csv")
# Who publishes them at the hub, and has measured all of them.
OWNER = "timm"
# The name of the file there: what timm asks for, and what it takes where that is missing.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

# Keys of a recipe that weights are published with, beside their image size.
TRANSFORM = ("crop_pct", "crop_mode", "interpolation", "mean", "std")

_Rgb = Tuple[float, float, float]
# Mean and standard deviation of images scaled to [0, 1].
NORMALISATIONS: Dict[str, Tuple[_Rgb, _Rgb]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class PublishedWeights(NamedTuple):
    """One file of weights, at the image size that timm's users get without asking.

    Attributes:
        id: `ARCHITECTURE.TAG`.
        num_classes: 0: no classifier; with CLIP's weights the width of its embedding.
        crop_pct: image size / side after the resize.
        crop_mode: `center` resizes the shorter side, `squash` both.
        normalisation: a key of `NORMALISATIONS`.
        top1: percent, at `image_size`; None: these are not ImageNet's 1,000 classes.
        test_image_size, test_crop_pct, test_top1: larger images, for which timm gives a second
            number; None: there is none.
        licence: as timm names it.
        url: of the authors' file, or of timm's own release; None: only the hub has it.
    """

    id: str
    num_classes: int
    image_size: int
    crop_pct: float
    crop_mode: str
    normalisation: str
    top1: Optional[float]
    test_image_size: Optional[int]
    test_crop_pct: Optional[float]
    test_top1: Optional[float]
    licence: str
    url: Optional[str]

    @property
    def arch(self) -> str:
        """The architecture, which has all keywords but the number of classes and the size."""
        return self.id.partition(".")[0]

    @property
    def hub_name(self) -> str:
        """`OWNER/NAME` at the hub."""
        return f"{OWNER}/{self.id}"

    @property
    def keywords(self) -> Dict[str, int]:
        """What `create_model(arch, ...)` is given for these weights."""
        return {"num_classes": self.num_classes, "img_size": self.image_size}

    @property
    def transform(self) -> Dict[str, Any]:
        """How images are prepared, by the keys of a recipe. All of them are resized bicubically."""
        mean, std = NORMALISATIONS[self.normalisation]
        return {
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "interpolation": "bicubic",
            "mean": mean,
            "std": std,
        }


def read_published() -> List[PublishedWeights]:
    """Every row of published.csv, in its order.

    Raises:
        ValueError: it is not as `tests/published_rows.py` writes it; the line is named.
    """
    found: Dict[str, PublishedWeights] = {}
    with _FILE.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        if tuple(next(lines, ())) != PublishedWeights._fields:
            raise ValueError(f"{_FILE}: expected the columns {', '.join(PublishedWeights._fields)}")
        for texts in lines:
            try:
                row = _row_of(texts)
            except ValueError as error:
                raise ValueError(f"{_FILE}, line {lines.line_num}: {error}") from error
            if row.id in found:
                raise ValueError(f"{_FILE}, line {lines.line_num}: {row.id} once more")
            found[row.id] = row
    return list(found.values())


def _row_of(texts: List[str]) -> PublishedWeights:
    if len(texts) != len(_READERS):
        raise ValueError(f"{len(texts)} values, expected {len(_READERS)}")
    return PublishedWeights(*(read(text) for read, text in zip(_READERS, texts)))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r}: expected one of {', '.join(allowed)}")
        return text

    return read


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


def _name(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(f"{text!r}: expected a name")
    return text


# In the order of the columns.
_READERS: Tuple[Callable[[str], Any], ...] = (
    *(_name, int, int, float),
    *(_one_of("center", "squash"), _one_of(*NORMALISATIONS)),
    *(_optional(float), _optional(int), _optional(float), _optional(float)),
    *(_name, _optional(_name)),
)


def find_published(name: str) -> PublishedWeights:
    """The row that a name means.

    Args:
        name: `ARCHITECTURE.TAG`, `timm/ARCHITECTURE.TAG`, `hf-hub:timm/ARCHITECTURE.TAG`, or an
            architecture that has one tag only.

    Raises:
        UserError: an architecture with several tags (all are listed), or an unknown name (near ones
            are listed).
    """
    rows = read_published()
    wanted = re.sub(f"^(hf-hub:)?{OWNER}/", "", name)
    found = [row for row in rows if wanted in (row.id, row.arch)]
    if len(found) == 1:
        return found[0]
    if found:
        tags = ", ".join(row.id.partition(".")[2] for row in found)
        raise UserError(
            f"pretrained {name!r}: published {len(found)} times; give {wanted}.TAG with one of the "
            f"tags {tags}"
        )
    near = [*(row.id for row in rows), *dict.fromkeys(row.arch for row in rows)]
    hint = suggestion(wanted, near, "scripts/list_models.py --pretrained lists all", most=3)
    raise UserError(f"pretrained {name!r}: no published weights have this name; {hint}")
