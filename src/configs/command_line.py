"""Words of the command line -> entries by key."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import UserError, suggestion
from .messages import (
    COMMAND_LINE,
    MAX_SHOWN_CHARS,
    Entry,
    LineError,
    at,
    one_line,
    show,
    user_error,
)
from .plain_values import plain_value
from .yaml_text import compose, node_value

_NEGATIVE_NUMBER = re.compile(r"-\.?([0-9]|inf|nan)", re.IGNORECASE)


def split_command_line(
    arguments: Sequence[str], options: Mapping[str, str]
) -> Dict[str, List[str]]:
    """The words after each option, by the key the option stands for; the last use of a key wins.

    `options` maps spellings (`--lr`) to keys (`base_lr`). `--key=value` is `--key value`. A word
    is an option when it starts with a dash and is not a negative number.

    Raises:
        UserError: an unknown option, with one that is near; a word that belongs to no option.
    """
    words: Dict[str, List[str]] = {}
    current: Optional[List[str]] = None
    for argument in arguments:
        is_option = argument.startswith("-") and not _NEGATIVE_NUMBER.match(argument)
        if not is_option and current is not None:
            current.append(argument)
            continue
        name, equals, value = argument.partition("=")
        # `-j8` is customary.
        if re.fullmatch("-[a-z][0-9]+", argument):
            name, equals, value = argument[:2], "=", argument[2:]
        if name not in options:
            raise _unknown_option(name if is_option else argument, is_option, options)
        current = words[options[name]] = [value] if equals else []
    return words


def split_known(
    arguments: Sequence[str], options: Mapping[str, str]
) -> Tuple[List[str], List[str]]:
    """`arguments` without options that are not known and their words, and those alone."""
    known: List[str] = []
    ignored: List[str] = []
    target = known
    for argument in arguments:
        if argument.startswith("-") and not _NEGATIVE_NUMBER.match(argument):
            name = argument.partition("=")[0]
            is_joined = re.fullmatch("-[a-z][0-9]+", argument) and argument[:2] in options
            target = known if name in options or is_joined else ignored
        target.append(argument)
    return known, ignored


def _unknown_option(name: str, is_option: bool, options: Mapping[str, str]) -> UserError:
    if not is_option:
        return user_error(
            f"{COMMAND_LINE}: {show(name)}", "not an option; write --KEY VALUE, see --help"
        )
    names = [option[2:] for option in options if option.startswith("--")]
    meant = suggestion(name.lstrip("-"), names, prefix="--")
    return user_error(
        f"{COMMAND_LINE}: {one_line(name[:MAX_SHOWN_CHARS])}",
        f"unknown option; {meant + ' ' if meant else ''}--help lists every option",
    )


def command_line_entry(key: str, words: Sequence[str], is_flag: bool) -> Entry:
    """The value of the words after an option; a flag alone means true.

    One word is a value, several are a list. A word is YAML when it starts with a bracket, brace
    or quote, else it is taken as it stands, so that a path may contain ` #` or `: `.

    Raises:
        UserError: no word where one is due, or a word that is invalid YAML.
    """
    if not words:
        if is_flag:
            return Entry(True, COMMAND_LINE)
        raise user_error(at(COMMAND_LINE, key), "needs a value")
    values = [_word_value(key, word) for word in words]
    if len(values) > 1:
        return Entry(values, COMMAND_LINE)
    return Entry(values[0], COMMAND_LINE, words[0])


def _word_value(key: str, word: str) -> Any:
    if not word:
        return word
    if word[0] not in "[{\"'":
        return plain_value(word)
    try:
        node = compose(word)
        return None if node is None else node_value(node, "value")
    except LineError as error:
        raise user_error(at(COMMAND_LINE, key), f"{show(word)}: {error.problem}") from error
