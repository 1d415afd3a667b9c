"""Write the tables of variants and keywords in docs/models and docs/zh/models: for developers.

The English of the tables is in the code, the Chinese in docs/zh/models/meanings.yaml. After
changing one, run: python scripts/make_model_pages.py
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from list_models import in_words, recipes_by_arch
from make_configuration_page import Meanings

from src.runtime.entry import CommandParser, run_command
from src.runtime.files import write_whole
from src.runtime.regular_files import RECORD_BYTES, read_text

FOLDER = ROOT / "docs"
MEANINGS = ROOT / "docs" / "zh" / "models" / "meanings.yaml"
END = "<!-- end -->"


class English:
    """The words of an English page: those of the code."""

    folder = "models"
    variant_row = (
        "| name | M params | GMACs | size | classes | published top-1 | source | recipes |"
    )
    keyword_row = "| keyword | meaning | allowed | value |"

    def said(self, place: str, english: str) -> str:
        """A text of the code as the page has it; `place` is what it belongs to."""
        return english

    def allowed(self, keyword: Any) -> str:
        """The values that a keyword takes."""
        return keyword.allowed()

    def value(self, values: Sequence[str]) -> str:
        """What a keyword is without `model_args`, from its values in all architectures."""
        return in_words(values)


class Chinese(English):
    """The words of a Chinese page."""

    folder = "zh/models"
    variant_row = (
        "| 名称 | 参数量（M） | GMACs | 图像大小 | 类别数 | 已发布的 top-1 | 数字来源 | 配方 |"
    )
    keyword_row = "| 参数 | 含义 | 允许的值 | 取值 |"

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings

    def said(self, place: str, english: str) -> str:
        return self._meanings.chinese(place, english)

    def allowed(self, keyword: Any) -> str:
        if keyword.choices:
            found = " 或 ".join(keyword.choices)
        elif keyword.kind is bool:
            found = "true 或 false"
        else:
            what = "整数" if keyword.kind is int else "数"
            found = f"{keyword.low:g} 至 {keyword.high:g} 的{what}"
            if keyword.below <= keyword.high:
                found = f"不小于 {keyword.low:g} 且小于 {keyword.below:g} 的{what}"
        if keyword.length:
            found = f"{keyword.length} 个值的列表，每个值为 {found}"
        return f"{found}，或 null" if keyword.optional else found

    def value(self, values: Sequence[str]) -> str:
        if len(values) == 1:
            return f"默认 {values[0]}"
        return f"由网络结构决定，例如 {' 或 '.join(values[:2])}"


def variants(entries: Iterable[Any], recipes: Mapping[str, Sequence[str]], words: English) -> str:
    """The table of the architectures of a family; `recipes`: files by architecture."""
    lines = [words.variant_row, "|---|---|---|---|---|---|---|---|"]
    for entry in entries:
        top1 = "-" if entry.top1 is None else f"{entry.top1:g} %"
        source = words.said("published top-1", entry.top1_source) if entry.top1_source else "-"
        files = ", ".join(f"`{name}`" for name in recipes.get(entry.arch, [])) or "-"
        lines.append(
            f"| `{entry.arch}` | {entry.params / 1e6:.2f} | {entry.gmacs:.2f} | "
            f"{entry.image_size} | {entry.num_classes} | {top1} | {source} | {files} |"
        )
    return "\n".join(lines)


def keywords(family: str, words: English) -> str:
    """The table of what `model_args` takes in a family."""
    from src.models.registry import FAMILIES, own_values

    lines = [words.keyword_row, "|---|---|---|---|"]
    for name, keyword in FAMILIES[family].keywords.items():
        meaning = words.said(f"{family}.{name}", keyword.meaning)
        value = words.value(own_values(family, name))
        lines.append(f"| `{name}` | {meaning} | {words.allowed(keyword)} | {value} |")
    return "\n".join(lines)


def with_tables(text: str, **tables: str) -> str:
    """The page with its tables written anew.

    Args:
        tables: by what the comment before each calls it.
    """
    for name, table in tables.items():
        start = f"<!-- {name}: written by scripts/make_model_pages.py -->"
        pattern = re.escape(start) + ".*?" + re.escape(END)
        written = f"{start}\n\n{table}\n\n{END}"
        text = re.sub(pattern, lambda _, new=written: new, text, flags=re.DOTALL)
    return text


def pages(folder: Path) -> Dict[Path, str]:
    """Every page of a family, in both languages, as it should be.

    Raises:
        UserError: Chinese is missing, or the code does not say its English.
        OSError: a page cannot be read.
    """
    from src.models.catalogue import read_catalogue
    from src.models.registry import FAMILIES

    meanings = Meanings(MEANINGS)
    catalogue, recipes = read_catalogue(), recipes_by_arch()
    written = {}
    for words in (English(), Chinese(meanings)):
        for family in FAMILIES:
            page = folder / words.folder / f"{family}.md"
            entries = [entry for entry in catalogue if entry.family == family]
            written[page] = with_tables(
                read_text(page, RECORD_BYTES),
                variants=variants(entries, recipes, words),
                keywords=keywords(family, words),
            )
    meanings.check_all_used()
    return written


def write(arguments: argparse.Namespace) -> None:
    """Writes the tables, and prints where."""
    for page, text in pages(arguments.folder).items():
        write_whole(page, text.encode())
        print(page)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("make_model_pages.py", __doc__ or "")
    parser.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        help="folder of the documentation (default: %(default)s)",
    )
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
