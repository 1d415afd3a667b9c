"""What a person sees while training runs: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import logging
import sys
import time
from typing import NamedTuple, Optional

from tqdm import tqdm

_LOGGER = logging.getLogger(__name__)


class StepTimes(NamedTuple):
    """What one interval took."""

    seconds_per_step: float
    data_wait: float  # share spent waiting for data, [0, 1]


class StepClock:
    """Splits the time since the last reading into waiting for data and everything else."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def add_wait(self, seconds: float) -> None:
        self._waited += seconds
        self._steps += 1

    def read(self) -> StepTimes:
        """Times since the last `read` or `restart`, which begins the next interval."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        times = StepTimes(elapsed / max(1, self._steps), self._waited / elapsed)
        self.restart()
        return times


class ProgressDisplay:
    """Shows steps of a run of `total` steps; `shown` is what the latest interval measured."""

    def __init__(self, total: int, *, first_step: int) -> None:
        self._total = total
        self._bar: Optional[tqdm] = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=first_step, unit="step", dynamic_ncols=True)

    def step(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def interval(self, step: int, epoch: float, shown: str, seconds_per_step: float) -> None:
        """Reports after `step` steps; `seconds_per_step` gives the time that is left."""
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
            return
        left = tqdm.format_interval((self._total - step) * seconds_per_step)
        width = len(str(self._total))
        _LOGGER.info(
            "step %*d/%d  epoch %.2f  %s  left %s", width, step, self._total, epoch, shown, left
        )

    def message(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            _LOGGER.info("%s", text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
