"""Recipes on the disk or at a URL, and what they inherit by `base: FILE`."""

from __future__ import annotations

import os
from typing import Callable, Collection, Dict, List, Mapping, Optional

from ..errors import suggestion
from ..runtime.regular_files import RECIPE_BYTES, FileTooLarge, NoRegularFile, read_regular
from .messages import COMMAND_LINE, Entry, at, refusal, show, user_error
from .plain_values import to_flow
from .yaml_text import read_entries


def _read_file(path: str, named_by: str, fetch: Optional[Callable[[str], bytes]] = None) -> str:
    """The text of a file; `named_by` is the place that asked for it. Raises UserError."""
    try:
        if fetch is not None and "://" in path:
            content = fetch(path)
        else:
            content = read_regular(path, RECIPE_BYTES)
    except FileTooLarge as error:
        raise user_error(path, f"{error.strerror}; this is no configuration file") from error
    except (OSError, ValueError) as error:
        raise user_error(named_by, f"{to_flow(path)} cannot be read: {_reason(error)}") from error
    if len(content) > RECIPE_BYTES:
        raise user_error(path, f"more than {RECIPE_BYTES} bytes; this is no configuration file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise user_error(f"{path}:{line}", "not UTF-8 text; save the file as UTF-8") from error


def _reason(error: Exception) -> str:
    """With a remedy where the system's word alone does not tell one."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, IsADirectoryError):
        return f"{reason}; name one in it"
    if isinstance(error, NoRegularFile):
        return f"{reason}; save it to a file, and give that"
    return reason


def read_files(
    path: str,
    known: Collection[str],
    synonyms: Optional[Mapping[str, str]] = None,
    *,
    fetch: Optional[Callable[[str], bytes]] = None,
) -> Dict[str, Entry]:
    """The entries of a YAML file over those of its `base:`, over those of the base's base, ...

    A key replaces the base's as a whole, a mapping too: what a recipe says is all there is.
    `synonyms` are names the command line knows, for the hint at an unknown key; `fetch` reads a
    file at a URL.

    Raises:
        UserError: a file that cannot be read or parsed, a cycle, an unknown key; the message
            starts with FILE:LINE.
    """
    entries: Dict[str, Entry] = {}
    chain: List[str] = []
    named_by = at(COMMAND_LINE, "config")
    next_path: Optional[str] = path
    while next_path is not None:
        seen = [os.path.realpath(earlier) for earlier in chain]
        chain.append(next_path)
        # realpath refuses a NUL; _read_file says so in one line.
        if "\0" not in next_path and os.path.realpath(next_path) in seen:
            raise user_error(named_by, f"files that inherit in a circle: {' -> '.join(chain)}")
        found = read_entries(_read_file(next_path, named_by, fetch), next_path)
        base = found.pop("base", None)
        check_known(found, known, synonyms or {})
        entries = {**found, **entries}
        next_path = None if base is None else _base_path(base, next_path)
        named_by = "" if base is None else at(base.origin, "base")
    return entries


def _base_path(base: Entry, named_in: str) -> str:
    if type(base.value) is not str or not base.value:
        raise user_error(at(base.origin, "base"), refusal(base.shown(), "the path of a file"))
    scheme, separator, path = named_in.rpartition("://")
    if "://" in base.value:
        return str(base.value)
    return scheme + separator + os.path.normpath(os.path.join(os.path.dirname(path), base.value))


def check_known(
    entries: Mapping[str, Entry], known: Collection[str], synonyms: Mapping[str, str]
) -> None:
    """Raises UserError for the first key that is not known, with the one it may be."""
    for key, entry in entries.items():
        if key not in known:
            meant = suggestion(synonyms.get(key, key), known)
            raise user_error(
                f"{entry.origin}: {show(key)}",
                f"unknown key (value {entry.shown()}); {meant + ' ' if meant else ''}"
                "--help lists every key",
            )
