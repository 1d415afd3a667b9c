"""What classes are called: from a file, from the weights, or ImageNet's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List, Optional

from ..data.imagenet_names import imagenet_names
from ..errors import UserError
from ..runtime.json_files import parse_json
from ..runtime.regular_files import NAMES_BYTES, read_text
from ..runtime.text import printable

_WITH_SYNSET = re.compile(r"n[0-9]{8}\s+(.+)")
_SHOWN = 40
# What a checkpoint records of a class.
_LONGEST = 1024


def read_labels(path: Path, key: str = "labels") -> List[str]:
    """Names from a text file, one a line in label order, or JSON: a list, or number -> name.

    Args:
        key: what named the file, for messages.

    Raises:
        UserError: no such file, or another content.
    """
    try:
        text = read_text(path, NAMES_BYTES)
        return parse_names(text, is_json=path.suffix == ".json")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{key} {str(path)!r}: {reason}; expected a text file with one name a line, or JSON "
            "with a list of names or numbers from 0 -> names"
        ) from error


def parse_names(text: str, *, is_json: bool) -> List[str]:
    """Names in label order, without blanks around them. One may stand for several classes, as two
    of ImageNet's are cranes. Where a synset stands before each, `n01440764 tench`, it is left out.

    Raises:
        ValueError: a reason on one line.
    """
    names = _listed(parse_json(text)) if is_json else text.rstrip().split("\n")
    found = [name.strip() if isinstance(name, str) else "" for name in names]
    for number, (name, given) in enumerate(zip(found, names)):
        if not 0 < len(name) <= _LONGEST or printable(name) != name:
            raise ValueError(f"class {number} is called {str(given)[:_SHOWN]!r}, which is no name")
    with_synsets = [_WITH_SYNSET.fullmatch(name) for name in found]
    return [match[1] for match in with_synsets if match] if all(with_synsets) else found


def _listed(content: Any) -> List[Any]:
    if isinstance(content, dict) and set(content) == set(map(str, range(len(content)))):
        return [content[str(index)] for index in range(len(content))]
    if not isinstance(content, list):
        raise ValueError("neither a list nor numbers from 0 -> names")
    return content


def class_names(
    num_classes: int, *, labels: Optional[Path] = None, of_weights: Optional[List[str]] = None
) -> List[str]:
    """A name for every class: of the file `labels`, else of the weights, else ImageNet's, else the
    class's number. WordNet ids, which ImageNet's folders are called, become words.

    Raises:
        UserError: as of `read_labels`, or another number of names than of classes.
    """
    if labels is not None:
        names = read_labels(labels)
        if len(names) != num_classes:
            raise UserError(
                f"labels {str(labels)!r}: {len(names)} names, but the network has {num_classes} "
                "classes; give a file with one name for each"
            )
        return names
    known = imagenet_names()
    if of_weights is not None and len(of_weights) == num_classes:
        return [known.get(name, name) for name in of_weights]
    if num_classes == len(known):
        return list(known.values())
    return [str(index) for index in range(num_classes)]
