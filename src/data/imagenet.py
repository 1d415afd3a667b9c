"""Batches of any source of images: ImageNet, other image folders, CIFAR, packed data sets."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional

import numpy as np

from ..args import Config, DataConfig
from ..errors import UserError
from ..optim.schedulers import schedule_epochs
from . import sampler
from .augment.mixup import Mixing, draw_mix
from .augment.random_erasing import BOX_COLUMNS, RandomErasing
from .augment.transforms import ResizeCenterCrop, Transform, create_train_transforms
from .cifar import NUM_CLASSES, open_cifar
from .decode import Decoder
from .digits import prepare_digits
from .image_folder import list_classes, scan_image_folder
from .packed import open_packed, read_manifest
from .samples import EvalSample, Source, TrainSample
from .workers import BadSample, Fill, Key, Rows, Shape, batches_of

logger = logging.getLogger(__name__)

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
        keys: () -> iterator of the keys of the samples that `batches` yields, in order.
        file_name: how messages name the image of an index; evaluation goes by the indices.
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
        self.file_name: Callable[[int], str] = source.file_name
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
                if number % self._batches_per_epoch == 0:
                    bad.report()
                yield self._batch(rows, mix)
        finally:
            stream.close()  # type: ignore[attr-defined]

    def _batch(self, rows: Rows, mix: Optional[np.ndarray]) -> Batch:
        if mix is None or rows.boxes.shape[1] == 0:
            return Batch(rows.image, rows.label, mix)
        return Batch(rows.image, rows.label, np.concatenate([mix, rows.boxes], axis=1))


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
            logger.warning(
                "epoch %d: %d of %d images could not be read and were skipped: %s",
                self._found[0].epoch + 1,
                len(self._found),
                self._epoch_size,
                self._named(),
            )
        self._found = []

    def _named(self) -> str:
        shown = "; ".join(sample.reason for sample in self._found[:_NAMED_BAD])
        hidden = len(self._found) - _NAMED_BAD
        return f"{shown}; and {hidden} more" if hidden > 0 else shown


@functools.cache  # said once
def clamp_workers(num_workers: int) -> int:
    """At most the cores of this process; says so when that is less."""
    # Those this process may use: a launcher gives each of its ranks some.
    num_cores = len(os.sched_getaffinity(0))
    if num_workers <= num_cores:
        return num_workers
    logger.info("num_parallel_workers %d: using %d, the number of cores", num_workers, num_cores)
    return num_cores


def open_source(config: Config, training: bool) -> Source:
    """The images that `set` and `data_url` name; `set: Digits` writes its folder first.

    Raises:
        UserError: they are not there, damaged, or have another number of classes.
    """
    data = config.data
    root = Path(data.data_url)
    split = "train" if training else "val"
    decoder = Decoder(data.max_image_pixels, data.exif_orientation)
    if data.set == "Digits":
        prepare_digits(root)
    source: Source
    if data.set in ("CIFAR10", "CIFAR100"):
        source = open_cifar(root, data.set, split)
    elif data.set == "MindRecord":
        source = open_packed(root / split, decoder)
    else:
        source = scan_image_folder(root, split, val_share=data.val_share, decoder=decoder)
    if len(source.class_names) != config.model.num_classes:
        raise UserError(
            f"num_classes {config.model.num_classes}: {root} has {len(source.class_names)} "
            f"classes; set num_classes: {len(source.class_names)}"
        )
    return source


def count_classes(config: Config) -> int:
    """Classes of the data that `set` and `data_url` name.

    Raises:
        UserError: no such folder, or no classes in it.
    """
    root, name = Path(config.data.data_url), config.data.set
    if name in NUM_CLASSES:
        return NUM_CLASSES[name]
    if name == "Digits":
        return 10
    if name == "MindRecord":
        return len(read_manifest(root / "train")["class_names"])
    return len(list_classes(root))


def create_dataset(
    config: Config, training: bool, rank: int = 0, world_size: int = 1, start_step: int = 0
) -> ImageDataset:
    """Open the split that training or evaluation reads.

    Args:
        config: sections model, data, and for training optim and train.
        training: shuffled and augmented; else every image once, in order.
        rank: of this process, in [0, world_size).
        world_size: processes that share the split.
        start_step: training goes on after this many steps of the run; they are not decoded.

    Raises:
        UserError: the data, its number of classes, its size or a setting does not fit.
    """
    source = open_source(config, training)
    if training:
        return _create_train_dataset(config, source, rank, world_size, start_step)
    return _create_eval_dataset(config, source, rank, world_size)


def _create_train_dataset(
    config: Config, source: Source, rank: int, world_size: int, start_step: int
) -> ImageDataset:
    # A step reads as many batches as accumulate into it, and the images of one that much larger.
    batches_per_step = config.train.accumulation_step
    step_size = config.data.batch_size * batches_per_step
    num_epochs = schedule_epochs(config.optim, config.train.epochs)
    num_steps = sampler.count_train_steps(len(source), batch_size=step_size, world_size=world_size)

    def keys() -> Iterator[Key]:
        return sampler.train_keys(
            len(source),
            batch_size=step_size,
            seed=config.train.seed,
            first_step=start_step,
            num_epochs=num_epochs,
            rank=rank,
            world_size=world_size,
            repeats=config.data.repeated_aug,
        )

    def mixes() -> Iterator[np.ndarray]:
        for step in range(start_step, num_epochs * num_steps):
            epoch, position = divmod(step, num_steps)
            for batch in range(position * batches_per_step, (position + 1) * batches_per_step):
                # Numbered over all ranks: each rank mixes its own batch in its own way.
                yield _draw_batch_mix(config, epoch, batch * world_size + rank)

    return ImageDataset(
        source,
        config,
        steps_per_epoch=num_steps,
        batches_per_epoch=num_steps * batches_per_step,
        first_batch=start_step * batches_per_step,
        keys=keys,
        mixes=mixes,
        fill=_create_train_sample(config, source),
        has_boxes=config.data.re_prob > 0,
    )


def _draw_batch_mix(config: Config, epoch: int, batch: int) -> np.ndarray:
    data = config.data
    mixing = Mixing(
        mix_up=data.mix_up,
        cutmix=data.cutmix,
        cutmix_minmax=data.cutmix_minmax,
        correct_lam=data.correct_lam,
        mixup_prob=data.mixup_prob,
        switch_prob=data.switch_prob,
        mixup_mode=data.mixup_mode,
    )
    if 0 < data.mixup_off_epoch <= epoch:
        mixing = Mixing()
    rng = sampler.batch_generator(config.train.seed, epoch, batch)
    return draw_mix(mixing, data.batch_size, config.model.image_size, rng=rng)


def _jitters(data: DataConfig) -> bool:
    if not data.color_jitter or data.auto_augment is None:
        return bool(data.color_jitter)
    # timm's rule: the policies change colours themselves; 3-Augment expects the jitter.
    is_on = data.force_color_jitter or "3a" in data.auto_augment
    if not is_on:
        logger.info(
            "color_jitter %s is off beside auto_augment %s; force_color_jitter: True turns it on",
            list(data.color_jitter),
            data.auto_augment,
        )
    return is_on


def create_transforms(config: Config) -> List[Transform]:
    """The recipe's training transforms, in order; random erasing comes after them."""
    data = config.data
    return create_train_transforms(
        config.model.image_size,
        scale=data.scale,
        ratio=data.ratio,
        interpolation=data.interpolation,
        hflip=data.hflip,
        vflip=data.vflip,
        auto_augment=data.auto_augment,
        color_jitter=data.color_jitter if _jitters(data) else (),
        color_jitter_prob=data.color_jitter_prob,
        grayscale_prob=data.grayscale_prob,
        gaussian_blur_prob=data.gaussian_blur_prob,
        mean=data.mean,
    )


