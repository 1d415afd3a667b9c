"""Batches from a folder of images: ImageNet, and anything laid out like it."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import mindspore.dataset as ds
import numpy as np

from src.args import Config, DataConfig
from src.data import sampler
from src.data.augment.mixup import Mixing, draw_mix
from src.data.augment.random_erasing import BOX_COLUMNS, RandomErasing
from src.data.augment.transforms import ResizeCenterCrop, create_train_transforms
from src.data.digits import prepare_digits
from src.data.image_folder import ImageFolder, scan_image_folder
from src.errors import UserError
from src.tools.schedulers import schedule_epochs

logger = logging.getLogger(__name__)

# Rows between two stages of the pipeline. MindSpore's default of 16 holds 16 finished batches in
# memory (0.3 GB at 128 x 224 x 224), and more on their way.
_PREFETCH_ROWS = 2

# (epoch, index, repeat), see sampler
Key = np.ndarray
# (H, W, 3) uint8; the label; (R * 7,) float32 of random erasing, see `Batch.mix`
Sample = Tuple[np.ndarray, np.ndarray, np.ndarray]


class Batch(NamedTuple):
    """What one step of one rank reads.

    Attributes:
        image: (B, H, W, 3) uint8, RGB.
        label: (B,) int32; -1 where an evaluation's last batch is filled up.
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
        class_names: sorted; the position is the label.
    """

    def __init__(
        self,
        folder: ImageFolder,
        config: Config,
        *,
        steps_per_epoch: int,
        keys: Callable[[], Iterator[Key]],
        mixes: Callable[[], Iterable[Optional[np.ndarray]]],
        load: Callable[[Key], Sample],
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.num_samples = len(folder)
        self.num_classes = len(folder.class_names)
        self.class_names: List[str] = folder.class_names
        self._batch_size = config.data.batch_size
        self._num_workers = _clamp_workers(config.data.num_parallel_workers)
        self._re_split = config.data.re_split
        self._blank = _blank_sample(config)
        self._keys = keys
        self._mixes = mixes
        self._load = load

    def batches(self) -> Iterator[Batch]:
        """Training: all steps of the run from `start_step` on, in one stream. Else: one pass.

        Raises:
            UserError: an image cannot be read. It may come some batches before the image's turn.
        """
        load = _FirstError(self._load, self._blank)
        rows = _start_pipeline(self._keys, load, self._batch_size, self._num_workers)
        try:
            for (image, label, boxes), mix in zip(rows, self._mixes()):
                if load.error is not None:
                    raise load.error
                yield Batch(image, label, self._join(mix, boxes))
        finally:
            rows.stop()

    def _join(self, mix: Optional[np.ndarray], boxes: np.ndarray) -> Optional[np.ndarray]:
        if mix is None or boxes.shape[1] == 0:
            return mix
        if self._re_split > 1:
            boxes = boxes.copy()
            boxes[: len(boxes) // self._re_split] = 0
        return np.concatenate([mix, boxes], axis=1)


class _FirstError:
    """Keeps the first exception of a function that worker threads call.

    MindSpore turns what a worker raises into the text of a RuntimeError, and prints it besides;
    so the worker returns a blank row that nobody sees, and the consumer raises what is kept here.
    """

    def __init__(self, load: Callable[[Key], Sample], blank: Sample) -> None:
        self.error: Optional[Exception] = None
        self._load = load
        self._blank = blank

    def __call__(self, key: Key) -> Sample:
        if self.error is not None:
            return self._blank
        try:
            return self._load(key)
        except Exception as error:
            self.error = error
            return self._blank


def _blank_sample(config: Config) -> Sample:
    side = config.model.image_size
    columns = BOX_COLUMNS * config.data.re_count if config.data.re_prob > 0 else 0
    return (
        np.zeros((side, side, 3), np.uint8),
        np.array(sampler.PADDING, np.int32),
        np.zeros(columns, np.float32),
    )


def _clamp_workers(num_workers: int) -> int:
    # Those this process may use: a launcher gives each of its ranks some.
    num_cores = len(os.sched_getaffinity(0))
    if num_workers <= num_cores:
        return num_workers
    logger.info("num_parallel_workers %d: using %d, the number of cores", num_workers, num_cores)
    return num_cores


def _start_pipeline(
    keys: Callable[[], Iterator[Key]],
    load: Callable[[Key], Sample],
    batch_size: int,
    num_workers: int,
) -> Any:
    # The workers sit in a map behind a cheap source: a GeneratorDataset that does the work itself
    # gains nothing from a second worker.
    pipeline = ds.GeneratorDataset(
        lambda: ((key,) for key in keys()),
        ["key"],
        shuffle=False,
        num_parallel_workers=1,
        python_multiprocessing=False,
    )
    pipeline = pipeline.map(
        load,
        input_columns=["key"],
        output_columns=["image", "label", "boxes"],
        num_parallel_workers=num_workers,
        python_multiprocessing=False,
    )
    pipeline = pipeline.batch(batch_size, drop_remainder=True, num_parallel_workers=1)
    # There is no setting per dataset; the global one is read when an iterator is created.
    before = ds.config.get_prefetch_size()
    ds.config.set_prefetch_size(_PREFETCH_ROWS)
    try:
        return pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)
    finally:
        ds.config.set_prefetch_size(before)


def create_dataset(
    config: Config, training: bool, rank: int = 0, world_size: int = 1, start_step: int = 0
) -> ImageDataset:
    """Open the split that training or evaluation reads; `set: Digits` writes its folder first.

    Args:
        config: sections model, data, and for training optim and train.
        training: train/, shuffled and augmented; else val/, every image once, in order.
        rank: of this process, in [0, world_size).
        world_size: processes that share the split.
        start_step: training goes on after this many steps of the run; they are not decoded.

    Raises:
        UserError: the folder, its number of classes, its size or a setting does not fit.
    """
    root = Path(config.data.data_url)
    if config.data.set == "Digits":
        prepare_digits(root)
    folder = scan_image_folder(root, "train" if training else "val")
    if len(folder.class_names) != config.model.num_classes:
        raise UserError(
            f"num_classes {config.model.num_classes}: {root} has {len(folder.class_names)} class "
            f"folders; set num_classes: {len(folder.class_names)}"
        )
    if training:
        return _create_train_dataset(config, folder, rank, world_size, start_step)
    return _create_eval_dataset(config, folder, rank, world_size)


def _create_train_dataset(
    config: Config, folder: ImageFolder, rank: int, world_size: int, start_step: int
) -> ImageDataset:
    # A step reads as many batches as accumulate into it, and the images of one that much larger.
    batches_per_step = config.train.accumulation_step
    step_size = config.data.batch_size * batches_per_step
    num_epochs = schedule_epochs(config.optim, config.train.epochs)
    num_steps = sampler.count_train_steps(len(folder), batch_size=step_size, world_size=world_size)

    def keys() -> Iterator[Key]:
        return sampler.train_keys(
            len(folder),
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
        folder,
        config,
        steps_per_epoch=num_steps,
        keys=keys,
        mixes=mixes,
        load=_create_train_loader(config, folder),
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


def _create_train_loader(config: Config, folder: ImageFolder) -> Callable[[Key], Sample]:
    data = config.data
    transforms = create_train_transforms(
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
    erasing = RandomErasing(config.model.image_size, data.re_prob, data.re_mode, data.re_count)
    nothing = _blank_sample(config)[2]

    def load(key: Key) -> Sample:
        epoch, index, repetition = (int(part) for part in key)
        rng = sampler.sample_generator(config.train.seed, epoch, index, repetition)
        image = folder.read(index)
        for transform in transforms:
            image = transform(image, rng)
        pixels, label = np.asarray(image), np.array(folder.labels[index])
        if data.re_prob == 0:
            return pixels, label, nothing
        boxes = erasing.draw(rng)
        return erasing.write_noise(pixels, boxes, rng), label, boxes.reshape(-1)

    return load


def _create_eval_dataset(
    config: Config, folder: ImageFolder, rank: int, world_size: int
) -> ImageDataset:
    batch_size = config.data.batch_size
    return ImageDataset(
        folder,
        config,
        steps_per_epoch=sampler.count_eval_steps(
            len(folder), batch_size=batch_size, world_size=world_size
        ),
        keys=lambda: sampler.eval_keys(
            len(folder), batch_size=batch_size, rank=rank, world_size=world_size
        ),
        mixes=lambda: itertools.repeat(None),
        load=_create_eval_loader(config, folder),
    )


def _create_eval_loader(config: Config, folder: ImageFolder) -> Callable[[Key], Sample]:
    data = config.data
    transform = ResizeCenterCrop(
        config.model.image_size, data.crop_pct, data.interpolation, data.crop_mode
    )
    blank = _blank_sample(config)

    def load(key: Key) -> Sample:
        index = int(key[1])
        if index == sampler.PADDING:
            return blank
        return np.asarray(transform(folder.read(index))), np.array(folder.labels[index]), blank[2]

    return load
