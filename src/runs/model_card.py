"""A model card: README.md as the Hugging Face hub and ModelScope read it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

from ..runtime.files import write_whole
from ..runtime.regular_files import RECORD_BYTES, read_text
from ..runtime.text import printable, to_utf8, without_surrogates

_LOGGER = logging.getLogger(__name__)
NAME = "README.md"
_MOST_CLASSES = 50
_CHANNELS = {1: "grey", 3: "RGB", 4: "RGB and opacity"}
# The last line: what was changed by hand since is its author's.
_SEAL = "<!-- written by a program ({digest}); it writes over this file until you change it -->\n"
_SEALED = re.compile(r"<!-- written by a program \(([0-9a-f]{16})\);[^\n]*-->\n\Z")
# What hubs take for an identifier.
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")


# Score -> how a card calls it.
CARD_TITLES = {
    "top1": "Top-1 accuracy (%)",
    "top5": "Top-5 accuracy (%)",
    "map": "mAP (%)",
    "macro_f1": "Macro F1 (%)",
    "micro_f1": "Micro F1 (%)",
    "loss": "Loss",
}


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        weights: name of the file that was scored.
        data: what it was scored on, without the way to it.
        scores: `Top-1 accuracy (%)` -> number; those that are no finite numbers are left out.
        licence: of the weights, where somebody stated it.
        source: name that published weights had.
        facts: what else is known, for a table.
    """

    arch: str
    weights: str
    image_size: int
    data: str
    class_names: Sequence[str]
    scores: Mapping[str, float]
    licence: Optional[str] = None
    source: Optional[str] = None
    facts: Mapping[str, str] = field(default_factory=dict)
    in_chans: int = 3


# Values of `set` that say how images lie there, not which they are.
_ANY_IMAGES = ("ImageNet", "MindRecord", "WebDataset")


def data_name(set_name: str, data_url: str) -> str:
    """`Digits`; of somebody's own images the name of their folder, without the way to it."""
    own = Path(data_url.rstrip("/")).name if set_name in _ANY_IMAGES else ""
    return own or set_name


def model_card(card: Card) -> str:
    """The text of a README.md: YAML front matter, then Markdown."""
    return f"---\n{_front_matter(card)}---\n\n{_body(card)}"


def write_card(folder: Path, card: Card) -> bool:
    """Writes FOLDER/README.md, unless there is one that a person wrote or has changed.

    Returns:
        Whether it was written.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path, body = folder / NAME, to_utf8(model_card(card))
    if os.path.lexists(path) and not _is_untouched(path):
        _LOGGER.info("%s: somebody's own, and left alone", path)
        return False
    write_whole(path, body + _SEAL.format(digest=_digest(body)).encode())
    return True


def _is_untouched(path: Path) -> bool:
    try:
        said = read_text(path, RECORD_BYTES)
    except (OSError, ValueError):
        return False
    seal = _SEALED.search(said)
    return seal is not None and seal[1] == _digest(said[: seal.start()].encode())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def _front_matter(card: Card) -> str:
    licence = card.licence or ""
    is_known = _IDENTIFIER.fullmatch(licence)
    scores = [
        f"        - type: {kind}\n          name: {_quoted(name)}\n          value: {value:.4f}"
        for name, value in _finite(card.scores).items()
        if (kind := _kind_of(name))
    ]
    kinds = list(dict.fromkeys(map(_kind_of, card.scores)))
    metrics = ", ".join(filter(None, kinds)) or "accuracy"
    head = [
        f"license: {licence}" if is_known else "# license: state the terms of these weights here",
        "library_name: mindspore",
        "pipeline_tag: image-classification",
        "tags: [image-classification, mindspore]",
        f"metrics: [{metrics}]",
        "# of ModelScope",
        "frameworks: [mindspore]",
        "tasks: [image-classification]",
        "domain: [cv]",
    ]
    if not scores:
        return "\n".join(head) + "\n"
    name = _quoted(card.data)
    result = [
        "model-index:",
        f"  - name: {_quoted(card.arch)}",
        "    results:",
        "      - task: {type: image-classification, name: Image Classification}",
        f"        dataset: {{type: {name}, name: {name}, split: validation}}",
        "        metrics:",
        *scores,
    ]
    return "\n".join([*head, *result]) + "\n"


def _kind_of(name: str) -> str:
    """What hubs call a score; empty: they have no name for it."""
    known = {"accuracy": "accuracy", "F1": "f1", "mAP": "mean_average_precision"}
    return next((kind for part, kind in known.items() if part in name), "")


def _finite(scores: Mapping[str, float]) -> Dict[str, float]:
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def _quoted(said: str) -> str:
    """A string of YAML, whatever is in it."""
    return json.dumps(printable(without_surrogates(said)), ensure_ascii=False)


def _body(card: Card) -> str:
    facts = {
        "architecture": card.arch,
        "file": card.weights,
        "input": f"{card.image_size} x {card.image_size} pixels, {_CHANNELS[card.in_chans]}",
        "classes": str(len(card.class_names)),
        **({"weights published as": card.source} if card.source else {}),
        **({"licence of the weights": card.licence} if card.licence else {}),
        **card.facts,
    }
    scores = {name: f"{value:.4f}" for name, value in _finite(card.scores).items()}
    shown = [_inline(name) for name in card.class_names[:_MOST_CLASSES]]
    hidden = len(card.class_names) - len(shown)
    parts = [
        f"# {_inline(card.arch)}",
        f"An image classifier with {len(card.class_names)} classes, on MindSpore.",
        _table(("", ""), facts),
        "## Scores",
        f"On the validation images of {_inline(card.data)}:" if scores else "None were measured.",
        *([_table(("", "value"), scores)] if scores else []),
        "## Use",
        "```bash\n"
        f"python predict.py --pretrained {_word(card.weights)} --input IMAGE_OR_FOLDER\n"
        f"python eval.py --pretrained {_word(card.weights)} --data_url DIR\n```",
        "The file says its architecture, its classes and how images become its input.",
        "## Classes",
        ", ".join(shown) + (f" and {hidden} more" if hidden > 0 else ""),
        "## To be added by who publishes it",
        "What the model is for and what not, where the images come from and under which terms, "
        "and whom its mistakes would harm.",
    ]
    return "\n\n".join(parts) + "\n\n"


def _table(head: Sequence[str], rows: Mapping[str, str]) -> str:
    found: List[str] = [f"| {' | '.join(head)} |", "| --- | --- |"]
    found += [f"| {_inline(name)} | {_inline(value)} |" for name, value in rows.items()]
    return "\n".join(found)


def _inline(said: str) -> str:
    """A text within Markdown, where it is neither markup nor HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!&~$])", r"\\\1", printable(said))


def _word(name: str) -> str:
    """A file's name in a command that can be copied."""
    safe = re.fullmatch(r"[\w./-]+", name)
    return name if safe else "FILE"
