"""Gradients and twenty training steps of CCT against what the authors' code made of them."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from weight_rule import bright_batches, fill

from src.args import Config, replace
from src.models.weights import reference_names
from src.optim.schedulers import create_lr_schedule
from src.trainer.build import build_network, build_train_step
from src.trainer.forensics import GradientProbe
from src.trainer.train_one_step import TrainOneStep

STORED = np.load(Path(__file__).resolve().parent / "fixtures" / "cct_training.npz")
STEPS_PER_EPOCH = 5
CONFIG = replace(
    Config(),
    arch="cct_2_3x2_32",
    image_size=16,
    num_classes=10,
    drop_path_rate=0.0,
    model_args={"embedding_dim": 32, "attention_dropout": 0.0},
    batch_size=8,
    label_smoothing=0.1,
    base_lr=1e-3,
    warmup_lr=1e-6,
    min_lr=1e-5,
    warmup_length=1,
    epochs=4,
    weight_decay=0.05,
    clip_global_norm_value=1.0,
)
UNMIXED = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (8, 1))
BATCHES = bright_batches(20, batch=8, side=16, classes=10)


@pytest.fixture
def start() -> TrainOneStep:
    """The training step at the stored run's first weights."""
    network = build_network(CONFIG)
    names = reference_names(network)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(fill(names[parameter.name], parameter.shape)))
    step = build_train_step(CONFIG, network).set_train(True)
    step.theirs = dict(zip([p.name for p in network.get_parameters()], names.values()))
    return step


def inputs(number: int) -> list:
    image, label = BATCHES[number]
    return [Tensor(image), Tensor(label), Tensor(UNMIXED)]


class Gradients(GradientProbe):
    def construct(self, image: Tensor, label: Tensor, mix: Tensor) -> tuple:
        return self.value_and_grad(image, label, mix, Tensor(1.0, ms.float32))[1]


def test_gradients_equal_the_authors(start: TrainOneStep) -> None:
    weights = start.optimizer.parameters
    found = Gradients(start.net_with_loss, weights)(*inputs(0))
    for weight, gradient in zip(weights, found):
        expected = STORED[f"grad/{start.theirs[weight.name]}"]
        error = np.linalg.norm(gradient.asnumpy() - expected)
        # The bias of SeqPool shifts every score alike: its gradient is 0 but for rounding.
        rounding = 1e-7 if weight.name.endswith("attention_pool.bias") else 0.0
        assert error <= 1e-3 * np.linalg.norm(expected) + rounding, weight.name


def test_twenty_steps_equal_the_authors(start: TrainOneStep) -> None:
    schedule = create_lr_schedule(CONFIG.optim, epochs=4, steps_per_epoch=STEPS_PER_EPOCH)
    losses = [
        float(start(*inputs(number), Tensor(lr, ms.float32))[0].asnumpy())
        for number, lr in enumerate(schedule)
    ]
    np.testing.assert_allclose(losses, STORED["losses"], rtol=1e-3)
    assert STORED["losses"][-1] < STORED["losses"][0] - 0.05
    for weight in start.net_with_loss.network.get_parameters():
        expected = STORED[f"final/{start.theirs[weight.name]}"]
        error = np.linalg.norm(weight.asnumpy() - expected)
        assert error <= 1e-2 * np.linalg.norm(expected), weight.name
