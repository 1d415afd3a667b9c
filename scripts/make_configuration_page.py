"""Write docs/configuration.md and docs/zh/configuration.md from the declared keys: for developers.

The English meanings are in src/settings (those of predict.py's options: in predict.py), the Chinese
ones in docs/zh/meanings.yaml. After changing one, run: python scripts/make_configuration_page.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Type

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import predict
from src.args import Config
from src.configs.keys import Key
from src.configs.parser import section_keys, section_types, title_of, to_flow
from src.errors import UserError, on_one_line
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import write_whole
from src.runtime.regular_files import RECORD_BYTES, read_text

FOLDER = ROOT / "docs"
MEANINGS = ROOT / "docs" / "zh" / "meanings.yaml"
HEAD = """\
# Configuration

[中文](zh/configuration.md)

Every key of a recipe is also an option of the command line: `--KEY VALUE`. A recipe is flat YAML;
`base: FILE` inherits from another recipe. The command line goes before the recipe, the recipe
before its base, and the base before the defaults below. `train.py --print_config` shows all values
of a run and where each comes from. The sections after `run` are options of one program each, not
keys of a recipe.

`scripts/make_configuration_page.py` writes this page.
"""
HEAD_ZH = """\
# 配置

[English](../configuration.md)

配方中的每个键同时也是命令行选项：`--KEY VALUE`。配方是单层键值 YAML；\
`base: FILE` 继承另一份配方。优先级：命令行 > 配方 > base > 下表中的默认值。\
`train.py --print_config` 显示一次运行的所有值及其来源。\
`run` 之后的各节是单个程序的选项，不能写进配方。

本页由 `scripts/make_configuration_page.py` 生成。
"""


class Meanings:
    """Chinese of what the code says in English, from a table: place -> {English: Chinese}.

    The English is the key of the table: when it changes, its Chinese is missed.

    Args:
        path: the table, a YAML file.

    Raises:
        UserError: it cannot be read, or is no such table.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._table = path, _read_table(path)
        self._left = {(place, text) for place, texts in self._table.items() for text in texts}

    def chinese(self, place: str, english: str) -> str:
        """The Chinese of a text; `place` is the key or section it belongs to.

        Raises:
            UserError: there is none.
        """
        texts = self._table.get(place, {})
        if english not in texts:
            raise UserError(f"{self._path}: {place}: no Chinese of {english!r}; add it there")
        self._left.discard((place, english))
        return texts[english]

    def check_all_used(self) -> None:
        """Refuses Chinese that no page has asked for.

        Raises:
            UserError: naming the first of it.
        """
        for place, english in sorted(self._left):
            raise UserError(
                f"{self._path}: {place}: the code does not say {english!r}; remove it there"
            )


def _read_table(path: Path) -> Dict[str, Dict[str, str]]:
    try:
        table = yaml.safe_load(read_text(path, RECORD_BYTES))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {on_one_line(error)}; restore the file") from error
    for place, texts in table.items() if isinstance(table, dict) else [("", table)]:
        pairs = texts.items() if isinstance(texts, dict) else [(None, None)]
        if not all(isinstance(text, str) for pair in pairs for text in pair):
            raise UserError(f'{path}: {place!r}: expected lines of "English": Chinese')
    return table


class English:
    """The words of the English page: those of the code."""

    head = HEAD
    key_row = "| key | default | meaning, unit, allowed values |"
    option_row = "| option | meaning, allowed values |"
    options_of_predict = "Options of predict.py beside the keys of a recipe."

    def said(self, place: str, english: str) -> str:
        """A text of the code as the page has it; `place` is the key or section it belongs to."""
        return english

    def key(self, place: str, key: Key) -> str:
        """What the page says of a key."""
        return key.text()

    def one_of(self, choices: Sequence[str]) -> str:
        """What follows the meaning of an option that takes one of these."""
        return f"; {', '.join(choices)}"


class Chinese(English):
    """The words of the Chinese page."""

    head = HEAD_ZH
    key_row = "| 键 | 默认值 | 含义、单位、允许的值 |"
    option_row = "| 选项 | 含义、允许的值 |"
    options_of_predict = "predict.py 除配方的键以外的选项。"

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings

    def said(self, place: str, english: str) -> str:
        return self._meanings.chinese(place, english)

    def key(self, place: str, key: Key) -> str:
        parts = [self.said(place, key.meaning)]
        if key.input_url or key.output_url:
            parts.append("可以是 URL")
        if key.choices:
            notes = {name: note and self.said(place, note) for name, note in key.choices.items()}
            words = [f"{name}（{note}）" if note else name for name, note in notes.items()]
            parts.append(" 或 ".join(["、".join(words[:-1]), words[-1]]).replace("） 或", "）或"))
        if key.range:
            parts.append(f"每个值 {key.range}" if key.is_list else key.range)
        if key.order:
            parts.append(key.order.replace("low", "下限").replace("high", "上限"))
        parts += [self.said(place, key.special)] if key.special else []
        return "；".join(parts)

    def one_of(self, choices: Sequence[str]) -> str:
        return f"；{'、'.join(choices)}"


def page(words: English) -> str:
    """A table per section of the configuration."""
    lines = [words.head]
    # What a program adds to the recipe is a subclass.
    programs = (Config, *Config.__subclasses__())
    sections = {name: section for run in programs for name, section in section_types(run).items()}
    for name, section in sections.items():
        lines += [f"## {name}", "", words.said(name, title_of(section)), ""]
        lines += [words.key_row, "|---|---|---|", *_rows(name, section, words), ""]
    return "\n".join([*lines, *_options_of_predict(words), ""])


def _rows(name: str, section: Type[Any], words: English) -> List[str]:
    declared = section_keys(section)
    return [
        f"| `{key}` | `{to_flow(default)}` | {_cell(words.key(f'{name}.{key}', declared[key]))} |"
        for key, default in vars(section()).items()
    ]


def _options_of_predict(words: English) -> List[str]:
    """The options of predict.py that are no keys, which argparse knows."""
    lines = ["## predict.py", "", words.options_of_predict, "", words.option_row, "|---|---|"]
    for action in predict.create_parser()._actions[1:]:  # without --help
        meaning = words.said(f"predict.{action.dest}", action.help or "")
        meaning += words.one_of(list(action.choices)) if action.choices else ""
        lines.append(f"| `{', '.join(action.option_strings)}` | {_cell(meaning)} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def pages() -> Dict[str, str]:
    """Path below docs/ -> text, in both languages.

    Raises:
        UserError: Chinese is missing, or its English is there no more.
    """
    meanings = Meanings(MEANINGS)
    written = {
        "configuration.md": page(English()),
        "zh/configuration.md": page(Chinese(meanings)),
    }
    meanings.check_all_used()
    return written


def write(arguments: argparse.Namespace) -> None:
    """Writes the pages and prints where."""
    found = {arguments.folder / name: text for name, text in pages().items()}
    for path in found:
        if not path.parent.is_dir():
            raise UserError(
                f"folder {arguments.folder}: no folder {path.parent}; give one with zh/, as docs"
            )
    for path, text in found.items():
        write_whole(path, text.encode())
        print(path)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("make_configuration_page.py", __doc__ or "")
    parser.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        help="folder of the documentation (default: %(default)s)",
    )
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
