"""Write docs/configuration.md from src/args.py: python scripts/make_configuration_page.py"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.args import Config, field_comments
from src.configs.parser import section_types, to_flow

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Configuration

Every key of a recipe, which is also an option (`--KEY VALUE`). A recipe is flat YAML; `base: FILE`
inherits. The command line goes before the file, that before its base, and that before the default
given here. The sections after `run` are options of one program each, not keys of a
recipe. `--print_config` shows what holds and where each value came from.

Written by `scripts/make_configuration_page.py`.
"""


def page() -> str:
    """A table per section of the configuration."""
    comments = field_comments()
    lines = [HEAD]
    # What a program adds to the recipe is a subclass.
    programs = (Config, *Config.__subclasses__())
    sections = {name: section for run in programs for name, section in section_types(run).items()}
    for name, section in sections.items():
        lines += [f"## {name}", "", (section.__doc__ or "").splitlines()[0], ""]
        lines += ["| key | default | meaning, unit, allowed values |", "|---|---|---|"]
        for key, value in vars(section()).items():
            comment = comments[key].replace("|", "\\|").replace("<", "\\<")
            lines.append(f"| `{key}` | `{to_flow(value)}` | {comment} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
