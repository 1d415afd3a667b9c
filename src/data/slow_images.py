"""Which images took longest, and what makes a run wait less for its images."""

from __future__ import annotations

import os
from typing import Callable, Dict, NamedTuple

from ..args import Config
from .sampler import PADDING

_NAMED = 3


class Slowest(NamedTuple):
    """The sample of some that took a worker longest, from bytes to pixels."""

    seconds: float = 0.0
    sample: int = PADDING


class SlowImages:
    """The images that took longest, one of each batch at most.

    Args:
        file_name: how messages name the image of an index.
    """

    def __init__(self, file_name: Callable[[int], str]) -> None:
        self._file_name = file_name
        self._seconds: Dict[int, float] = {}

    def add(self, slowest: Slowest) -> None:
        known = self._seconds.get(slowest.sample, 0.0)
        self._seconds[slowest.sample] = max(known, slowest.seconds)
        if len(self._seconds) > _NAMED:
            del self._seconds[min(self._seconds, key=self._seconds.__getitem__)]

    def forget(self) -> None:
        """Begins anew; the first images of each worker hold the loading of the compiled loops."""
        self._seconds.clear()

    def advice(self, config: Config, data_wait: float) -> str:
        """One line on a run that spends the share `data_wait` of its time waiting for images."""
        slowest = sorted(self._seconds, key=self._seconds.__getitem__, reverse=True)
        named = [f"{self._file_name(i)} ({self._seconds[i]:.2g} s)" for i in slowest]
        cures = []
        cores = len(os.sched_getaffinity(0))
        if config.data.num_parallel_workers < cores:
            cures.append(f"--num_parallel_workers {cores}")
        if config.data.set == "ImageNet":
            cures.append(
                f"python scripts/pack_dataset.py --data_url {config.data.data_url} --output FOLDER "
                "--short_side 256, then --set MindRecord --data_url FOLDER"
            )
        cures.append("fewer augmentations")
        return (
            f"data wait {data_wait:.0%}: steps wait for their images; slowest to read and augment: "
            f"{', '.join(named)}; what helps: {'; '.join(cures)} (docs/data.md)"
        )