def create_erasing(config: Config) -> Optional[RandomErasing]:
    """The recipe's random erasing, if any."""
    data = config.data
    if data.re_prob == 0:
        return None
    return RandomErasing(config.model.image_size, data.re_prob, data.re_mode, data.re_count)


def _create_train_sample(config: Config, source: Source) -> TrainSample:
    splits = config.data.re_split
    return TrainSample(
        source,
        create_transforms(config),
        create_erasing(config),
        seed=config.train.seed,
        skips_bad=config.data.on_bad_image == "skip",
        num_whole=config.data.batch_size // splits if splits > 1 else 0,
    )


def _create_eval_dataset(
    config: Config, source: Source, rank: int, world_size: int
) -> ImageDataset:
    data = config.data
    num_steps = sampler.count_eval_steps(
        len(source), batch_size=data.batch_size, world_size=world_size
    )
    transform = ResizeCenterCrop(
        config.model.image_size, data.crop_pct, data.interpolation, data.crop_mode
    )
    return ImageDataset(
        source,
        config,
        steps_per_epoch=num_steps,
        batches_per_epoch=num_steps,
        first_batch=0,
        keys=lambda: sampler.eval_keys(
            len(source), batch_size=data.batch_size, rank=rank, world_size=world_size
        ),
        mixes=lambda: itertools.repeat(None),
        fill=EvalSample(source, transform, skips_bad=data.on_bad_image == "skip"),
        has_boxes=False,
    )
