"""The batches that a step takes: the stream that one rank reads, and what of it was unreadable."""

from __future__ import annotations

import functools
import logging
import os
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional

import numpy as np

from ..args import Config
from ..errors import UserError, some_of
from .augment.random_erasing import BOX_COLUMNS
from .rows import Fill, Rows, Shape
from .sampler import Key
from .samples import BadSample
from .sources import Source
from .workers import batches_of

_LOGGER = logging.getLogger(__name__)

# Share of an epoch's images that may be skipped.
_MAX_BAD_SHARE = 0.01
_NAMED_BAD = 20


class Batch(NamedTuple):
    """What one step of one rank reads.

    Attributes:
        image: (B, H, W, 3) uint8, RGB.
        label: (B,) int32; -1 where an evaluation's last batch is filled up, or an image skipped.
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
        images_per_class: by label, all ranks together.
        keys: () -> iterator of the keys of the samples that `batches` yields, in order.
        file_name: how messages name the image of an index; evaluation goes by the indices.
        lost: why worker processes are used no more, with the remedy; None: all is well.
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
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.num_samples = len(source)
        self.num_classes = len(source.class_names)
        self.class_names: List[str] = source.class_names
        images = np.bincount(source.labels, minlength=self.num_classes)
        self.images_per_class: List[int] = images.tolist()
        self.file_name: Callable[[int], str] = source.file_name
        self.lost: Optional[str] = None
        self._batches_per_epoch = batches_per_epoch
        self._first_batch = first_batch
        self._num_workers = config.data.num_parallel_workers
        self._in_processes = config.data.python_multiprocessing
        columns = BOX_COLUMNS * config.data.re_count if has_boxes else 0
        self._shape = Shape(config.data.batch_size, config.model.image_size, columns)
        self.keys = keys
        self._mixes = mixes
        self._fill = fill

    def batches(self) -> Iterator[Batch]:
        """Training: all steps of the run from `start_step` on, in one stream. Else: one pass.

        Raises:
            UserError: an image cannot be read, or with `on_bad_image: skip` too many.
        """
        stream = batches_of(
            self._fill,
            self.keys(),
            self._shape,
            num_workers=clamp_workers(self._num_workers),
            in_processes=self._in_processes,
        )
        bad = BadImages(self._batches_per_epoch * self._shape.batch_size)
        try:
            for number, (rows, mix) in enumerate(zip(stream, self._mixes()), self._first_batch + 1):
                bad.add(rows.bad)
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
    """Counts the images of an epoch that were skipped.

    Args:
        epoch_size: images that this rank sees in an epoch.
    """

    def __init__(self, epoch_size: int) -> None:
        self._epoch_size = epoch_size
        self._found: List[BadSample] = []

    def add(self, samples: Iterable[BadSample]) -> None:
        """Raises UserError when they are more than 1 % of the epoch."""
        self._found += samples
        if len(self._found) > _MAX_BAD_SHARE * self._epoch_size:
            raise UserError(
                f"on_bad_image skip: {len(self._found)} of the {self._epoch_size} images of an "
                f"epoch cannot be read, more than {_MAX_BAD_SHARE:.0%} ({self._named()}); mend the "
                "data"
            )

    def report(self) -> None:
        """Lists them at the end of the epoch."""
        if self._found:
            _LOGGER.warning(
                "epoch %d: %d of %d images could not be read and were skipped: %s",
                self._found[0].epoch + 1,
                len(self._found),
                self._epoch_size,
                self._named(),
            )
        self._found = []

    def _named(self) -> str:
        return some_of([sample.reason for sample in self._found], _NAMED_BAD, "; ")


@functools.cache  # said once
def clamp_workers(num_workers: int) -> int:
    """At most the cores of this process; says so when that is less."""
    # Those this process may use: a launcher gives each of its ranks some.
    num_cores = len(os.sched_getaffinity(0))
    if num_workers <= num_cores:
        return num_workers
    _LOGGER.info("num_parallel_workers %d: using %d, the number of cores", num_workers, num_cores)
    return num_cores
