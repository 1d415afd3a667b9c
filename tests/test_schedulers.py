"""Learning rates against timm, torch and NumPy."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
from torch_oracle import torch

from src.args import Config, OptimConfig, replace
from src.errors import UserError
from src.optim.schedulers import create_lr_schedule
from src.run_length import schedule_epochs

EPOCHS, STEPS_PER_EPOCH, PEAK = 10, 7, 1e-3


def torch_optimizer(lr: float = PEAK) -> Any:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def table(**values: Any) -> np.ndarray:
    optim = OptimConfig(**{"base_lr": PEAK, **values})
    rates = create_lr_schedule(optim, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH)
    assert rates.dtype == np.float64
    return rates


def timm_table(sched: str, per_epoch: bool, epochs: int = EPOCHS, **values: Any) -> List[float]:
    """The rates of a run of timm's own length, one per step."""
    from timm.scheduler import create_scheduler_v2

    optimizer = torch_optimizer()
    scheduler, num_epochs = create_scheduler_v2(
        optimizer,
        sched,
        num_epochs=epochs,
        step_on_epochs=per_epoch,
        updates_per_epoch=STEPS_PER_EPOCH,
        **values,
    )
    rates = []
    for step in range(num_epochs * STEPS_PER_EPOCH):
        scheduler.step(step // STEPS_PER_EPOCH)
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("per_epoch", [False, True])
@pytest.mark.parametrize("mode", ["replace", "prefix"])
@pytest.mark.parametrize(("warmup", "cooldown"), [(0, 0), (3, 2)])
@pytest.mark.parametrize(("cycles", "cycle_decay"), [(1, 1.0), (3, 0.4)])
@pytest.mark.parametrize(("ours", "theirs"), [("cosine_lr", "cosine"), ("linear_lr", "poly")])
def test_cycles_equal_timm(
    ours: str,
    theirs: str,
    per_epoch: bool,
    mode: str,
    warmup: int,
    cooldown: int,
    cycles: int,
    cycle_decay: float,
) -> None:
    expected = timm_table(
        theirs,
        per_epoch,
        min_lr=1e-5,
        warmup_lr=1e-6,
        warmup_epochs=warmup,
        warmup_prefix=mode == "prefix",
        cooldown_epochs=cooldown,
        cycle_limit=cycles,
        cycle_decay=cycle_decay,
        decay_rate=1.0,
    )
    rates = table(
        lr_scheduler=ours,
        lr_per_epoch=per_epoch,
        min_lr=1e-5,
        warmup_lr=1e-6,
        warmup_length=warmup,
        warmup_mode=mode,
        cooldown_epochs=cooldown,
        lr_cycles=cycles,
        lr_cycle_decay=cycle_decay,
    )
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("per_epoch", [False, True])
@pytest.mark.parametrize("mode", ["replace", "prefix"])
@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("decay_epochs", [3.0, 2.4])
def test_step_equals_timm(per_epoch: bool, mode: str, warmup: int, decay_epochs: float) -> None:
    prefix = mode == "prefix"
    warmups = {"warmup_lr": 1e-5, "warmup_epochs": warmup, "warmup_prefix": prefix}
    falls = {"decay_epochs": decay_epochs, "decay_rate": 0.3}
    rates = table(
        lr_scheduler="step_lr",
        lr_per_epoch=per_epoch,
        warmup_lr=1e-5,
        warmup_length=warmup,
        warmup_mode=mode,
        **falls,
    )
    expected = timm_table("step", per_epoch, **warmups, **falls)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize("prefix", [False, True])
def test_constant_equals_timm(prefix: bool) -> None:
    expected = timm_table("constant", False, warmup_lr=1e-5, warmup_epochs=4, warmup_prefix=prefix)
    mode = "prefix" if prefix else "replace"
    rates = table(lr_scheduler="constant_lr", warmup_lr=1e-5, warmup_length=4, warmup_mode=mode)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def torch_table(scheduler: Any, count: int) -> List[float]:
    rates = []
    for _ in range(count):
        rates += scheduler.get_last_lr()
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("milestones", [(2.0, 5.0, 6.0), (4.0, 4.0), ()])
def test_multistep_equals_torch(milestones: tuple) -> None:
    values = {"lr_scheduler": "multistep_lr", "milestones": milestones, "decay_rate": 0.3}
    scheduler = torch.optim.lr_scheduler
    by_epoch = scheduler.MultiStepLR(torch_optimizer(), milestones, gamma=0.3)
    expected = np.repeat(torch_table(by_epoch, EPOCHS), STEPS_PER_EPOCH)
    np.testing.assert_allclose(table(lr_per_epoch=True, **values), expected, rtol=1e-12)
    by_step = [milestone * STEPS_PER_EPOCH for milestone in milestones]
    by_step = scheduler.MultiStepLR(torch_optimizer(), by_step, gamma=0.3)
    expected = torch_table(by_step, EPOCHS * STEPS_PER_EPOCH)
    np.testing.assert_allclose(table(**values), expected, rtol=1e-12)


@pytest.mark.parametrize("decay_epochs", [1.0, 2.5])
def test_exponential_equals_torch(decay_epochs: float) -> None:
    values = {"lr_scheduler": "exponential_lr", "decay_epochs": decay_epochs, "decay_rate": 0.3}
    gamma, exponential = 0.3 ** (1 / decay_epochs), torch.optim.lr_scheduler.ExponentialLR
    expected = np.repeat(torch_table(exponential(torch_optimizer(), gamma), EPOCHS), 7)
    np.testing.assert_allclose(table(lr_per_epoch=True, **values), expected, rtol=1e-12)
    by_step = exponential(torch_optimizer(), gamma ** (1 / STEPS_PER_EPOCH))
    expected = torch_table(by_step, EPOCHS * STEPS_PER_EPOCH)
    np.testing.assert_allclose(table(**values), expected, rtol=1e-12)


def test_linear_equals_torch() -> None:
    linear = torch.optim.lr_scheduler.LinearLR(torch_optimizer(), 1.0, 0.01, EPOCHS * 7)
    expected = torch_table(linear, EPOCHS * STEPS_PER_EPOCH)
    np.testing.assert_allclose(table(lr_scheduler="linear_lr", min_lr=1e-5), expected, rtol=1e-12)


@pytest.mark.parametrize("epochs", [10, 150])
def test_one_cycle_equals_the_authors(epochs: int) -> None:
    steps = np.arange(epochs * 5)
    knots = [0, epochs * 2 // 5, epochs * 4 // 5, epochs]
    expected = np.interp(steps // 5 + (steps % 5 + 1) / 5, knots, [0, 0.01, 0.01 / 20.0, 0])
    optim = OptimConfig(lr_scheduler="one_cycle_lr", base_lr=0.01, cooldown_epochs=1)
    rates = create_lr_schedule(optim, epochs=epochs, steps_per_epoch=5)
    np.testing.assert_allclose(rates[:-5], expected, rtol=1e-9, atol=1e-17)
    np.testing.assert_array_equal(rates[-5:], 0.0)


@pytest.mark.parametrize("per_epoch", [False, True])
def test_shifted_cosine_equals_the_model_zoo(per_epoch: bool) -> None:
    """Its scripts: cosine over (t - warmup) / (epochs - warmup), at t = epoch + batch / batches."""
    rates = table(
        warmup_length=4, warmup_mode="shift", warmup_lr=1e-6, min_lr=1e-5, lr_per_epoch=per_epoch
    )
    steps = np.arange(EPOCHS * STEPS_PER_EPOCH)
    t = steps // STEPS_PER_EPOCH + (0 if per_epoch else steps % STEPS_PER_EPOCH / STEPS_PER_EPOCH)
    done = (t - 4) / (EPOCHS - 4)
    cosine = 1e-5 + (PEAK - 1e-5) * (1 + np.cos(np.pi * done)) / 2
    expected = np.where(t < 4, 1e-6 + (PEAK - 1e-6) * t / 4, cosine)
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


@pytest.mark.parametrize("mode", ["replace", "prefix", "shift"])
@pytest.mark.parametrize("scheduler", ["cosine_lr", "linear_lr"])
def test_cooldown_is_at_the_floor_even_after_a_warmup_of_all_epochs(
    mode: str, scheduler: str
) -> None:
    rates = table(
        lr_scheduler=scheduler,
        warmup_length=EPOCHS,
        warmup_mode=mode,
        cooldown_epochs=1,
        min_lr=2e-5,
    )
    np.testing.assert_array_equal(rates[-STEPS_PER_EPOCH:], 2e-5)


@pytest.mark.parametrize(
    ("mode", "at", "expected"),
    [
        (
            "replace",
            [0, 1, 4, 5, 6, 150, 299, 300, 305],
            [1e-6, 2.008e-4, 8.002e-4, 9.9932e-4, 9.9902e-4, 5.05e-4, 1.0027e-5, 1e-5, 1e-5],
        ),
        ("prefix", [5, 6, 150, 299, 305], [1e-3, 9.99973e-4, 5.3091e-4, 1.0977e-5, 1e-5]),
    ],
)
def test_values_of_a_300_epoch_recipe(mode: str, at: List[int], expected: List[float]) -> None:
    """Reference values of timm's epoch-wise schedule, to the digits they are published with."""
    optim = OptimConfig(
        base_lr=1e-3,
        lr_per_epoch=True,
        warmup_length=5,
        warmup_mode=mode,
        cooldown_epochs=10,
    )
    rates = create_lr_schedule(optim, epochs=300, steps_per_epoch=3)
    np.testing.assert_allclose(rates.reshape(-1, 3)[at, 0], expected, rtol=6e-5)
    np.testing.assert_allclose(rates.reshape(-1, 3)[at, 2], expected, rtol=6e-5)


def test_schedule_epochs_counts_everything() -> None:
    optim = OptimConfig(warmup_length=5, cooldown_epochs=10, lr_cycles=2)
    assert schedule_epochs(optim, 100) == 210
    prefixed = OptimConfig(warmup_length=5, cooldown_epochs=10, warmup_mode="prefix")
    assert schedule_epochs(prefixed, 100) == 115
    assert create_lr_schedule(OptimConfig(), epochs=0, steps_per_epoch=4).shape == (0,)


def test_base_lr_grows_with_the_batch_and_the_absolute_rates_do_not() -> None:
    values = {"warmup_length": 2, "warmup_lr": 1e-6, "min_lr": 1e-5, "cooldown_epochs": 1}
    optim = OptimConfig(base_lr=5e-4, lr_base_batch=512, **values)
    scaled = create_lr_schedule(optim, epochs=9, steps_per_epoch=2, global_batch=1024)
    plain = create_lr_schedule(
        OptimConfig(base_lr=1e-3, **values), epochs=9, steps_per_epoch=2, global_batch=64
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    with pytest.raises(ValueError, match="lr_base_batch 512"):
        create_lr_schedule(optim, epochs=9, steps_per_epoch=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"milestones": [30.0, 20.0]}, r"milestones: \[30.0, 20.0\] .* rising order"),
        ({"milestones": [0]}, r"milestones: \[0\] .* > 0"),
        ({"milestones": 30}, "milestones: 30 .* a list of numbers"),
        ({"milestones": ["x"]}, r"milestones: \[x\] .* a list of numbers"),
        ({"lr_cycles": 2, "lr_scheduler": "step_lr"}, "lr_cycles: 2 .* cosine_lr and linear_lr"),
        ({"lr_scheduler": "one_cycle_lr", "warmup_length": 1}, "lr_scheduler: .* 1 and false"),
        ({"lr_scheduler": "one_cycle_lr", "lr_per_epoch": True}, "lr_scheduler: .* 0 and true"),
    ],
)
def test_settings_that_cannot_be(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(Config(), **values)
