"""Write docs/configuration.md from src/settings: python scripts/make_configuration_page.py"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import predict
from src.args import Config
from src.configs.parser import section_keys, section_types, title_of, to_flow
from src.runtime.entry import CommandParser, run_command
from src.runtime.files import write_whole

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Configuration

Every key of a recipe, which is also an option (`--KEY VALUE`). A recipe is flat YAML; `base: FILE`
inherits. The command line goes before the file, that before its base, and that before the default
given here. The sections after `run` are options of one program each, not keys of a
recipe. `train.py --print_config` shows what holds and where each value came from.

Written by `scripts/make_configuration_page.py`.
"""


def page() -> str:
    """A table per section of the configuration."""
    lines = [HEAD]
    # What a program adds to the recipe is a subclass.
    programs = (Config, *Config.__subclasses__())
    sections = {name: section for run in programs for name, section in section_types(run).items()}
    for name, section in sections.items():
        lines += [f"## {name}", "", title_of(section), ""]
        lines += ["| key | default | meaning, unit, allowed values |", "|---|---|---|"]
        for key, default in vars(section()).items():
            meaning = _cell(section_keys(section)[key].text())
            lines.append(f"| `{key}` | `{to_flow(default)}` | {meaning} |")
        lines.append("")
    return "\n".join([*lines, *_options_of_predict(), ""])


def _options_of_predict() -> List[str]:
    """The options of predict.py that are no keys, which argparse knows."""
    lines = ["## predict.py", "", "What it takes beside the keys of a recipe.", ""]
    lines += ["| option | meaning, allowed values |", "|---|---|"]
    for action in predict.create_parser()._actions[1:]:  # without --help
        allowed = f"; {', '.join(action.choices)}" if action.choices else ""
        lines.append(
            f"| `{', '.join(action.option_strings)}` | {_cell(f'{action.help}{allowed}')} |"
        )
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def write(arguments: argparse.Namespace) -> None:
    """Writes the page and prints where."""
    write_whole(arguments.output, page().encode())
    print(arguments.output)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("make_configuration_page.py", "Write docs/configuration.md.")
    parser.add_argument("--output", type=Path, default=PAGE, help="default: %(default)s")
    return run_command(write, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
