"""Sizes that a recipe leaves open: those of the data, the weights or the architecture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, Sequence

from ..args import AnyConfig, Config, from_yaml_text, replace
from ..configs import parser
from ..data.sources import count_classes
from ..errors import UserError
from ..models.registry import default_image_size
from .checkpoint import read_checkpoint

_LOGGER = logging.getLogger(__name__)

# How an image becomes what the network sees, and what the network is; not how it was trained.
_NETWORK_KEYS = [*parser.keys_marked(Config, "network"), *parser.keys_marked(Config, "transform")]
# Of a folder without splits the images that were set aside, no others, are evaluated.
_EVALUATION_KEYS = [*_NETWORK_KEYS, "val_share"]


def complete_by_data(config: Config) -> Config:
    """`config` with the classes of its data folder where it has 0; and, when it names no
    architecture, with that of its weights and how they see an image.

    Raises:
        UserError: unknown architecture, unreadable weights, no such folder.
    """
    weights = config.model.pretrained
    num_classes = config.model.num_classes or count_classes(config)
    if weights and config.origins["arch"] == parser.DEFAULT:
        meta = read_checkpoint(Path(weights)).meta
        if "arch" not in meta:
            raise UserError(f"pretrained {weights!r}: does not say its architecture; give --arch")
        _LOGGER.info("arch: %s, that of %s", meta["arch"], weights)
        given = config.origins["num_classes"]
        config = complete_by_checkpoint(config, meta, path=weights, keys=_NETWORK_KEYS)
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
    config: AnyConfig, meta: Dict[str, Any], *, path: str, keys: Sequence[str] = _EVALUATION_KEYS
) -> AnyConfig:
    """`config` with what a checkpoint says of its network, where nobody else said something.

    Args:
        meta: the record of the checkpoint.
        path: of the checkpoint, for messages.
        keys: of the recipe it was trained by that hold here too.

    Raises:
        UserError: unknown architecture.
    """
    known: Dict[str, Any] = {}
    if "config" in meta:
        trained = from_yaml_text(meta["config"], path).flat()
        known = {key: trained[key] for key in keys}
    for key, name in (("arch", "arch"), ("num_classes", "num_classes"), ("image_size", "img_size")):
        if meta.get(name) is not None:
            known[key] = meta[name]
    if config.origins["arch"] != parser.DEFAULT and config.model.arch != known.get("arch"):
        # The caller refuses weights of another architecture; nothing else of them counts.
        known = {"num_classes": known.get("num_classes", 0)}
    free = {key for key in known if config.origins[key] == parser.DEFAULT}
    config = replace(config, **{key: known[key] for key in free})
    return complete_sizes(config, num_classes=config.model.num_classes)
