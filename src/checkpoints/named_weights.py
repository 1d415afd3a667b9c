"""Weights by the name they were published by: fetched and converted once, then a checkpoint."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

from ..args import AnyConfig, replace
from ..errors import UserError
from ..models.published import HUB_FILES, OWNER, PublishedWeights, find_published, read_published
from ..runtime.caches import cache_folders
from ..runtime.files import file_sha256
from ..runtime.regular_files import WEIGHTS_BYTES
from ..storage.hub import PREFIX, Unreachable, fetch_file
from ..storage.moxing_adapter import local_copy, stage
from ..storage.staging import stage_inputs

_LOGGER = logging.getLogger(__name__)

_FILES = (
    *(".ckpt", ".mindir", ".onnx", ".air"),
    *(".safetensors", ".pth", ".pt", ".bin", ".npz", ".zip"),
)
# As torch.hub names files.
_DIGITS = re.compile(r"-([0-9a-f]{8})\.\w+$")


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
    found: Dict[str, str] = {}
    for key in ("pretrained", "teacher_pretrained"):
        given = config.flat().get(key)
        if given and is_name(given):
            found[key] = str(local_checkpoint(given))
    return replace(config, **found) if found else config


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
    repository, row = _resolved(name)
    folder = next(cache_folders("weights"), None)
    if folder is None:
        raise UserError(
            f"{purpose}: no folder for the converted weights can be written; set XDG_CACHE_HOME"
        )
    path, digest = _fetch(repository, row.url if row else None, folder, purpose=purpose)
    if row is None:
        fetch_file(repository, (CONFIG_FILE,), purpose=purpose)  # lies beside the weights
    target = folder / f"{re.sub('[^0-9A-Za-z._-]', '_', repository)}-{digest[:16]}-{FORMAT}.ckpt"
    if not is_whole(target):
        arch, published = (row.arch, row.id) if row else (None, None)
        conversion = convert_file(Request(path, arch, published, repository=repository))
        try:
            conversion.save(target)
        except OSError as error:
            raise UserError(f"{purpose}: {target} cannot be written ({error.strerror})") from error
    record = read_record(target)
    licence = (record and record.licence) or "not said; ask its owner"
    _LOGGER.info("%s: %s, licence %s", purpose, target, licence)
    return target


def _fetch(repository: str, url: Optional[str], folder: Path, *, purpose: str) -> Tuple[Path, str]:
    """The file of weights and its SHA-256: of the hub, else of `url`, whose copy is in `folder`."""
    if url is None:
        return fetch_file(repository, HUB_FILES, purpose=purpose)
    if local_copy(url, folder).is_file():  # the hub could not be reached before
        return _from_authors(url, folder, purpose=purpose)
    try:
        return fetch_file(repository, HUB_FILES, purpose=purpose)
    except Unreachable as error:
        _LOGGER.info("%s", error)
        _LOGGER.info("taking the authors' file: %s", url)
        return _from_authors(url, folder, purpose=purpose)


def _from_authors(url: str, folder: Path, *, purpose: str) -> Tuple[Path, str]:
    """As `_fetch`. The names of some files end in eight digits of their SHA-256."""
    path = local_copy(url, folder)
    if not path.is_file():
        try:
            stage(url, cache=folder)
        except UserError as error:
            raise UserError(f"{purpose}: nor its authors' file: {error}") from error
    digest = file_sha256(path, WEIGHTS_BYTES)
    said = _DIGITS.search(path.name)
    if said and not digest.startswith(said[1]):
        path.unlink()
        raise UserError(
            f"{purpose}: {url} has the SHA-256 {digest}, and its name says {said[1]}...; it was "
            "deleted; run it again"
        )
    return path, digest


def _resolved(name: str) -> Tuple[str, Optional[PublishedWeights]]:
    """Repository, and the row of the table; None: the repository says the rest."""
    plain = name.removeprefix(PREFIX)
    if name.startswith(PREFIX) and not plain.startswith(f"{OWNER}/"):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", plain):
            raise UserError(f"pretrained {name!r}: expected {PREFIX}OWNER/NAME")
        return plain, None
    row = find_published(name)
    return row.hub_name, row
