"""The batches that a step takes: the stream that one rank reads, and what of it was unreadable."""

from __future__ import annotations

import functools
import logging
import math
import os
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from ..args import Config, DataConfig
from ..errors import UserError, some_of
from ..runtime.threads import GIVE_UP_S
from .augment.random_erasing import BOX_COLUMNS
from .class_subset import SubsetImages
from .image_sums import ImageSums
from .rows import Fill, Rows, Shape
from .sampler import Key
from .samples import BadSample, find_bad_images
from .slow_images import SlowImages
from .sources import Source
from .workers import batches_of, check_room_for_batches

_LOGGER = logging.getLogger(__name__)

_NAMED_BAD = 20
# Seconds that a stop waits for an image with several ranks: without it their step does not end, and
# nothing can be saved but what is.
_PATIENCE_OF_RANKS_S = 10.0


class Batch(NamedTuple):
    """What one step of one rank reads.

    Attributes:
        image: (B, H, W, C) uint8: grey, RGB, or RGB and opacity.
        label: (B,) int32; where images have several labels (B, K), 1 for each label, else 0; -1
            where an evaluation's last batch is filled up, or an image skipped.
        mix: (B, 5) float32, see `draw_mix`; with random erasing (B, 5 + R * 7), the R boxes of each
            image, see `RandomErasing.draw`; None in evaluation.
    """

    image: np.ndarray
    label: np.ndarray
    mix: Optional[np.ndarray] = None


