"""Images to predict: one file, or all of a folder, prepared by several threads."""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Deque, Iterator, List, NamedTuple, Tuple
from urllib.parse import unquote, urlparse

import numpy as np

from ..args import Config
from ..data.augment.transforms import ResizeCenterCrop
from ..data.decode import BadImageError, Decoder
from ..data.find_images import describe_skipped
from ..data.find_images import find_images as search
from ..data.pixel_budget import PixelsInFlight
from ..data.sources import create_decoder
from ..data.transforms_factory import create_eval_transform
from ..errors import UserError
from ..runtime.memory import check_room, remedies
from ..runtime.regular_files import IMAGE_BYTES, require_regular
from ..runtime.threads import ThreadPool, result_of

_LOGGER = logging.getLogger(__name__)

# Batches that are prepared ahead of the one in use.
_BATCHES_AHEAD = 2


class ImageBatch(NamedTuple):
    """Images as the network sees them, with their files.

    Attributes:
        paths: of the images, (B,).
        image: (B, H, W, C) uint8, of the network's channels.
    """

    paths: List[str]
    image: np.ndarray


def find_images(given: str) -> Tuple[Path, List[str]]:
    """A file, a folder (searched to any depth, hidden entries left out) or a file:// URL.

    What in a folder is no image is said in a line of the log.

    Returns:
        A folder and the names of the images in it, sorted.

    Raises:
        UserError: nothing there, another kind of URL, or a folder without images.
    """
    path = _local_path(given)
    if not path.is_dir():
        _check_image_file(path, given)
        return path.parent, [path.name]
    try:
        found = search(str(path))
    except OSError as error:
        raise UserError(
            f"input {given!r}: cannot be listed ({error.strerror}); let this user read it"
        ) from error
    said = describe_skipped(found.skipped)
    if not found.names:
        raise UserError(f"input {given!r}: no images in it" + (f" ({said})" if said else ""))
    if said:
        _LOGGER.warning("%s: %s", path, said)
    return path, found.names


def _check_image_file(path: Path, given: str) -> None:
    try:
        require_regular(path, IMAGE_BYTES)
    except (OSError, ValueError) as error:  # a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"input {given!r}: {reason}; give an image or a folder") from error


def _local_path(given: str) -> Path:
    url = urlparse(given)
    # One letter is a drive.
    if len(url.scheme) < 2:
        return Path(given)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise UserError(f"input {given!r}: not on this machine; give a path or file:///PATH")
    return Path(unquote(url.path))


class ImageStream:
    """Batches of the evaluation transform's images, in order.

    Attributes:
        unreadable: one message for each image that cannot be read; it is left out.
    """

    def __init__(
        self,
        root: Path,
        names: List[str],
        transform: ResizeCenterCrop,
        *,
        batch_size: int,
        num_workers: int,
        decoder: Decoder,
    ) -> None:
        self.unreadable: List[str] = []
        self._root = root
        self._names = names
        self._decoder = decoder
        self._transform = transform
        self._batch_size = batch_size
        self._num_workers = min(num_workers, os.cpu_count() or 1)

    @classmethod
    def of_config(cls, config: Config, root: Path, names: List[str]) -> ImageStream:
        """With the transform, batch size and threads of a configuration."""
        data = config.data
        batch_size = min(data.batch_size, len(names))
        side = config.model.image_size
        check_room(
            (1 + _BATCHES_AHEAD) * batch_size * side**2 * config.model.in_chans,
            f"{1 + _BATCHES_AHEAD} batches of batch_size {batch_size} and image_size {side}",
            remedies(config),
        )
        workers = data.num_parallel_workers
        return cls(
            root,
            names,
            create_eval_transform(config),
            batch_size=batch_size,
            num_workers=workers,
            decoder=create_decoder(config),
        )

    def __iter__(self) -> Iterator[ImageBatch]:
        images: List[np.ndarray] = []
        paths: List[str] = []
        for path, image in self._decoded():
            paths.append(path)
            images.append(image)
            if len(images) == self._batch_size:
                yield ImageBatch(paths, np.stack(images))
                images, paths = [], []
        if images:
            yield ImageBatch(paths, np.stack(images))

    def _decoded(self) -> Iterator[Tuple[str, np.ndarray]]:
        names = iter(self._names)
        waiting: Deque[Tuple[str, Future]] = deque()
        with ThreadPool(self._num_workers, "image-worker") as pool:
            while True:
                room = self._batch_size * _BATCHES_AHEAD - len(waiting)
                for name in itertools.islice(names, room):
                    path = str(self._root / name)
                    waiting.append((path, pool.submit(self._load, path)))
                if not waiting:
                    return
                path, future = waiting.popleft()
                try:
                    yield path, result_of(future, path.__str__)
                except BadImageError as error:
                    self.unreadable.append(str(error))

    def _load(self, path: str) -> np.ndarray:
        with PixelsInFlight():
            image = self._decoder.read_part(path, self._transform.box_seen)
            return np.asarray(self._transform(image))[..., : self._decoder.channels]
