"""Weights by the name they were published by: fetched and converted once, then a checkpoint."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Optional, Sequence, Tuple

from ..args import AnyConfig, replace
from ..errors import UserError
from ..models.published import HUB_FILES, OWNER, find_published, read_published
from ..runtime.caches import cache_folders
from ..storage.hub import PREFIX, fetch_file
from ..storage.staging import stage_inputs

_LOGGER = logging.getLogger(__name__)

_FILES = (
    *(".ckpt", ".mindir", ".onnx", ".air"),
    *(".safetensors", ".pth", ".pt", ".bin", ".npz", ".zip"),
)


def is_name(text: str) -> bool:
    """Whether it is no file but what somebody published weights by: see `find_published`.

    A file of that name goes before.
    """
    if text.startswith(PREFIX):
        return True
    if text.endswith(_FILES) or Path(text).exists():
        return False
    arch = text.removeprefix(f"{OWNER}/").partition(".")[0]
    return any(row.arch == arch for row in read_published())


def stage_weights(config: AnyConfig, keys: Optional[Sequence[str]] = None) -> AnyConfig:
    """As `stage_inputs`, and a checkpoint in place of a name of weights.

    Raises:
        UserError: as of `stage_inputs` and `local_checkpoint`.
    """
    config = stage_inputs(config, keys)
    given = config.model.pretrained
    if given and is_name(given):
        return replace(config, pretrained=str(local_checkpoint(given)))
    return config


@functools.cache  # asked for by each step of a program
def local_checkpoint(name: str) -> Path:
    """The checkpoint of published weights, from the cache where it is there.

    Args:
        name: as of `find_published`, or `hf-hub:OWNER/NAME` of any other repository that timm
            wrote.

    Raises:
        UserError: no such name; the file cannot be had; weights that are of no network here.
    """
    # MindSpore, now that it is needed.
    from .conversion import Request, convert_file
    from .record import read_record
    from .saved_record import FORMAT
    from .tensor_file import is_whole
    from .weights_origin import CONFIG_FILE

    purpose = f"pretrained {name!r}"
    repository, arch, published = _resolved(name)
    path, digest = fetch_file(repository, HUB_FILES, purpose=purpose)
    if published is None:
        fetch_file(repository, (CONFIG_FILE,), purpose=purpose)  # lies beside the weights
    folder = next(cache_folders("weights"), None)
    if folder is None:
        raise UserError(
            f"{purpose}: no folder for the converted weights can be written; set XDG_CACHE_HOME"
        )
    target = folder / f"{re.sub('[^0-9A-Za-z._-]', '_', repository)}-{digest[:16]}-{FORMAT}.ckpt"
    if not is_whole(target):
        conversion = convert_file(Request(path, arch, published, repository=repository))
        try:
            conversion.save(target)
        except OSError as error:
            raise UserError(f"{purpose}: {target} cannot be written ({error.strerror})") from error
    record = read_record(target)
    licence = (record and record.licence) or "not said; ask its owner"
    _LOGGER.info("%s: %s, licence %s", purpose, target, licence)
    return target


def _resolved(name: str) -> Tuple[str, Optional[str], Optional[str]]:
    """Repository, architecture and the name in the table; both None: the repository says them."""
    plain = name.removeprefix(PREFIX)
    if name.startswith(PREFIX) and not plain.startswith(f"{OWNER}/"):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", plain):
            raise UserError(f"pretrained {name!r}: expected {PREFIX}OWNER/NAME")
        return plain, None, None
    row = find_published(name)
    return row.hub_name, row.arch, row.id
