"""Flat YAML recipes and command-line words -> checked values, and back to YAML.

Everything here is generic over the dataclasses of `src/args.py`, which come in as arguments.
A value goes: text -> YAML node (line known) -> plain Python value -> the field's type and range.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import sys
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from ..errors import UserError

T = TypeVar("T")

COMMAND_LINE = "command line"
DEFAULT = "default"

# A recipe has a few kilobytes; whoever passes a checkpoint as --config learns so at once.
_MAX_FILE_BYTES = 64 * 1024
_MAX_SHOWN_CHARS = 60
_MAX_DEPTH = 20
_MAX_NUMBER_CHARS = 300

_NULLS = frozenset(["~", "null", "Null", "NULL", ""])
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_SAFE_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_NEGATIVE_NUMBER = re.compile(r"-\.?([0-9]|inf|nan)", re.IGNORECASE)

_TYPE_NAMES: Dict[Any, str] = {
    str: "a non-empty string on one line (in quotes if it looks like a number, true or null)",
    int: "an integer such as 16",
    float: "a number such as 0.5 or 1e-4",
    bool: "true or false",
}


class Entry(NamedTuple):
    """A value and where it came from: `FILE:LINE`, `command line`, ..."""

    value: Any
    origin: str
    # The user's own spelling of a scalar, for messages: 1e400, where the value is inf.
    written: Optional[str] = None

    def shown(self) -> str:
        """The value as the user wrote it, on one line, cut when very long."""
        return show(self.value) if not self.written else _cut(one_line(self.written))


class NumberLike(str):
    """Plain text that YAML 1.1 reads as a number and a person may not: 0123, 1_000, 12:30, .inf.

    Neither a string nor a number: every field refuses it.
    """


class FieldError(UserError):
    """A value of the wrong type or out of range.

    A section does not know where its values came from: `build` adds the place.

    Attributes:
        keys: the fields that took part in the check; `value` is that of the first.
        allowed: what would be accepted.
    """

    def __init__(self, keys: Sequence[str], value: Any, allowed: str) -> None:
        super().__init__(f"{keys[0]}: {_refusal(show(value), allowed)}")
        self.keys = tuple(keys)
        self.value = value
        self.allowed = allowed


class _LineError(Exception):
    """A problem at a line (from 1) of a text whose name the raiser does not know."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


class _WrongType(Exception):
    """A value does not fit an annotation."""


# Evaluating the annotations' text costs a millisecond, and each value asks for them.
_annotations: Callable[[Any], Dict[str, Any]] = functools.cache(get_type_hints)


# --- messages -----------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """`text` with line breaks and whatever else does not print replaced by Python escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(value: Any) -> str:
    """`value` as the user would write it, on one line, cut when very long."""
    return _cut(one_line(to_flow(value)))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 3] + "..."


