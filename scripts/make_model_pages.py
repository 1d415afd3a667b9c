"""Write the tables of variants and keywords in docs/models: python scripts/make_model_pages.py"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from list_models import recipes_by_arch

from src.runtime.entry import CommandParser, run_command
from src.runtime.files import write_whole
from src.runtime.regular_files import RECORD_BYTES, read_text

FOLDER = ROOT / "docs" / "models"
KEYWORDS = "<!-- keywords: written by scripts/make_model_pages.py -->"
START, END = "<!-- variants: written by scripts/make_model_pages.py -->", "<!-- end -->"
HEAD = "| name | M params | GMACs | size | classes | published top-1 | whose number | recipes |"


def variants(family: str) -> str:
    """The table of a family, from its file, src/models/catalogue.csv and src/configs."""
    from src.models.catalogue import read_catalogue

    recipes = recipes_by_arch()
    lines = [HEAD, "|---|---|---|---|---|---|---|---|"]
    for entry in read_catalogue():
        if entry.family == family:
            top1 = "-" if entry.top1 is None else f"{entry.top1:g} %"
            files = ", ".join(f"`{name}`" for name in recipes.get(entry.arch, [])) or "-"
            lines.append(
                f"| `{entry.arch}` | {entry.params / 1e6:.2f} | {entry.gmacs:.2f} | "
                f"{entry.image_size} | {entry.num_classes} | {top1} | {entry.top1_source or '-'} | "
                f"{files} |"
            )
    return "\n".join(lines)


def keywords(family: str) -> str:
    """The table of what `model_args` takes in a family."""
    from src.models.registry import FAMILIES, own_values

    rows = [
        f"| `{name}` | {keyword.meaning} | {keyword.allowed()} | {own_values(family, name)} |"
        for name, keyword in FAMILIES[family].keywords.items()
    ]
    return "\n".join(["| keyword | meaning | allowed | value |", "|---|---|---|---|", *rows])


def with_tables(text: str, family: str) -> str:
    """The page with its tables written anew."""
    for start, table in ((START, variants(family)), (KEYWORDS, keywords(family))):
        pattern = re.escape(start) + ".*?" + re.escape(END)
        written = f"{start}\n\n{table}\n\n{END}"
        text = re.sub(pattern, lambda _, new=written: new, text, flags=re.DOTALL)
    return text


def write(arguments: argparse.Namespace) -> None:
    """Writes the tables, and prints where."""
    from src.models.registry import FAMILIES

    folder = arguments.folder
    for family in FAMILIES:
        page = folder / f"{family}.md"
        write_whole(page, with_tables(read_text(page, RECORD_BYTES), family).encode())
        print(page)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("make_model_pages.py", __doc__ or "")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
