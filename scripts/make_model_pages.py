"""Write the tables of variants in docs/models: python scripts/make_model_pages.py"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from list_models import recipes_by_arch

from src.models.catalogue import read_catalogue
from src.models.registry import FAMILIES

FOLDER = ROOT / "docs" / "models"
START, END = "<!-- variants: written by scripts/make_model_pages.py -->", "<!-- end -->"
HEAD = "| name | M params | GMACs | size | classes | published top-1 | whose number | recipes |"


def variants(family: str) -> str:
    """The table of a family, from its file, src/models/catalogue.csv and src/configs."""
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


def with_variants(text: str, family: str) -> str:
    """The page with its table written anew."""
    pattern = re.escape(START) + ".*?" + re.escape(END)
    return re.sub(pattern, f"{START}\n\n{variants(family)}\n\n{END}", text, flags=re.DOTALL)


def main() -> None:
    for family in FAMILIES:
        page = FOLDER / f"{family}.md"
        page.write_text(with_variants(page.read_text(encoding="utf-8"), family), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
