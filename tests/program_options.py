"""Which options every program knows, as its own parser says."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional, Set, Type
from unittest import mock

from src import args
from src.configs.parser import declared_keys, keys_of, section_types
from src.runtime.entry import CommandParser

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Program:
    """What a program takes: parsers of its own, and the keys of a configuration."""

    parsers: List[argparse.ArgumentParser] = field(default_factory=list)
    config_type: Optional[Type[args.Config]] = None

    @property
    def actions(self) -> List[argparse.Action]:
        return [action for parser in self.parsers for action in parser._actions]

    def options(self) -> Set[str]:
        """Every spelling, `-h` too."""
        own = {name for action in self.actions for name in action.option_strings}
        return own | set(args._options(self.config_type) if self.config_type else ())

    def allows(self, option: str, value: str) -> bool:
        """Whether a literal value is one of the choices, or a number in the range."""
        for action in self.actions:
            if option in action.option_strings:
                return action.choices is None or value in action.choices
        return self.config_type is None or key_allows(self.config_type, option.lstrip("-"), value)


def key_allows(config_type: Type[args.Config], key: str, value: str) -> bool:
    """Whether a key of a configuration takes a literal value, other keys aside."""
    declared = declared_keys(config_type).get(key)
    if declared is None or keys_of(config_type)[key] is bool:  # after a flag goes on the sentence
        return True
    section = next(kind for kind in section_types(config_type).values() if hasattr(kind(), key))
    entry = args.parser.command_line_entry(key, [value], is_flag=False)
    try:
        section(**{key: entry.value})
    except args.FieldError as error:
        return len(error.keys) > 1 and error.keys[0] != key
    return True


class _Seen(Exception):
    """A program has come as far as its arguments."""


def load(program: str) -> ModuleType:
    """The program as a module; its own folder must be on the path, as when it is started."""
    path = ROOT / program
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def options_of(program: str) -> Program:
    """What the program hands to its parser."""
    found = Program()

    def parse(parser: Any, *_: Any, **__: Any) -> None:
        found.parsers += [parser, *_subcommands(parser)]
        if isinstance(parser, CommandParser) and parser._takes_keys:
            found.config_type = args.Config
        raise _Seen

    def configure(_: Any, config_type: Type[args.Config], *_others: Any) -> None:
        found.config_type = config_type
        raise _Seen

    before = list(sys.path)
    sys.path.insert(0, str((ROOT / program).parent))
    with (
        mock.patch.object(CommandParser, "parse_known_args", parse),
        mock.patch.object(args, "_config_of", configure),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(_Seen),
    ):
        load(program).main([])
    sys.path[:] = before
    assert found.parsers or found.config_type, program
    return found


def _subcommands(parser: argparse.ArgumentParser) -> List[argparse.ArgumentParser]:
    kinds = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [command for kind in kinds for command in kind.choices.values()]


def options_in_text(text: str) -> Set[str]:
    """The options that a script or a C++ program names anywhere in its source or usage."""
    return set(re.findall(r"(?<![\w-])--?[A-Za-z]\w*", text))


def option_tables(programs: List[str]) -> Dict[str, Program]:
    """Program -> what it takes."""
    return {program: options_of(program) for program in programs}
