"""What a person sees while training runs: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import NamedTuple, Optional

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

_LOGGER = logging.getLogger(__name__)


class Times(NamedTuple):
    """What one interval took."""

    seconds_per_batch: float
    data_wait: float  # share spent waiting for data, [0, 1]


class StepClock:
    """Splits the time since the last reading into waiting for data and everything else."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self.waited = 0.0
        self._batches = 0

    def add_wait(self, seconds: float) -> None:
        self.waited += seconds
        self._batches += 1

    def read(self) -> Times:
        """Times since the last `read` or `restart`, which begins the next interval."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        times = Times(elapsed / max(1, self._batches), self.waited / elapsed)
        self.restart()
        return times


class Pace:
    """Says once, after `steps` steps, how long the run will take."""

    def __init__(self, steps: int = 50) -> None:
        self._wanted = steps
        self._steps = 0
        self._seconds = 0.0
        self._is_first = True

    def add(self, steps: int, seconds_per_step: float, *, left: int) -> Optional[str]:
        """An interval of `steps` steps, after which `left` are left; the message when it is due.

        The first interval does not count: it holds the compilation.
        """
        if self._is_first or self._steps >= self._wanted:
            self._is_first = False
            return None
        self._steps += steps
        self._seconds += steps * seconds_per_step
        if self._steps < self._wanted:
            return None
        seconds = self._seconds / self._steps
        return (
            f"estimate after {self._steps} steps: {seconds:.3g} s each, "
            f"{left * seconds / 3600:.2f} hours for the {left} left, without evaluations"
        )


class LongWait:
    """Tells once, of the first interval of at least `seconds` that waited for half of its time."""

    def __init__(self, share: float = 0.5, seconds: float = 2.0) -> None:
        self._share = share
        self._seconds = seconds
        self._is_first = True
        self._is_told = False

    def add(self, data_wait: float, seconds: float) -> bool:
        """Whether it is that interval; the run's first does not count: there all workers start."""
        is_first, self._is_first = self._is_first, False
        is_long = data_wait >= self._share and seconds >= self._seconds
        if is_first or self._is_told or not is_long:
            return False
        self._is_told = True
        return True


class ProgressDisplay:
    """Shows steps of a run of `total` steps, while entered.

    Args:
        has_bar: a bar where there is a terminal; else lines of the log alone.
    """

    def __init__(self, total: int, *, first_step: int, has_bar: bool = True) -> None:
        self._has_bar = has_bar
        self._total = total
        self._first_step = first_step
        self._bar: Optional[tqdm] = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ProgressDisplay:
        if self._has_bar and sys.stderr.isatty():
            bar = tqdm(total=self._total, initial=self._first_step, unit="step", dynamic_ncols=True)
            self._bar = self._stack.enter_context(bar)
            self._stack.enter_context(logging_redirect_tqdm())  # log lines go above the bar
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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
        _LOGGER.info("%s", text)
