"""What is known of every architecture without building it: catalogue.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import List, NamedTuple, Optional

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
    """Every architecture of the registry, by family, then by name."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        return [
            CatalogueEntry(
                row["arch"],
                row["family"],
                int(row["params"]),
                float(row["gmacs"]),
                int(row["image_size"]),
                int(row["num_classes"]),
                float(row["top1"]) if row["top1"] else None,
                row["top1_source"],
            )
            for row in csv.DictReader(file)
        ]
