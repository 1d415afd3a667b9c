"""Sizes that a recipe leaves open: those of the data, the weights or the architecture."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from ..args import PROGRAM, AnyConfig, Config, replace, with_values
from ..configs import parser
from ..data.packed import MANIFEST
from ..data.sources import count_classes
from ..data.tar_shards import holds_shards
from ..errors import UserError
from ..models.registry import default_image_size
from .checkpoint import read_checkpoint
from .saved_record import SavedRecord

_LOGGER = logging.getLogger(__name__)

# How an image becomes what the network sees, and what the network is; not how it was trained.
_NETWORK_KEYS = [*parser.keys_marked(Config, "network"), *parser.keys_marked(Config, "transform")]
# What was validated on, and how it was read: the images that were set aside, no others, of folders
# whose order numbers the classes.
_LISTS = ("train_list", "val_list")
_READING = ("val_share", "class_order", "exif_orientation", "label_separator")
_DATA_KEYS = ["set", "data_url", *_READING, *_LISTS]
# Of these the weights know better than a recipe.
_IMAGE_KEYS = ("image_size", *parser.keys_marked(Config, "transform"))
_EVALUATION_KEYS = [*_NETWORK_KEYS, *_DATA_KEYS]
# Key -> what converted weights, which have no recipe, call it.
_OWN_KEYS = {"arch": "arch", "num_classes": "num_classes", "image_size": "img_size"}


def complete_by_data(config: Config) -> Config:
    """`config` with the classes of its data folder where it has 0; and, when it names no
    architecture, with that of its weights and how they see an image.

    Raises:
        UserError: unknown architecture, unreadable weights, no such folder.
    """
    weights = config.model.pretrained
    num_classes = config.model.num_classes or count_classes(config)
    if weights and config.origins["arch"] == parser.DEFAULT:
        record = read_checkpoint(Path(weights)).record
        if record.arch is None:
            raise UserError(f"pretrained {weights!r}: does not say its architecture; give --arch")
        _LOGGER.info("arch: %s, that of %s", record.arch, weights)
        given = config.origins["num_classes"]
        config = complete_by_checkpoint(config, record, path=weights, keys=_NETWORK_KEYS)
        if given == parser.DEFAULT:
            config = replace(config, num_classes=num_classes)
    return complete_sizes(config, num_classes=num_classes)


def complete_sizes(config: AnyConfig, *, num_classes: int) -> AnyConfig:
    """`config` with the given classes and the architecture's image size where it has 0.

    Args:
        num_classes: of the data.

    Raises:
        UserError: unknown architecture.
    """
    model = config.model
    found: Dict[str, Any] = {}
    if model.num_classes == 0:
        found["num_classes"] = num_classes
    if model.image_size == 0:
        found["image_size"] = default_image_size(model.arch)
    if found.get("num_classes"):
        _LOGGER.info("num_classes: %d", found["num_classes"])
    return replace(config, **found) if found else config


def complete_by_checkpoint(
    config: AnyConfig, record: SavedRecord, *, path: str, keys: Sequence[str] = _EVALUATION_KEYS
) -> AnyConfig:
    """`config` with what a checkpoint says of its network, where nobody else said something.

    How images are made for evaluation it says before a recipe: the scores that were published, or
    that training had, are of such images.

    Args:
        record: of the checkpoint.
        path: of the checkpoint, for messages.
        keys: of the recipe it was trained by that hold here too.

    Raises:
        UserError: unknown architecture.
    """
    known = record.values(path, keys)
    if record.is_converted and record.config is None:
        _say_unknown(path)
    if "class_order" in keys and record.class_order:
        known["class_order"] = record.class_order
    own = {key: getattr(record, name) for key, name in _OWN_KEYS.items()}
    known.update({key: value for key, value in own.items() if value is not None})
    if config.origins["data_url"] != parser.DEFAULT and not _is_set_of(config, known.get("set")):
        known.pop("set", None)
    if not _has_lists_of(config, known):
        known = _without_lists(config, known, path)
    has_lists = any(known.get(key) or getattr(config.data, key) for key in _LISTS)
    if not has_lists and "MindRecord" not in (known.get("set"), config.data.set):
        known.pop("label_separator", None)
    if config.origins["arch"] != parser.DEFAULT and config.model.arch != known.get("arch"):
        # The caller refuses weights of another architecture; nothing else of them counts.
        known = {"num_classes": known.get("num_classes", 0)}
    if keys is _EVALUATION_KEYS:
        free = taken_of(config, known, path)
    else:
        free = {key: value for key, value in known.items() if _is_open(config, key)}
    config = with_values(config, free, origin=path)
    return complete_sizes(config, num_classes=config.model.num_classes)


def _is_open(config: Config, key: str) -> bool:
    return config.origins[key] == parser.DEFAULT


def taken_of(config: AnyConfig, known: Dict[str, Any], path: str) -> Dict[str, Any]:
    """What of the values that a file of weights knows counts in evaluation.

    How images are made counts before a recipe, not before the command line or the program; where
    that differs it is said in a line.
    """
    firm = (parser.COMMAND_LINE, PROGRAM)
    taken = {
        key: value
        for key, value in known.items()
        if _is_open(config, key) or (key in _IMAGE_KEYS and config.origins[key] not in firm)
    }
    _say_images(config, taken, path)
    return taken


@functools.cache  # said once
def _say_unknown(path: str) -> None:
    _LOGGER.warning(
        "%s: does not say how its images are made; those of the recipe or the defaults are used; "
        "convert it again (scripts/convert_weights.py), which records that",
        path,
    )


def _say_images(config: AnyConfig, free: Dict[str, Any], path: str) -> None:
    """What images of these weights are like, where a recipe or the defaults have it otherwise."""
    here = config.flat()
    differing = [k for k in _IMAGE_KEYS if k in free and here[k] not in (0, free[k])]
    own = [key for key in differing if _is_open(config, key)]
    if own:
        _LOGGER.info("images as %s has them: %s", path, _shown(free, own))
    said = [key for key in differing if key not in own]
    if said:
        _LOGGER.warning(
            "%s: %s; %s has %s, which is used; the command line overrules",
            config.origins[said[0]],
            _shown(here, said),
            path,
            _shown(free, said),
        )


def _shown(values: Dict[str, Any], keys: Sequence[str]) -> str:
    shown = (list(values[key]) if isinstance(values[key], tuple) else values[key] for key in keys)
    return ", ".join(f"{key} {value}" for key, value in zip(keys, shown))


def _has_lists_of(config: Config, known: Dict[str, Any]) -> bool:
    """Whether what is evaluated has the lists that was trained by: the same folder, or a copy."""
    if config.data.set != known.get("set") and config.origins["set"] != parser.DEFAULT:
        return False
    if any(not _is_open(config, key) for key in _LISTS):
        return False
    root, lists = Path(config.data.data_url), [known[key] for key in _LISTS if known.get(key)]
    is_given = not _is_open(config, "data_url")
    return not is_given or all((root / n).is_file() or Path(n).is_file() for n in lists)


def _without_lists(config: Config, known: Dict[str, Any], path: str) -> Dict[str, Any]:
    gone = [*_LISTS]
    left_out = [key for key in _LISTS if known.get(key)]
    if left_out and all(_is_open(config, key) for key in _LISTS):
        _LOGGER.warning(
            "%s: the %s of its training is not in data_url %r, and not used",
            path,
            " and ".join(left_out),
            config.data.data_url,
        )
        gone.append("val_share")  # of folders another share is drawn, with images of training
    return {key: value for key, value in known.items() if key not in gone}


def _is_set_of(config: Config, name: Optional[str]) -> bool:
    """Whether the folder that somebody gave may be of the kind that was trained on.

    Images are packed to train faster, and the digits written where they are named: both may be
    evaluated as a folder of images.
    """
    root = Path(config.data.data_url)
    if name == "MindRecord":
        return (root / "val" / MANIFEST).is_file()
    if name == "WebDataset":
        return holds_shards(root)
    return name != "Digits" or not root.exists()
