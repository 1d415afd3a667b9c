"""Learning rate of every step of a run, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Optional

import numpy as np

from ..args import OptimConfig
from ..run_length import schedule_epochs


@dataclass(frozen=True)
class Clock:
    """Time as a schedule sees it, in epochs (`lr_per_epoch`) or in steps.

    `now` is (S,) float64: the time at each step since the schedule began, >= 0. The warmup has
    already been taken off where it comes before the schedule.
    """

    now: np.ndarray
    epoch: int
    # Of the whole schedule, all cycles, without warmup prefix and cooldown.
    length: int


def cosine_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """Half a cosine from `peak` to min_lr, per cycle (Loshchilov and Hutter 2017, equation 5)."""
    return _cycled(clock, peak, optim, lambda done: 0.5 * (1.0 + np.cos(np.pi * done)))


def linear_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """A straight line from `peak` to min_lr, per cycle."""
    return _cycled(clock, peak, optim, lambda done: 1.0 - done)


def _cycled(
    clock: Clock, peak: float, optim: OptimConfig, shape: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """`shape` takes the part of a cycle that is done, in [0, 1), to the height above min_lr."""
    cycle_length = max(1, clock.length) / optim.lr_cycles
    cycle = clock.now // cycle_length
    top = peak * optim.lr_cycle_decay**cycle
    done = (clock.now - cycle * cycle_length) / cycle_length
    rate = optim.min_lr + (top - optim.min_lr) * shape(done)
    return np.where(clock.now < clock.length, rate, optim.min_lr)


def step_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """Times decay_rate every decay_epochs."""
    return peak * optim.decay_rate ** (clock.now // (optim.decay_epochs * clock.epoch))


def multistep_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """Times decay_rate at every milestone.

    Epoch m, from 0, is the first with the lower rate, as in torch; in timm it is m - 1.
    """
    milestones = np.asarray(optim.milestones) * clock.epoch
    return peak * optim.decay_rate ** np.searchsorted(milestones, clock.now, side="right")


def exponential_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """Times decay_rate within decay_epochs, evenly."""
    return peak * optim.decay_rate ** (clock.now / (optim.decay_epochs * clock.epoch))


def constant_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """`peak` throughout."""
    return np.full(clock.now.shape, peak)


def one_cycle_lr(clock: Clock, peak: float, optim: OptimConfig) -> np.ndarray:
    """ConvMixer's: 0, `peak` after 2/5 of the epochs, peak / 20 after 4/5, 0 at the end.

    Taken at the end of each step, as the authors' code does, so that the first one has an effect.
    They round 2/5 and 4/5 of the epochs down; for multiples of 5 that makes no difference.
    """
    knots = [0.0, 2 * clock.length / 5, 4 * clock.length / 5, clock.length]
    return np.interp(clock.now + 1.0, knots, [0.0, peak, peak / 20.0, 0.0])


_SCHEDULES: Dict[str, Callable[[Clock, float, OptimConfig], np.ndarray]] = {
    "cosine_lr": cosine_lr,
    "linear_lr": linear_lr,
    "step_lr": step_lr,
    "multistep_lr": multistep_lr,
    "exponential_lr": exponential_lr,
    "constant_lr": constant_lr,
    "one_cycle_lr": one_cycle_lr,
}


def peak_lr(optim: OptimConfig, global_batch: Optional[int]) -> float:
    """base_lr, times global_batch / lr_base_batch where the recipe asks for it.

    Raises:
        ValueError: the recipe asks for it and `global_batch` is None.
    """
    if optim.lr_base_batch is None:
        return optim.base_lr
    if global_batch is None:
        raise ValueError(
            f"global_batch None: lr_base_batch {optim.lr_base_batch} needs it; pass batch_size "
            "times the number of devices"
        )
    return optim.base_lr * global_batch / optim.lr_base_batch


def create_lr_schedule(
    optim: OptimConfig, *, epochs: int, steps_per_epoch: int, global_batch: Optional[int] = None
) -> np.ndarray:
    """Learning rate of every step of a run.

    In warmup mode replace the schedule runs from the start and the warmup hides its head (timm's
    default); in mode prefix it starts after the warmup; in mode shift it does so too, and is
    shorter by the warmup (the model zoo's scripts).

    Args:
        epochs: of each cycle.
        global_batch: images per step over all devices; needed with lr_base_batch.

    Returns:
        (schedule_epochs * steps_per_epoch,) float64.

    Raises:
        ValueError: as `peak_lr`.
    """
    peak = peak_lr(optim, global_batch)
    steps = np.arange(schedule_epochs(optim, epochs) * steps_per_epoch)
    now = (steps // steps_per_epoch if optim.lr_per_epoch else steps).astype(np.float64)
    epoch = 1 if optim.lr_per_epoch else steps_per_epoch
    warmup = optim.warmup_length * epoch
    clock = Clock(
        now if optim.warmup_mode == "replace" else np.maximum(now - warmup, 0.0),
        epoch,
        epochs * optim.lr_cycles * epoch - (warmup if optim.warmup_mode == "shift" else 0),
    )
    rate = _SCHEDULES[optim.lr_scheduler](clock, peak, optim)
    warmup_rate = optim.warmup_lr + now * (peak - optim.warmup_lr) / max(1, warmup)
    return np.where(now < warmup, warmup_rate, rate)
