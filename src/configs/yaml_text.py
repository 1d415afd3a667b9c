"""YAML text -> plain values with their lines. No object is constructed, no tag is allowed."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import yaml

from .messages import Entry, LineError, cut, one_line, show, user_error
from .plain_values import plain_value

_MAX_DEPTH = 20


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
            raise LineError(
                event.start_mark.line + 1, f"{key}YAML tag {shown}: tags are not allowed"
            )
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise LineError(event.start_mark.line + 1, "invalid YAML: nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str) -> Optional[yaml.Node]:
    """The only document of a YAML text; None when it is empty. Raises LineError."""
    try:
        # The constructor already refuses characters that do not print.
        return _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = ascii(chr(error.character))
        raise LineError(line, f"character {character} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        if "'\\t'" in problem:
            problem = "a tab may not indent a line; use spaces"
        raise LineError(mark.line + 1 if mark else 1, f"invalid YAML: {problem}") from error
    except (ValueError, OverflowError) as error:
        # PyYAML hands "\UFFFFFFFF" to chr().
        raise LineError(1, f"invalid YAML: {error}") from error


def _scalar(node: yaml.Node, what: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        found = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise LineError(
            node.start_mark.line + 1, f"{what}: a {found} is not allowed here; allowed: one value"
        )
    return plain_value(node.value) if node.style is None else node.value


def node_value(node: yaml.Node, key: str, mapping_allowed: bool = True) -> Any:
    """A scalar, a list of scalars, or (`mapping_allowed`) a mapping of either. Raises LineError.

    No deeper, so that neither an alias of itself nor aliases of aliases can blow up.
    """
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(item, f"{key}: inside a list") for item in node.value]
    if isinstance(node, yaml.MappingNode) and mapping_allowed:
        return {
            name: node_value(item, f"{key}: {name}", mapping_allowed=False)
            for name, (_, item) in _unique_keys(node, inside=f"{key}: ").items()
        }
    return _scalar(node, key)


def _unique_keys(node: yaml.MappingNode, inside: str = "") -> Dict[str, Tuple[int, yaml.Node]]:
    """Key -> (line, value node). Raises LineError for a duplicate, `<<`, or what is no string."""
    found: Dict[str, Tuple[int, yaml.Node]] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node, f"{inside}key")
        place = f"{inside}{show(key)}"
        if type(key) is not str or not key:
            raise LineError(line, f"{place}: not allowed as a key; allowed: a name")
        if key == "<<" and key_node.style is None:
            raise LineError(line, f"{place}: merge keys are not allowed; use base: FILE to inherit")
        if key in found:
            raise LineError(
                line,
                f"{place}: {_source(value_node)} is a duplicate; "
                f"the key is already in line {found[key][0]}",
            )
        found[key] = (line, value_node)
    return found


def _source(node: yaml.Node) -> str:
    """What the user wrote for a value, on one line, cut when very long."""
    start, end = node.start_mark, node.end_mark
    return cut(one_line((start.buffer or "")[start.pointer : end.pointer].strip()))


def read_entries(text: str, name: str) -> Dict[str, Entry]:
    """The entries of one YAML text called `name`. Raises UserError."""
    try:
        node = compose(text)
        if node is None:
            raise LineError(1, "the file is empty; expected lines of `key: value`")
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "one value"
            raise LineError(
                node.start_mark.line + 1, f"{kind} at the top level; expected lines of `key: value`"
            )
        return {
            key: Entry(node_value(value_node, show(key)), f"{name}:{line}", _source(value_node))
            for key, (line, value_node) in _unique_keys(node).items()
        }
    except LineError as error:
        raise user_error(f"{name}:{error.line}", error.problem) from error
