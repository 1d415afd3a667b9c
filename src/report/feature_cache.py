"""Features of a data set that were computed before, in the user's cache folder.

A file's name is a digest of all that decides its content: the file of weights, the keys of the
network and of how an image is made, and of every image its name, label, size and time.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from ..args import Config
from ..configs.parser import keys_marked
from ..data.array_images import ArrayImages
from ..data.packed import PackedImages
from ..data.sources import Source
from ..data.tar_shards import TarImages
from ..runtime.caches import cache_folders
from ..runtime.files import file_sha256, write_whole
from ..runtime.zip_files import read_npz
from .transfer import Split

_LOGGER = logging.getLogger(__name__)
_KIND = "features"
_MOST_BYTES = 2**36
# It grows when features are computed otherwise than before.
_VERSION = 2
_PRECISION = ("amp_level", "amp_dtype", "keep_bn_fp32", "device_target")
_KEYS = (*keys_marked(Config, "network"), *keys_marked(Config, "transform"), "ema", *_PRECISION)


def features_key(config: Config, source: Source) -> str:
    """Name of the features of all images of `source`.

    Args:
        config: completed by what the weights say.
    """
    values = config.flat()
    said: Dict[str, Any] = {key: values[key] for key in _KEYS if key != "num_classes"}
    said["weights"] = file_sha256(Path(str(config.model.pretrained)))
    said["data"] = _digest_of(source)
    said["version"] = _VERSION
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of(source: Source) -> str:
    """Of the images: pixels in memory, checksums of packed ones, sizes and times of files."""
    digest = hashlib.sha256(np.ascontiguousarray(source.labels).tobytes())
    if isinstance(source, ArrayImages):
        digest.update(np.ascontiguousarray(source.images).tobytes())
        return digest.hexdigest()
    if isinstance(source, PackedImages):
        digest.update(source.checksums.tobytes())
        return digest.hexdigest()
    if isinstance(source, TarImages):
        digest.update(repr(source.shards).encode())
        digest.update(source.shard_of.tobytes() + source.offsets.tobytes())
        return digest.hexdigest()
    folder = str(getattr(source, "folder", ""))
    for index in range(len(source)):
        digest.update(_line_of(os.path.join(folder, source.file_name(index))))
    return digest.hexdigest()


def _line_of(path: str) -> bytes:
    """A file's name, size and time; of one that is gone the name."""
    try:
        found = os.stat(path)
        said = f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"
    except OSError:
        said = f"{path}\n"
    return said.encode("utf-8", "surrogateescape")


def load_features(key: str) -> Optional[Split]:
    """What was stored; None: nothing, or nothing that can be read."""
    for folder in cache_folders(_KIND):
        path = folder / f"{key}.npz"
        if not path.is_file():
            continue
        try:
            held = read_npz(
                path,
                most_file_bytes=_MOST_BYTES,
                most_array_bytes=path.stat().st_size,
                names=["features", "labels"],
            )
        except (OSError, KeyError, ValueError):
            _LOGGER.warning("%s: cannot be read; computed again", path)
            return None
        if held["features"].ndim == 2 and held["labels"].shape == held["features"].shape[:1]:
            return Split(held["features"], held["labels"])
    return None


def store_features(key: str, split: Split) -> None:
    """Keeps features for the next time, where there is room."""
    sink = io.BytesIO()
    np.savez(sink, features=split.features, labels=split.labels)
    for folder in cache_folders(_KIND):
        try:
            write_whole(folder / f"{key}.npz", sink.getvalue())
        except OSError as error:
            _LOGGER.warning("%s: cannot be written (%s); features are not kept", folder, error)
        return
