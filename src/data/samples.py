"""One sample: read, transform, write into its row of the batch.

Everything here is plain data, so that worker processes can be handed it; and nothing imports the
framework, which they need not load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ..runtime.threads import ThreadPool
from . import sampler
from .augment.parts import Part
from .augment.random_erasing import RandomErasing
from .augment.transforms import DrawnCrop, RandomResizedCrop, ResizeCenterCrop, Transform
from .decode import BadImageError
from .sampler import Key
from .sources import Source

# Readable images are looked for this far behind a damaged one.
_MAX_REPLACEMENTS = 100
# Every so many rows and columns are compared before all are.
_SPARSE = 16


class BadSample(NamedTuple):
    """A sample that was left out or replaced, or one that shows nothing.

    Attributes:
        epoch: counted from 0.
        reason: why it cannot be read, naming the file; the file alone where it is flat.
        is_flat: it can be read, and has one colour only.
    """

    epoch: int
    reason: str
    is_flat: bool = False


class _Crop(NamedTuple):
    """A cropped image, the generator of what is drawn for it next, and whether it shows nothing."""

    pixels: np.ndarray
    rng: np.random.Generator
    is_flat: bool


@dataclass(frozen=True)
class TrainSample:
    """Fills a training batch.

    Attributes:
        source: images.
        transforms: in order.
        erasing: None: off.
        seed: of the run.
        skips_bad: a damaged image is replaced by the next one of the epoch's order that is not;
            otherwise it is an error.
        num_whole: so many images at the start of every batch are not erased.
        balance: as of `order_of_epoch`.
    """

    source: Source
    transforms: List[Transform]
    erasing: Optional[RandomErasing]
    seed: int
    skips_bad: bool
    num_whole: int = 0
    balance: str = "none"
    # The order of the latest epoch, drawn when an image has to be replaced.
    _orders: Dict[int, np.ndarray] = field(default_factory=dict, compare=False)

    def __call__(
        self, key: Key, row: int, image: np.ndarray, label: np.ndarray, boxes: np.ndarray
    ) -> Optional[BadSample]:
        (pixels, rng, flat), index, bad = self._read(key)
        if bad is None and flat:
            bad = BadSample(key.epoch, self.source.file_name(index), is_flat=True)
        for transform in self.transforms[1:]:
            pixels = transform(pixels, rng)
        boxes[:] = 0
        if self.erasing is not None and row >= self.num_whole:
            drawn = self.erasing.draw(rng)
            pixels = self.erasing.write_noise(pixels, drawn, rng)
            boxes[:] = drawn.reshape(-1)
        image[:] = pixels[..., : image.shape[-1]]  # of grey images the first
        label[0] = self.source.labels[index]
        return bad

    def _crop(self, key: Key, index: int) -> _Crop:
        """The image after the first transform, the only one that may not need all of it."""
        rng = sampler.sample_generator(self.seed, key.epoch, index, key.repeat)
        first = self.transforms[0]
        if not isinstance(first, RandomResizedCrop):
            pixels = self.source.read(index)
            return _Crop(first(pixels, rng), rng, is_flat(pixels))
        crop = DrawnCrop(first, rng)
        part = self.source.read_part(index, crop.box_seen)
        return _Crop(crop(part), rng, _is_flat(part, self.source, index))

    def _read(self, key: Key) -> Tuple[_Crop, int, Optional[BadSample]]:
        index = key.sample
        try:
            return self._crop(key, index), index, None
        except BadImageError as error:
            if not self.skips_bad:
                raise on_bad_image(error) from error
            bad = BadSample(key.epoch, str(error))
        order = self._order(key.epoch)
        if self.balance != "none":  # its class keeps its share, where it has another image
            labels = self.source.labels
            same = order[labels[order] == labels[index]]
            order = same if (same != index).any() else order
        places = np.flatnonzero(order == index)
        position = int(places[key.repeat % len(places)])  # each copy has its own
        for step in range(1, min(_MAX_REPLACEMENTS, len(order))):
            other = int(order[(position + step) % len(order)])
            try:
                return self._crop(key, other), other, bad
            except BadImageError:
                # It is counted at its own turn.
                continue
        raise BadImageError(f"{bad.reason}; neither can the images that follow it be read")

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.get(epoch)
        if order is None:
            order = sampler.order_of_epoch(
                len(self.source),
                seed=self.seed,
                epoch=epoch,
                labels=self.source.labels,
                balance=self.balance,
            ).sample
            self._orders.clear()
            self._orders[epoch] = order
        return order


@dataclass(frozen=True)
class EvalSample:
    """Fills an evaluation batch.

    Attributes:
        source: images.
        transform: resize and crop.
        skips_bad: a damaged image is left out (label PADDING); otherwise it is an error.
    """

    source: Source
    transform: ResizeCenterCrop
    skips_bad: bool

    def __call__(
        self, key: Key, row: int, image: np.ndarray, label: np.ndarray, boxes: np.ndarray
    ) -> Optional[BadSample]:
        image[:], label[0] = 0, sampler.PADDING
        if key.sample == sampler.PADDING:
            return None
        try:
            part = self.source.read_part(key.sample, self.transform.box_seen)
        except BadImageError as error:
            if not self.skips_bad:
                raise on_bad_image(error) from error
            return BadSample(0, str(error))
        pixels = self.transform(part)
        image[:], label[0] = pixels[..., : image.shape[-1]], self.source.labels[key.sample]
        if _is_flat(part, self.source, key.sample):
            return BadSample(0, self.source.file_name(key.sample), is_flat=True)
        return None


def _is_flat(part: Part, source: Source, index: int) -> bool:
    """Whether the image has one colour only, of which the part is known."""
    if not is_flat(part.pixels):
        return False
    return part.pixels.shape[:2] == part.size or is_flat(source.read(index))


def is_flat(pixels: np.ndarray) -> bool:
    """Whether an image, (H, W, 3) uint8, has one colour only; a few pixels tell in most cases."""
    first = pixels[0, 0]
    sparse = pixels[::_SPARSE, ::_SPARSE]
    # A row at a time: comparing takes as much memory as the pixels.
    return bool((sparse == first).all() and all((row == first).all() for row in pixels))


def on_bad_image(error: BadImageError) -> BadImageError:
    """The same error with what can be done about it."""
    return BadImageError(f"{error}; replace or delete the file, or set on_bad_image: skip")


def find_bad_images(source: Source, num_workers: int) -> List[str]:
    """Why each image of a source that cannot be read cannot, in order; decodes all of them."""

    def problem(index: int) -> Optional[str]:
        try:
            source.read(index)
        except BadImageError as error:
            return str(error)
        return None

    with ThreadPool(num_workers, "image-worker") as pool:
        problems = pool.map(problem, range(len(source)), source.file_name)
        return [found for found in problems if found]
