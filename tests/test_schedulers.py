"""Learning rates against timm's scheduler."""

from __future__ import annotations

import numpy as np
import pytest
from torch_oracle import torch

from src.args import OptimConfig
from src.tools.schedulers import cosine_lr, create_lr_schedule


@pytest.mark.parametrize("warmup_epochs", [0, 3])
@pytest.mark.parametrize("cooldown_epochs", [0, 2])
def test_cosine_equals_timm_per_update(warmup_epochs: int, cooldown_epochs: int) -> None:
    from timm.scheduler import CosineLRScheduler

    epochs, steps_per_epoch = 10, 7
    optim = OptimConfig(
        base_lr=1e-3,
        min_lr=1e-5,
        warmup_lr=1e-6,
        warmup_length=warmup_epochs,
        cooldown_epochs=cooldown_epochs,
    )
    ours = create_lr_schedule(optim, epochs=epochs, steps_per_epoch=steps_per_epoch)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps_per_epoch,
        lr_min=1e-5,
        warmup_t=warmup_epochs * steps_per_epoch,
        warmup_lr_init=1e-6,
        t_in_epochs=False,
    )
    expected = []
    for update in range((epochs + cooldown_epochs) * steps_per_epoch):
        theirs.step_update(update)
        expected.append(optimizer.param_groups[0]["lr"])
    assert len(ours) == len(expected)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-18)


def test_cosine_values_of_a_300_epoch_recipe() -> None:
    """Reference values of timm's epoch-wise schedule, to the digits they are published with."""
    epochs = np.array([0, 1, 4, 5, 6, 150, 299, 300, 305])
    rates = cosine_lr(
        epochs, base_lr=1e-3, min_lr=1e-5, warmup_lr=1e-6, warmup_steps=5, cosine_steps=300
    )
    expected = [1e-6, 2.008e-4, 8.002e-4, 9.9932e-4, 9.9902e-4, 5.05e-4, 1.0027e-5, 1e-5, 1e-5]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_constant_with_warmup_and_empty() -> None:
    optim = OptimConfig(lr_scheduler="constant_lr", base_lr=0.5, warmup_lr=0.1, warmup_length=1)
    rates = create_lr_schedule(optim, epochs=2, steps_per_epoch=4)
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5])
    assert create_lr_schedule(OptimConfig(), epochs=0, steps_per_epoch=4).shape == (0,)
