"""What is known of every architecture without building it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import List, NamedTuple, Optional

from .registry import FAMILIES, count_macs, resolve

_FILE = Path(__file__).with_name("catalogue.csv")


class CatalogueEntry(NamedTuple):
    """One architecture at its own image size and number of classes.

    Attributes:
        params: numbers in its parameters, fixed position tables included.
        gmacs: 1e9 multiply-accumulates for one image: convolutions, linear layers and the matrix
            products of attention; norms, activations, biases and pooling are not counted.
        top1: percent, published; None: nobody published one.
        top1_source: whose number that is, and on which data.
    """

    arch: str
    family: str
    params: int
    gmacs: float
    image_size: int
    num_classes: int
    top1: Optional[float]
    top1_source: str


def read_catalogue() -> List[CatalogueEntry]:
    """Every architecture of catalogue.csv, in its order; what the registry says is not in it."""
    families = {arch: name for name, family in FAMILIES.items() for arch in family.variants}
    entries = []
    with _FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            arch = row["arch"]
            keywords = resolve(arch)[1]
            entries.append(
                CatalogueEntry(
                    arch=arch,
                    family=families[arch],
                    params=int(row["params"]),
                    gmacs=count_macs(arch) / 1e9,
                    image_size=keywords["img_size"],
                    num_classes=keywords["num_classes"],
                    top1=float(row["top1"]) if row["top1"] else None,
                    top1_source=row["top1_source"],
                )
            )
    return entries
