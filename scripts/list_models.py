"""List the architectures: python scripts/list_models.py [--filter TEXT] [--model_args]"""

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

RECIPES = Path(__file__).resolve().parents[1] / "src" / "configs"
DESCRIPTION = """\
One line per architecture: name, family, parameters (millions), GMACs (1e9 multiply-accumulates of
one image at the size beside it), classes, published top-1 (percent) and whose number that is, and
the recipes in src/configs. No published number was measured here."""
HEADINGS = ("name", "family", "M params", "GMACs", "size", "classes", "top-1", "of", "recipes")
NUMERIC = (2, 3, 4, 5, 6)
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


def table(entries: Sequence[CatalogueEntry], recipes: Dict[str, List[str]]) -> str:
    """Columns of equal width, numbers to the right."""
    rows = [HEADINGS, *(_row(entry, recipes.get(entry.arch, [])) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
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


def show(arguments: argparse.Namespace) -> None:
    """Prints what matches."""
    from src.models.catalogue import read_catalogue

    wanted = arguments.filter.lower()
    entries = [e for e in read_catalogue() if wanted == e.family or wanted in e.arch]
    if not entries:
        raise UserError(
            f"filter {arguments.filter!r}: no architecture has it in its name; without --filter "
            "all are listed"
        )
    if arguments.model_args:
        print("\n\n".join(keywords(family) for family in dict.fromkeys(e.family for e in entries)))
    else:
        print(table(entries, recipes_by_arch()))


def keywords(family: str) -> str:
    """What `model_args` takes in a family, a line each: keyword, allowed, meaning, value."""
    from src.models.registry import FAMILIES, own_values

    rows = [
        f"  {name}: {keyword.allowed()}; {keyword.meaning}; {own_values(family, name)}"
        for name, keyword in FAMILIES[family].keywords.items()
    ]
    return "\n".join([f"{FAMILIES[family].title} ({family})", *rows])


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("list_models.py", DESCRIPTION)
    parser.add_argument("--filter", default="", help="a family, or part of a name")
    parser.add_argument(
        "--model_args",
        action="store_true",
        help="list the keywords that model_args takes instead, by family",
    )
    return run_command(show, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
