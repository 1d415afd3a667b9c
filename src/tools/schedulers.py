"""Learning rate of every step."""

from __future__ import annotations

import numpy as np

from src.args import OptimConfig


def cosine_lr(
    steps: np.ndarray,
    *,
    base_lr: float,
    min_lr: float,
    warmup_lr: float,
    warmup_steps: int,
    cosine_steps: int,
) -> np.ndarray:
    """Cosine decay whose head is replaced by a linear warmup (timm's CosineLRScheduler).

    The warmup does not shift the cosine: it is entered at its value for `warmup_steps`. From
    `cosine_steps` on the rate is `min_lr`.

    Args:
        steps: (S,) number of each step, from 0.

    Returns:
        (S,) float64.
    """
    angle = np.pi * np.minimum(steps, cosine_steps) / max(1, cosine_steps)
    cosine = min_lr + 0.5 * (base_lr - min_lr) * (1.0 + np.cos(angle))
    cosine = np.where(steps < cosine_steps, cosine, min_lr)
    warmup = warmup_lr + steps * (base_lr - warmup_lr) / max(1, warmup_steps)
    return np.where(steps < warmup_steps, warmup, cosine)


def constant_lr(
    steps: np.ndarray, *, base_lr: float, warmup_lr: float, warmup_steps: int
) -> np.ndarray:
    """`base_lr` after a linear warmup; shapes as in `cosine_lr`."""
    warmup = warmup_lr + steps * (base_lr - warmup_lr) / max(1, warmup_steps)
    return np.where(steps < warmup_steps, warmup, base_lr)


def create_lr_schedule(optim: OptimConfig, *, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """(total steps,) float64: `epochs` of schedule, then `cooldown_epochs` more."""
    total = (epochs + optim.cooldown_epochs) * steps_per_epoch
    steps = np.arange(total, dtype=np.float64)
    warmup_steps = optim.warmup_length * steps_per_epoch
    if optim.lr_scheduler == "constant_lr":
        return constant_lr(
            steps, base_lr=optim.base_lr, warmup_lr=optim.warmup_lr, warmup_steps=warmup_steps
        )
    return cosine_lr(
        steps,
        base_lr=optim.base_lr,
        min_lr=optim.min_lr,
        warmup_lr=optim.warmup_lr,
        warmup_steps=warmup_steps,
        cosine_steps=epochs * steps_per_epoch,
    )
