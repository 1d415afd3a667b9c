"""How long a training run is: steps of an epoch, epochs of the schedule, steps in all."""

from __future__ import annotations

from typing import NamedTuple

from .args import Config, OptimConfig
from .errors import UserError

# timm's sampler of repeated augmentation counts images in groups of so many.
_REPEATED_ROUND = 256
# The learning rates of all steps are in memory. The longest of our recipes has 2 million.
_MOST_STEPS = 50_000_000


class RunLength(NamedTuple):
    """Of a run, from its first step to its last, on any number of ranks.

    Attributes:
        num_epochs: of the whole schedule, see `schedule_epochs`.
        steps_per_epoch: optimizer steps, as many on every rank.
    """

    num_epochs: int
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps in all."""
        return self.num_epochs * self.steps_per_epoch


def run_length(config: Config, num_samples: int, *, world_size: int) -> RunLength:
    """The length of the run that a recipe describes.

    Args:
        num_samples: images of the training set.

    Raises:
        UserError: as of `count_train_steps`, or more steps than a run can have.
    """
    steps = count_train_steps(
        num_samples,
        batch_size=config.data.batch_size * config.train.accumulation_step,
        world_size=world_size,
        repeats=config.data.repeated_aug,
    )
    length = RunLength(schedule_epochs(config.optim, config.train.epochs), steps)
    if length.num_steps > _MOST_STEPS:
        raise UserError(
            f"epochs {length.num_epochs}, with warmup, cycles and cooldown, of {steps} steps: "
            f"{length.num_steps} steps, more than the {_MOST_STEPS} allowed; give fewer --epochs "
            "or a larger --batch_size"
        )
    return length


def global_batch(config: Config, world_size: int) -> int:
    """Images of an optimizer step, of all ranks and all batches that accumulate into it."""
    return config.data.batch_size * config.train.accumulation_step * world_size


def schedule_epochs(optim: OptimConfig, epochs: int) -> int:
    """Epochs that a run has when each of its cycles has `epochs`.

    A warmup of mode prefix comes before them and the cooldown after them, as in timm.
    """
    prefix = optim.warmup_length if optim.warmup_mode == "prefix" else 0
    return prefix + epochs * optim.lr_cycles + optim.cooldown_epochs


def count_train_steps(
    num_samples: int, *, batch_size: int, world_size: int, repeats: int = 1
) -> int:
    """Full steps in an epoch; what remains of the permutation is dropped.

    With repeated augmentation as many as without, up to timm's rounding: of 256 samples or more,
    whole groups of 256 count. (Of fewer, timm rounds up on each rank, so that the number of ranks
    changes the number of steps; not here.)

    Raises:
        UserError: there is not one full batch for every rank.
    """
    global_batch = batch_size * world_size
    if repeats > 1 and num_samples >= _REPEATED_ROUND:
        num_samples = num_samples // _REPEATED_ROUND * _REPEATED_ROUND
    if num_samples < global_batch:
        raise UserError(
            f"batch_size {batch_size} on {world_size} device(s): one step needs {global_batch} "
            f"images, the training set has {num_samples}; set batch_size to "
            f"{num_samples // world_size} or less"
        )
    return num_samples // global_batch
