"""Which images took longest, and what makes a run wait less for its images."""

from __future__ import annotations

import math
import os
import shlex
from typing import Callable, Dict, List, NamedTuple

from ..args import Config, DataConfig
from ..configs.parser import DEFAULT
from .pixel_budget import FREE_PIXELS, JPEG_PIXELS, most_at_once
from .sampler import PADDING

_NAMED = 3
# Of one process; more of them wait for the interpreter's lock (docs/scaling.md).
MOST_THREADS = 8


class Slowest(NamedTuple):
    """The sample of some that took a worker longest, from bytes to pixels."""

    seconds: float = 0.0
    sample: int = PADDING


class SlowImages:
    """The images that took longest, one of each batch at most, and how large all of them are.

    Args:
        file_name: how messages name the image of an index.
    """

    def __init__(self, file_name: Callable[[int], str]) -> None:
        self._file_name = file_name
        self.forget()

    def add(self, slowest: Slowest, pixels: int) -> None:
        """Takes the slowest image of a batch, and how many pixels its images have on average."""
        known = self._seconds.get(slowest.sample, 0.0)
        self._seconds[slowest.sample] = max(known, slowest.seconds)
        if len(self._seconds) > _NAMED:
            del self._seconds[min(self._seconds, key=self._seconds.__getitem__)]
        self._pixels.append(pixels)

    def forget(self) -> None:
        """Begins anew; the first images of each worker hold the loading of the compiled loops."""
        self._seconds: Dict[int, float] = {}
        self._pixels: List[int] = []

    def advice(self, config: Config, data_wait: float) -> str:
        """One line on a run that spends the share `data_wait` of its time waiting for images."""
        slowest = sorted(self._seconds, key=self._seconds.__getitem__, reverse=True)
        named = [f"{self._file_name(i)} ({self._seconds[i]:.2g} s)" for i in slowest]
        pixels = sum(self._pixels) // max(len(self._pixels), 1)
        # Decoding and shrinking these take nearly all of their time: 75 of 76 ms of 12 megapixels.
        are_large = pixels > FREE_PIXELS
        size = f", of {pixels / 1e6:.3g} megapixels on average" if are_large else ""
        cures = [_more_workers(config.data, pixels), _packing(config)]
        if are_large:
            cures.reverse()
        else:
            cures.append("fewer augmentations")
        return (
            f"data wait {data_wait:.0%}: steps wait for their images{size}; slowest to read and "
            f"augment: {', '.join(named)}; what helps: {'; '.join(filter(None, cures))} "
            "(docs/data.md)"
        )


def _more_workers(data: DataConfig, pixels: int) -> str:
    """As many as there are cores, or as decode JPEGs of so many pixels beside each other."""
    useful = min(len(os.sched_getaffinity(0)), most_at_once(pixels // JPEG_PIXELS))
    if useful > MOST_THREADS and not data.python_multiprocessing:
        return f"--python_multiprocessing --num_parallel_workers {useful}"
    return f"--num_parallel_workers {useful}" if data.num_parallel_workers < useful else ""


def _packing(config: Config) -> str:
    """The command that makes smaller images of a folder's, which are read as the recipe has it."""
    data = config.data
    if data.set != "ImageNet":
        return ""
    short_side = max(256, math.ceil(config.model.image_size / data.crop_pct))
    words = ["--data_url", data.data_url, "--output", "FOLDER", "--short_side", f"{short_side}"]
    words += ["--exif_orientation"] if data.exif_orientation else []
    colour = ",".join(map(str, data.background)) if data.background else "null"
    for name, value in {
        "train_list": data.train_list,
        "val_list": data.val_list,
        "val_share": data.val_share,
        "class_order": data.class_order,
        "background": colour,
        "on_bad_image": data.on_bad_image,
        "max_image_pixels": data.max_image_pixels,
    }.items():
        if config.origins[name] != DEFAULT:
            words += [f"--{name}", f"{value}"]
    command = f"python scripts/pack_dataset.py {shlex.join(words)}"
    return f"{command}, then --set MindRecord --data_url FOLDER"
