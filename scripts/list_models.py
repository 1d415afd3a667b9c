"""List the architectures, or the published weights of timm, that are here.

python scripts/list_models.py [--filter deit] [--pretrained]

One line per architecture: name, family, parameters (millions), GMACs (1e9 multiply-accumulates of
one image at the size beside it), classes, published top-1 (percent) and whose number that is, and
the recipes in src/configs. No published number was measured here.

With --pretrained one line per file of weights that timm publishes: its name, licence, size of the
images and classes (0: no classifier), top-1 on ImageNet's validation images (percent), the same at
the larger size of images that timm tests with, and whose number both are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.args import Config
from src.configs.parser import keys_of, read_files
from src.errors import UserError
from src.runtime.entry import CommandParser, run_command

if TYPE_CHECKING:
    from src.models.catalogue import CatalogueEntry
    from src.models.published import PublishedWeights

RECIPES = Path(__file__).resolve().parents[1] / "src" / "configs"
HEADINGS = ("name", "family", "M params", "GMACs", "size", "classes", "top-1", "of", "recipes")
PUBLISHED = ("name", "licence", "size", "classes", "top-1", "test size", "top-1 there", "of")
NUMERIC = (2, 3, 4, 5, 6)  # of both
WIDTHS = {"dim", "dims", "embed_dim", "embed_dims"}


def recipes_by_arch() -> Dict[str, List[str]]:
    """Architecture -> names of the recipe files that train it, not a network of other widths."""
    found: Dict[str, List[str]] = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        entries = read_files(str(path), keys_of(Config))
        changed = entries["model_args"].value if "model_args" in entries else {}
        if "arch" in entries and not WIDTHS & set(changed):  # finetune.yaml is for all
            found.setdefault(entries["arch"].value, []).append(path.name)
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in NUMERIC else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def _row(entry: CatalogueEntry, recipes: List[str]) -> Sequence[str]:
    return (
        entry.arch,
        entry.family,
        f"{entry.params / 1e6:.2f}",
        f"{entry.gmacs:.3g}" if entry.gmacs < 10 else f"{entry.gmacs:.1f}",
        str(entry.image_size),
        str(entry.num_classes),
        "-" if entry.top1 is None else f"{entry.top1:g}",
        entry.top1_source or "-",
        " ".join(recipes) or "-",
    )


def _pretrained_row(weights: PublishedWeights) -> Sequence[str]:
    from src.models.published import OWNER

    shown = (weights.top1, weights.test_image_size, weights.test_top1)
    top1, test_size, test_top1 = ("-" if value is None else f"{value:g}" for value in shown)
    return (
        weights.id,
        weights.licence,
        str(weights.image_size),
        str(weights.num_classes),
        top1,
        test_size,
        test_top1,
        "-" if weights.top1 is None else OWNER,
    )


def show(arguments: argparse.Namespace) -> None:
    """Prints what matches."""
    show_pretrained(arguments.filter) if arguments.pretrained else show_architectures(arguments)


def show_pretrained(wanted: str) -> None:
    """Files of weights that have `wanted` in their names."""
    from src.models.published import read_published

    rows = [_pretrained_row(row) for row in read_published() if wanted.lower() in row.id]
    _require(rows, wanted, "no published weights have it in their names")
    print(table([PUBLISHED, *rows]))


def show_architectures(arguments: argparse.Namespace) -> None:
    """Those of a family, or with a part of their names; or the keywords of their families."""
    from src.models.catalogue import read_catalogue

    wanted = arguments.filter.lower()
    entries = [e for e in read_catalogue() if wanted == e.family or wanted in e.arch]
    _require(entries, arguments.filter, "no architecture has it in its name")
    if arguments.model_args:
        print("\n\n".join(keywords(family) for family in dict.fromkeys(e.family for e in entries)))
        return
    recipes = recipes_by_arch()
    print(table([HEADINGS, *(_row(e, recipes.get(e.arch, [])) for e in entries)]))


def _require(found: Sequence[object], wanted: str, reason: str) -> None:
    if not found:
        raise UserError(f"filter {wanted!r}: {reason}; without --filter all are listed")


def in_words(values: Sequence[str]) -> str:
    """What a keyword is without `model_args`, from its values in all architectures."""
    if len(values) == 1:
        return f"default {values[0]}"
    return f"by architecture, such as {' or '.join(values[:2])}"


def keywords(family: str) -> str:
    """What `model_args` takes in a family, a line each: keyword, allowed, meaning, value."""
    from src.models.registry import FAMILIES, own_values

    rows = [
        f"  {name}: {keyword.allowed()}; {keyword.meaning}; {in_words(own_values(family, name))}"
        for name, keyword in FAMILIES[family].keywords.items()
    ]
    return "\n".join([f"{FAMILIES[family].title} ({family})", *rows])


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("list_models.py", __doc__ or "")
    parser.add_argument(
        "--filter", default="", help="list only this family, or names with this part"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--model_args",
        action="store_true",
        help="list the keywords that model_args takes instead, by family",
    )
    instead.add_argument(
        "--pretrained",
        action="store_true",
        help="list published weights instead, with licence and top-1",
    )
    return run_command(show, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