class ImageDataset:
    """One rank's batches.

    Attributes:
        steps_per_epoch: steps in one pass, equal on all ranks; `accumulation_step` batches each in
            training, one in evaluation.
        num_samples: images of the split, all ranks together.
        num_classes: classes of the split.
        class_names: the position is the label.
        is_multi_label: images have any number of labels.
        images_per_class: by label, all ranks together.
        scored: labels of the subset of the network's classes that the images are of; None: they
            are of all.
        keys: () -> iterator of the keys of the samples that `batches` yields, in order.
        slow_images: those that took longest since it was told to forget.
        file_name: how messages name the image of an index; evaluation goes by the indices.
        lost: why worker processes are used no more, with the remedy; None: all is well.
        bad_images: what of the epoch could not be read, or shows nothing.
        image_sums: of all images that `batches` has yielded.
        first_position: in the run, over all ranks, of the first image of rank 0's `keys`.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        *,
        steps_per_epoch: int,
        batches_per_epoch: int,
        first_batch: int,
        keys: Callable[[], Iterator[Key]],
        mixes: Callable[[], Iterable[Optional[np.ndarray]]],
        fill: Fill,
        has_boxes: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.num_samples = len(source)
        self.num_classes = len(source.class_names)
        self.class_names: List[str] = source.class_names
        self.is_multi_label = source.labels.ndim == 2
        self.images_per_class: List[int] = images_per_class(source).tolist()
        self.scored = source.scored if isinstance(source, SubsetImages) else None
        self.file_name: Callable[[int], str] = source.file_name
        self.slow_images = SlowImages(source.file_name)
        self.lost: Optional[str] = None
        self.bad_images = BadImages(source, config.data, batches_per_epoch * config.data.batch_size)
        self.image_sums = ImageSums(config.data.batch_size, rank, world_size)
        self._batches_per_epoch = batches_per_epoch
        self._first_batch = first_batch
        self.first_position = first_batch * config.data.batch_size * world_size
        self._num_workers = config.data.num_parallel_workers
        self._in_processes = config.data.python_multiprocessing
        self._patience_s = GIVE_UP_S if world_size == 1 else _PATIENCE_OF_RANKS_S
        columns = BOX_COLUMNS * config.data.re_count if has_boxes else 0
        model = config.model
        labels = self.num_classes if self.is_multi_label else 0
        size = (config.data.batch_size, model.image_size)
        self._shape = Shape(*size, columns, model.in_chans, labels)
        check_room_for_batches(self._shape, config)
        self.keys = keys
        self._mixes = mixes
        self._fill = fill

    def batches(self) -> Iterator[Batch]:
        """Training: all steps of the run from `start_step` on, in one stream. Else: one pass.

        Raises:
            UserError: an image cannot be read, or with `on_bad_image: skip` too many.
            StoppedReading: a run that is asked to end waits for one that does not come.
        """
        stream = batches_of(
            self._fill,
            self.keys(),
            self._shape,
            num_workers=clamp_workers(self._num_workers),
            in_processes=self._in_processes,
            file_name=self.file_name,
            patience_s=self._patience_s,
        )
        bad = self.bad_images
        bad.clear()
        try:
            for number, (rows, mix) in enumerate(zip(stream, self._mixes()), self._first_batch + 1):
                bad.add(rows.bad)
                self.image_sums.add(number - 1, rows.digests)
                self.slow_images.add(rows.slowest, rows.pixels // len(rows.label))
                self.lost = self.lost or rows.lost
                if number % self._batches_per_epoch == 0:
                    bad.report()
                yield self._batch(rows, mix)
        finally:
            stream.close()  # type: ignore[attr-defined]

    def _batch(self, rows: Rows, mix: Optional[np.ndarray]) -> Batch:
        if mix is None or rows.boxes.shape[1] == 0:
            return Batch(rows.image, rows.label, mix)
        return Batch(rows.image, rows.label, np.concatenate([mix, rows.boxes], axis=1))


def images_per_class(source: Source) -> np.ndarray:
    """(K,) int64, by label."""
    if source.labels.ndim == 2:
        return source.labels.sum(axis=0, dtype=np.int64)
    return np.bincount(source.labels, minlength=len(source.class_names))


def first_batch(dataset: ImageDataset) -> Batch:
    """The first of what is left of it; its workers end.

    Raises:
        UserError: nothing is left, or an image cannot be read.
    """
    batches = dataset.batches()
    try:
        for batch in batches:
            return batch
    finally:
        batches.close()  # type: ignore[attr-defined]
    raise UserError("epochs: no step is left of the run, so there is no batch; give more --epochs")


class BadImages:
    """Counts the images of an epoch that were skipped, and those that show nothing.

    Args:
        source: of the images.
        config: section data.
        epoch_size: images that this rank sees in an epoch.

    Attributes:
        flat: images of one colour since the last report.
    """

    def __init__(self, source: Source, config: DataConfig, epoch_size: int) -> None:
        self._source = source
        self._config = config
        self._epoch_size = epoch_size
        self._found: List[BadSample] = []
        self.flat: List[BadSample] = []
        self._is_flat_told = False

    def add(self, samples: Iterable[BadSample]) -> None:
        """Takes what was found in a batch.

        Raises:
            UserError: more than `max_bad_share` of the epoch cannot be read.
        """
        for sample in samples:
            (self.flat if sample.is_flat else self._found).append(sample)
        if self._num_files() > self._config.max_bad_share * self._epoch_size:
            raise self._too_many()

    def clear(self) -> None:
        """Forgets what has not been reported."""
        self._found, self.flat = [], []

    def report(self) -> None:
        """Lists them at the end of the epoch; flat ones, which stay the same, once."""
        if self._found:
            _LOGGER.warning(
                "epoch %d: %d of %d images could not be read and were skipped: %s",
                self._found[0].epoch + 1,
                len(self._found),
                self._epoch_size,
                some_of(list(dict.fromkeys(s.reason for s in self._found)), _NAMED_BAD, "; "),
            )
        if self.flat and not self._is_flat_told:
            _LOGGER.warning("%s", describe_flat(self.flat, self._epoch_size))
            self._is_flat_told = True
        self.clear()

    def _num_files(self) -> int:
        """That were skipped; one that `balanced_sampling` takes again and again counts once."""
        if self._config.balanced_sampling == "none":
            return len(self._found)
        return len({sample.reason for sample in self._found})

    def _too_many(self) -> UserError:
        """The error; all images that cannot be read are looked for, so that one pass names them."""
        total = len(self._source)
        _LOGGER.warning("too many images cannot be read; looking for all of them in %d", total)
        workers = clamp_workers(self._config.num_parallel_workers)
        reasons = find_bad_images(self._source, workers)
        for reason in reasons:
            _LOGGER.warning("cannot be read: %s", reason)
        share = self._config.max_bad_share
        # Of a split that several ranks share, one may have met them all.
        found = max(len(reasons) / total, self._num_files() / self._epoch_size)
        enough = min(math.ceil(found * 1000 + 1) / 1000, 1.0)
        return UserError(
            f"on_bad_image skip: {len(reasons)} of {total} images cannot be read, all listed "
            f"above, more than max_bad_share {share:g} allows; replace or delete the files, or set "
            f"max_bad_share: {enough:g}"
        )


def describe_flat(flat: Sequence[BadSample], total: int) -> str:
    """One line about images of one colour."""
    names = some_of([sample.reason for sample in flat])
    return (
        f"{len(flat)} of {total} images have one colour only ({names}); if they are transparent "
        "ones, set background to another colour than theirs"
    )


@functools.cache  # said once
def clamp_workers(num_workers: int) -> int:
    """At most the cores of this process; says so when that is less."""
    # Those this process may use: a launcher gives each of its ranks some.
    num_cores = len(os.sched_getaffinity(0))
    if num_workers <= num_cores:
        return num_workers
    _LOGGER.info("num_parallel_workers %d: using %d, the number of cores", num_workers, num_cores)
    return num_cores