def _refusal(shown: str, allowed: str) -> str:
    return f"{shown} is not allowed; allowed: {allowed}"


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.0) -> Optional[str]:
    """The candidate most like `word`, case and dashes aside; None: none reaches `cutoff`."""
    by_folded = {candidate.lower(): candidate for candidate in candidates}
    folded = word.lower().replace("-", "_")[:_MAX_NUMBER_CHARS]
    found = difflib.get_close_matches(folded, by_folded, n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def _user_error(place: str, problem: str) -> UserError:
    return UserError(one_line(f"{place}: {problem}"))


def _at(origin: str, key: str) -> str:
    return f"{origin}: --{key}" if origin == COMMAND_LINE else f"{origin}: {key}"


# --- YAML text -> plain values ------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Composes nodes only, so no object is ever constructed; refuses tags."""

    depth = 0

    def scan_to_next_token(self) -> None:
        """Skips what separates tokens; YAML allows tabs there, PyYAML does not.

        The published recipes have tabs before their comments. A tab that indents stays an error.
        """
        super().scan_to_next_token()
        while self.peek() == "\t" and self._tab_separates():
            while self.peek() in " \t":
                self.forward()
            super().scan_to_next_token()

    def _tab_separates(self) -> bool:
        line_so_far = self.buffer[self.pointer - self.column : self.pointer]
        length = 0
        while self.peek(length) in " \t":
            length += 1
        ends_line = self.peek(length) in "#\r\n\0"
        return bool(self.flow_level) or ends_line or bool(line_so_far.strip(" \t"))

    def compose_node(self, parent: Optional[yaml.Node], index: Any) -> Optional[yaml.Node]:
        """Refuses `!tag`, and what is nested deeper than any value may be."""
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag is not None:
            key = f"{show(index.value)}: " if isinstance(index, yaml.ScalarNode) else ""
            shown = show(tag.replace("tag:yaml.org,2002:", "!!"))
            raise _LineError(
                event.start_mark.line + 1, f"{key}YAML tag {shown}: tags are not allowed"
            )
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _LineError(event.start_mark.line + 1, "invalid YAML: nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str) -> Optional[yaml.Node]:
    """The only document of a YAML text; None when it is empty. Raises _LineError."""
    try:
        # The constructor already refuses characters that do not print.
        return _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = ascii(chr(error.character))
        raise _LineError(line, f"character {character} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        if "'\\t'" in problem:
            problem = "a tab may not indent a line; use spaces"
        raise _LineError(mark.line + 1 if mark else 1, f"invalid YAML: {problem}") from error
    except (ValueError, OverflowError) as error:
        # PyYAML hands "\UFFFFFFFF" to chr().
        raise _LineError(1, f"invalid YAML: {error}") from error


def plain_value(text: str) -> Any:
    """What unquoted text means: null, bool, int, float, NumberLike or str.

    Booleans are YAML 1.1's (yes, no, on, off too). Numbers are decimal, and `1e-4` is one.
    """
    if text in _NULLS:
        return None
    tag = _resolver().resolve(yaml.ScalarNode, text, (True, False)).rsplit(":", 1)[-1]
    if tag == "bool":
        return text.lower() in ("yes", "true", "on")
    if len(text) <= _MAX_NUMBER_CHARS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    if tag in ("int", "float") or _LEADING_ZERO.fullmatch(text):
        return NumberLike(text)
    return text


_resolver = functools.cache(yaml.resolver.Resolver)


def _scalar(node: yaml.Node, what: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        found = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise _LineError(
            node.start_mark.line + 1, f"{what}: a {found} is not allowed here; allowed: one value"
        )
    return plain_value(node.value) if node.style is None else node.value


def _value(node: yaml.Node, key: str, mapping_allowed: bool = True) -> Any:
    """A scalar, a list of scalars, or (`mapping_allowed`) a mapping of either. Raises _LineError.

    No deeper, so that neither an alias of itself nor aliases of aliases can blow up.
    """
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(item, f"{key}: inside a list") for item in node.value]
    if isinstance(node, yaml.MappingNode) and mapping_allowed:
        return {
            name: _value(item, f"{key}: {name}", mapping_allowed=False)
            for name, (_, item) in _unique_keys(node, inside=f"{key}: ").items()
        }
    return _scalar(node, key)


def _unique_keys(node: yaml.MappingNode, inside: str = "") -> Dict[str, Tuple[int, yaml.Node]]:
    """Key -> (line, value node). Raises _LineError for a duplicate, `<<`, or what is no string."""
    found: Dict[str, Tuple[int, yaml.Node]] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node, f"{inside}key")
        place = f"{inside}{show(key)}"
        if type(key) is not str or not key:
            raise _LineError(line, f"{place}: not allowed as a key; allowed: a name")
        if key == "<<" and key_node.style is None:
            raise _LineError(
                line, f"{place}: merge keys are not allowed; use base: FILE to inherit"
            )
        if key in found:
            raise _LineError(
                line,
                f"{place}: {_source(value_node)} is a duplicate; "
                f"the key is already in line {found[key][0]}",
            )
        found[key] = (line, value_node)
    return found


def _source(node: yaml.Node) -> str:
    """What the user wrote for a value, on one line, cut when very long."""
    start, end = node.start_mark, node.end_mark
    return _cut(one_line((start.buffer or "")[start.pointer : end.pointer].strip()))


def _read_text(text: str, name: str) -> Dict[str, Entry]:
    """The entries of one YAML text called `name`. Raises UserError."""
    try:
        node = _compose(text)
        if node is None:
            raise _LineError(1, "the file is empty; expected lines of `key: value`")
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "one value"
            raise _LineError(
                node.start_mark.line + 1, f"{kind} at the top level; expected lines of `key: value`"
            )
        return {
            key: Entry(_value(value_node, show(key)), f"{name}:{line}", _source(value_node))
            for key, (line, value_node) in _unique_keys(node).items()
        }
    except _LineError as error:
        raise _user_error(f"{name}:{error.line}", error.problem) from error


# --- files and inheritance ----------------------------------------------------------------------


def _read_file(path: str, named_by: str, fetch: Optional[Callable[[str], bytes]] = None) -> str:
    """The text of a file; `named_by` is the place that asked for it. Raises UserError."""
    try:
        if fetch is not None and "://" in path:
            content = fetch(path)
        else:
            with open(path, "rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _user_error(named_by, f"{to_flow(path)} cannot be read: {reason}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise _user_error(path, f"more than {_MAX_FILE_BYTES} bytes; this is no configuration file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _user_error(f"{path}:{line}", "not UTF-8 text; save the file as UTF-8") from error


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
    named_by = _at(COMMAND_LINE, "config")
    next_path: Optional[str] = path
    while next_path is not None:
        seen = [os.path.realpath(earlier) for earlier in chain]
        chain.append(next_path)
        # realpath refuses a NUL; _read_file says so in one line.
        if "\0" not in next_path and os.path.realpath(next_path) in seen:
            raise _user_error(named_by, f"files that inherit in a circle: {' -> '.join(chain)}")
        found = _read_text(_read_file(next_path, named_by, fetch), next_path)
        base = found.pop("base", None)
        check_known(found, known, synonyms or {})
        entries = {**found, **entries}
        next_path = None if base is None else _base_path(base, next_path)
        named_by = "" if base is None else _at(base.origin, "base")
    return entries


def _base_path(base: Entry, named_in: str) -> str:
    if type(base.value) is not str or not base.value:
        raise _user_error(_at(base.origin, "base"), _refusal(base.shown(), "the path of a file"))
    scheme, separator, path = named_in.rpartition("://")
    if "://" in base.value:
        return str(base.value)
    return scheme + separator + os.path.normpath(os.path.join(os.path.dirname(path), base.value))


def check_known(
    entries: Mapping[str, Entry], known: Collection[str], synonyms: Mapping[str, str]
) -> None:
    """Raises UserError for the first key that is not known, with the nearest one that is."""
    for key, entry in entries.items():
        if key not in known:
            meant = synonyms.get(key) or nearest(key, known)
            raise _user_error(
                f"{entry.origin}: {show(key)}",
                f"unknown key (value {entry.shown()}); did you mean '{meant}'? "
                "--help lists every key",
            )


# --- command line -------------------------------------------------------------------------------


def split_command_line(
    arguments: Sequence[str], options: Mapping[str, str]
) -> Dict[str, List[str]]:
    """The words after each option, by the key the option stands for; the last use of a key wins.

    `options` maps spellings (`--lr`) to keys (`base_lr`). `--key=value` is `--key value`. A word
    is an option when it starts with a dash and is not a negative number.

    Raises:
        UserError: an unknown option, with the nearest known; a word that belongs to no option.
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
        return _user_error(
            f"{COMMAND_LINE}: {show(name)}", "not an option; write --key VALUE, see --help"
        )
    long_options = [option for option in options if option.startswith("--")]
    meant = nearest(name.lstrip("-"), [option[2:] for option in long_options])
    return _user_error(
        f"{COMMAND_LINE}: {one_line(name[:_MAX_SHOWN_CHARS])}",
        f"unknown option; did you mean '--{meant}'? --help lists every option",
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
        raise _user_error(_at(COMMAND_LINE, key), "needs a value")
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
        node = _compose(word)
        return None if node is None else _value(node, "value")
    except _LineError as error:
        raise _user_error(_at(COMMAND_LINE, key), f"{show(word)}: {error.problem}") from error


# --- checks of a section ------------------------------------------------------------------------


def check_types(section: Any) -> None:
    """Gives each field of a frozen dataclass its annotated type; for its `__post_init__`.

    An int becomes a float where a float is due, a list a tuple; nothing else is converted.

    Raises:
        FieldError: a value of another type, a number that is not finite, an empty string.
    """
    for name, annotation in _annotations(type(section)).items():
        value = getattr(section, name)
        try:
            object.__setattr__(section, name, _typed(value, annotation))
        except _WrongType as error:
            raise FieldError([name], value, str(error) or _describe(annotation)) from None


def _typed(value: Any, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return None if value is None else _typed(value, arguments[0])
    if origin is dict:
        return _typed_mapping(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) != len(arguments):
            raise _WrongType
        return tuple(_typed(item, argument) for item, argument in zip(value, arguments))
    # type() and not isinstance(): true is no 1, and NumberLike no string.
    if annotation is bool and type(value) is bool:
        return value
    # 64 bits, as everything that takes these numbers further has.
    if annotation is int and type(value) is int and abs(value) < 2**63:
        return value
    if annotation is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if annotation is str and type(value) is str and value and not _has_control(value):
        return value
    raise _WrongType


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _typed_mapping(value: Any) -> Dict[str, Any]:
    """A copy of a mapping of plain values; tuples become lists, as YAML has them."""
    if not isinstance(value, dict):
        raise _WrongType
    return {_typed(key, str): _plain_item(str(key), item) for key, item in value.items()}


def _plain_item(key: str, item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return [_plain_scalar(key, element) for element in item]
    return _plain_scalar(key, item)


def _plain_scalar(key: str, item: Any) -> Any:
    is_finite = type(item) in (int, float) and abs(item) <= sys.float_info.max
    if item is None or type(item) in (bool, str) or is_finite:
        return item
    raise _WrongType(f"for '{key}' a string, number, true, false, null, or a list of them")


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return f"{_describe(arguments[0])}, or null"
    if origin is tuple:
        return f"a list of {'' if arguments[-1] is Ellipsis else f'{len(arguments)} '}numbers"
    return "a mapping of names to plain values" if origin is dict else _TYPE_NAMES[annotation]


def check_ranges(section: Any, **intervals: str) -> None:
    """Checks fields against intervals written `>= 1`, `> 0`, `[0, 1)`; null passes.

    Of a tuple every element is checked. Raises FieldError.
    """
    for key, interval in intervals.items():
        value = getattr(section, key)
        numbers = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(_is_within(number, interval) for number in numbers):
            raise FieldError([key], value, f"each {interval}" if len(numbers) > 1 else interval)


def _is_within(number: float, interval: str) -> bool:
    if interval.startswith(">"):
        sign, bound = interval.split()
        return number >= float(bound) if sign == ">=" else number > float(bound)
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below


def check_choices(section: Any, **choices: Sequence[str]) -> None:
    """Checks that fields have one of the given values; null passes. Raises FieldError."""
    for key, allowed in choices.items():
        value = getattr(section, key)
        if value is not None and value not in allowed:
            meant = nearest(value, allowed, cutoff=0.5)
            hint = f"; did you mean '{meant}'?" if meant else ""
            raise FieldError([key], value, ", ".join(allowed) + hint)


# --- configuration <-> entries, YAML ------------------------------------------------------------


def section_types(config_type: Type[Any]) -> Dict[str, Type[Any]]:
    """Section name -> its dataclass, in the order of declaration."""
    hints: Dict[str, Type[Any]] = _annotations(config_type)
    return {name: hints[name] for name in hints if dataclasses.is_dataclass(hints[name])}


def keys_of(config_type: Type[Any]) -> Dict[str, Any]:
    """Flat key -> annotation over all sections, in the order of declaration."""
    keys: Dict[str, Any] = {}
    for section_type in section_types(config_type).values():
        keys.update(_annotations(section_type))
    return keys


def flatten(config: Any) -> Dict[str, Any]:
    """Flat key -> value over all sections of a configuration, in the order of declaration."""
    return {
        key: getattr(getattr(config, name), key)
        for name, section_type in section_types(type(config)).items()
        for key in _annotations(section_type)
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
                **{key: entries[key].value for key in _annotations(section_type) if key in entries}
            )
            for name, section_type in section_types(config_type).items()
        }
        sections["origins"] = origins
        return config_type(**sections)
    except FieldError as error:
        key = min(error.keys, key=lambda key: _blame(origins.get(key, DEFAULT)))
        shown = entries[key].shown() if key in entries else show(error.value)
        place = _at(origins.get(key, DEFAULT), key)
        raise _user_error(place, _refusal(shown, error.allowed)) from error


def _blame(origin: str) -> int:
    """Of several fields that do not fit together, the one the user gave last is named."""
    return {COMMAND_LINE: 0, DEFAULT: 2}.get(origin, 1)


def read_text(config_type: Type[T], text: str, name: str) -> T:
    """The configuration of a YAML text called `name` in messages and origins. Raises UserError."""
    entries = _read_text(text, name)
    if "base" in entries:
        raise _user_error(_at(entries["base"].origin, "base"), "allowed in files only")
    return build(config_type, entries)


def to_yaml(config: Any, with_origins: bool = False) -> str:
    """A configuration as YAML, one key a line, by section; reading it gives an equal one.

    `with_origins` adds where each value came from as a comment.
    """
    lines: List[str] = []
    for name, section_type in section_types(type(config)).items():
        title = (section_type.__doc__ or "").splitlines()[0]
        lines.append(f"# {name}: {title}")
        for key in _annotations(section_type):
            line = f"{key}: {to_flow(getattr(getattr(config, name), key))}"
            origin = one_line(config.origins[key])
            lines.append(f"{line}  # {origin}" if with_origins else line)
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def to_flow(value: Any) -> str:
    """A plain value as YAML on one line, read alike by this module and by PyYAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # Without the point PyYAML reads 1e-08 as a string.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(to_flow(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{to_flow(k)}: {to_flow(v)}' for k, v in value.items())}}}"
    return _string_to_flow(value) if isinstance(value, str) else str(value)


def _string_to_flow(text: str) -> str:
    is_plain = _SAFE_PLAIN.fullmatch(text) and type(plain_value(text)) is str
    if is_plain or isinstance(text, NumberLike):
        return str(text)
    quoted = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize)
    return quoted.rstrip("\n")
