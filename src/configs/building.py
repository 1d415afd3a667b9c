"""Entries -> a configuration of several sections, and back to YAML."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar

from .checks import type_hints
from .keys import Key, section_keys
from .messages import (
    COMMAND_LINE,
    DEFAULT,
    Entry,
    FieldError,
    at,
    one_line,
    refusal,
    show,
    user_error,
)
from .plain_values import to_flow
from .recipe_files import check_known
from .yaml_text import read_entries

T = TypeVar("T")


def section_types(config_type: Type[Any]) -> Dict[str, Type[Any]]:
    """Section name -> its dataclass, in the order of declaration."""
    hints: Dict[str, Type[Any]] = type_hints(config_type)
    return {name: hints[name] for name in hints if dataclasses.is_dataclass(hints[name])}


def keys_of(config_type: Type[Any]) -> Dict[str, Any]:
    """Flat key -> annotation over all sections, in the order of declaration."""
    keys: Dict[str, Any] = {}
    for section_type in section_types(config_type).values():
        keys.update(type_hints(section_type))
    return keys


def declared_keys(config_type: Type[Any]) -> Dict[str, Key]:
    """Flat key -> its declaration over all sections, in the order of declaration."""
    declared: Dict[str, Key] = {}
    for section_type in section_types(config_type).values():
        declared.update(section_keys(section_type))
    return declared


def keys_marked(config_type: Type[Any], mark: str) -> List[str]:
    """The keys that are declared with a mark of `Key`, such as `free` or `network`."""
    return [name for name, key in declared_keys(config_type).items() if getattr(key, mark)]


def title_of(section_type: Type[Any]) -> str:
    """What a section is about: the first line of its docstring."""
    return (section_type.__doc__ or "").splitlines()[0]


def flatten(config: Any) -> Dict[str, Any]:
    """Flat key -> value over all sections of a configuration, in the order of declaration."""
    return {
        key: getattr(getattr(config, name), key)
        for name, section_type in section_types(type(config)).items()
        for key in type_hints(section_type)
    }


def build(config_type: Type[T], entries: Mapping[str, Entry]) -> T:
    """A configuration with the given entries; every other key has its default.

    Raises:
        UserError: an unknown key, or a check that failed; the message starts with the place.
    """
    check_known(entries, keys_of(config_type), {})
    origins = {key: entry.origin for key, entry in entries.items()}
    try:
        sections: Dict[str, Any] = {
            name: section_type(
                **{key: entries[key].value for key in type_hints(section_type) if key in entries}
            )
            for name, section_type in section_types(config_type).items()
        }
        sections["origins"] = origins
        return config_type(**sections)
    except FieldError as error:
        key = min(error.keys, key=lambda key: _blame(origins.get(key, DEFAULT)))
        shown = entries[key].shown() if key in entries else show(error.value)
        place = at(origins.get(key, DEFAULT), key)
        raise user_error(place, refusal(shown, error.allowed)) from error


def _blame(origin: str) -> int:
    """Of several fields that do not fit together, the one the user gave last is named."""
    return {COMMAND_LINE: 0, DEFAULT: 2}.get(origin, 1)


def read_text(config_type: Type[T], text: str, name: str, former: Mapping[str, Optional[str]]) -> T:
    """The configuration of a YAML text called `name` in messages and origins. Raises UserError.

    `former` says what keys of old are called now, and of which nothing is left (None).
    """
    written = read_entries(text, name)
    current = {key: former.get(key, key) for key in written}
    entries = {new: written[key] for key, new in current.items() if new is not None}
    if "base" in entries:
        raise user_error(at(entries["base"].origin, "base"), "allowed in files only")
    return build(config_type, entries)


def to_yaml(config: Any, with_origins: bool = False) -> str:
    """A configuration as YAML, one key a line, by section; reading it gives an equal one.

    `with_origins` adds where each value came from as a comment.
    """
    lines: List[str] = []
    for name, section_type in section_types(type(config)).items():
        lines.append(f"# {name}: {title_of(section_type)}")
        for key in type_hints(section_type):
            line = f"{key}: {to_flow(getattr(getattr(config, name), key))}"
            origin = one_line(config.origins[key])
            lines.append(f"{line}  # {origin}" if with_origins else line)
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"
