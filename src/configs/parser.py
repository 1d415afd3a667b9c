"""Flat YAML recipes and command-line words -> checked values, and back to YAML.

The way of a value, each step a module of this folder that knows no key by name:

    command_line, recipe_files   words; a file over its `base:`, from the disk or a URL
    yaml_text, plain_values      text -> YAML node (its line known) -> plain Python value
    building                     entries -> sections of a configuration, and back to YAML
    checks                       the type, range and choices that the section declares by `keys`
    messages                     one line for whatever is wrong
"""

from __future__ import annotations

from .building import (
    build,
    declared_keys,
    flatten,
    keys_marked,
    keys_of,
    read_text,
    section_types,
    title_of,
    to_yaml,
)
from .checks import Section
from .command_line import command_line_entry, split_command_line, split_known
from .keys import key, section_keys
from .messages import COMMAND_LINE, DEFAULT, Entry, FieldError, show
from .plain_values import to_flow
from .recipe_files import read_files

__all__ = [
    "COMMAND_LINE",
    "DEFAULT",
    "Entry",
    "FieldError",
    "Section",
    "build",
    "command_line_entry",
    "declared_keys",
    "flatten",
    "key",
    "keys_marked",
    "keys_of",
    "read_files",
    "read_text",
    "section_keys",
    "section_types",
    "show",
    "split_command_line",
    "split_known",
    "title_of",
    "to_flow",
    "to_yaml",
]
