"""Twenty training steps of every family beside timm's network under torch's optimizer."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from model_parity import CLASSES, Case, convmixer, convnext, load_rule_weights_of_reference, sized
from torch_oracle import torch

from src.args import Config, replace
from src.checkpoints.weight_conversion import to_network_names, to_reference_names
from src.models.registry import create_model
from src.models.weights import reference_names
from src.optim.schedulers import create_lr_schedule
from src.trainer.build import build_train_step

# As shallow as they get: most of the time goes into compiling the training step.
CASES = [
    convmixer("convmixer_1536_20", 56, dim=48, depth=2, kernel_size=9, patch_size=7),
    convnext("convnext_tiny", "convnext_tiny", 64, depths=(1, 1, 1, 1)),
    sized("deit_tiny_patch16_224", "deit_tiny_patch16_224", 64, depth=1),
]
# Its step takes longer to compile than those of the others together.
TWINS = sized("pcpvt_small_v0", "twins_pcpvt_small", 64, depths=(1, 1, 1, 1))
BATCH, EPOCHS, STEPS_PER_EPOCH = 4, 4, 5
STEPS = EPOCHS * STEPS_PER_EPOCH


def config_of(case: Case) -> Config:
    return replace(
        Config(),
        arch=case.name,
        image_size=case.side,
        num_classes=CLASSES,
        batch_size=BATCH,
        label_smoothing=0.1,
        base_lr=1e-3,
        warmup_lr=1e-6,
        min_lr=1e-5,
        warmup_length=1,
        epochs=EPOCHS,
        # Ten times the recipes', so that a tensor in the wrong group shows.
        weight_decay=0.5,
        clip_global_norm_value=1.0,
    )


def batches(side: int) -> List[Tuple[np.ndarray, np.ndarray]]:
    """(BATCH, side, side, 3) uint8 images whose brightness tells their class, and the classes."""
    rng = np.random.default_rng(side)
    found = []
    for _ in range(STEPS):
        label = rng.integers(CLASSES, size=BATCH)
        image = rng.normal(60 + 14 * label[:, None, None, None], 40, (BATCH, side, side, 3))
        found.append((np.clip(image, 0, 255).astype(np.uint8), label.astype(np.int32)))
    return found


def our_run(
    case: Case, start: Dict[str, np.ndarray], **keys: Any
) -> Tuple[List[float], Dict[str, np.ndarray]]:
    """Loss of every step, and the weights afterwards by timm's names."""
    config = replace(config_of(case), **keys)
    network = create_model(
        case.name, img_size=case.side, num_classes=CLASSES, drop_path_rate=0.0, **case.changes
    )
    arrays, _ = to_network_names(start, network, arch=case.name)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(arrays[parameter.name]))
    ours = list(reference_names(network))
    schedule = create_lr_schedule(config.optim, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH)
    step = build_train_step(config, network).set_train(True)
    unmixed = Tensor(np.tile(np.array([1, 0, 0, 0, 0], np.float32), (BATCH, 1)))
    losses = []
    for (image, label), lr in zip(batches(case.side), schedule):
        outputs = step(Tensor(image), Tensor(label), unmixed, Tensor(lr, ms.float32))
        losses.append(float(outputs[0].asnumpy()))
    weights = dict(zip(ours, (parameter.asnumpy() for parameter in network.get_parameters())))
    return losses, weights_by_reference(case, weights)


def weights_by_reference(case: Case, weights: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    # A network inside a training step has longer names.
    network = create_model(case.name, img_size=case.side, num_classes=CLASSES, **case.changes)
    return to_reference_names(weights, network)


def timms_run(model: Any, config: Config) -> Tuple[List[float], Dict[str, np.ndarray]]:
    from timm.optim import param_groups_weight_decay
    from timm.scheduler import CosineLRScheduler

    optim = config.optim
    groups = param_groups_weight_decay(
        model,
        optim.weight_decay,
        no_weight_decay_list=getattr(model, "no_weight_decay", set)(),
    )
    optimizer = torch.optim.AdamW(groups, lr=optim.base_lr, betas=optim.beta, eps=optim.eps)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=STEPS,
        lr_min=optim.min_lr,
        warmup_t=optim.warmup_length * STEPS_PER_EPOCH,
        warmup_lr_init=optim.warmup_lr,
        t_in_epochs=False,
    )
    mean, std = (np.array(values) for values in (config.data.mean, config.data.std))
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=config.data.label_smoothing)
    losses = []
    for number, (image, label) in enumerate(batches(config.model.image_size)):
        scheduler.step_update(number)
        normalised = ((image / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        loss = criterion(model(torch.tensor(normalised)), torch.tensor(label).long())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_global_norm_value)
        optimizer.step()
        losses.append(loss.item())
    return losses, arrays_of(model)


def arrays_of(model: Any) -> Dict[str, np.ndarray]:
    return {
        name: value.numpy().copy()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Beside MindSpore's threads, those of torch wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "case", [*CASES, pytest.param(TWINS, marks=pytest.mark.slow)], ids=lambda case: case.name
)
def test_twenty_steps_equal_torchs(case: Case) -> None:
    model = load_rule_weights_of_reference(case.build_reference(num_classes=CLASSES)).train()
    start = arrays_of(model)
    ours, theirs = our_run(case, start), timms_run(model, config_of(case))
    compare(case, start, ours, theirs)


# Groups of ours that `freeze` counts, and what timm's calls them.
@pytest.mark.parametrize(
    ("case", "freeze", "modules"),
    [
        (CASES[0], "2", ["stem", "blocks.0"]),
        (CASES[0], "backbone", ["stem", "blocks"]),
        pytest.param(CASES[1], "2", ["stem", "stages.0"], marks=pytest.mark.slow),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_twenty_steps_of_frozen_networks_equal_torchs(
    case: Case, freeze: str, modules: List[str]
) -> None:
    from timm.utils import freeze as freeze_of_timm

    model = load_rule_weights_of_reference(case.build_reference(num_classes=CLASSES)).train()
    start = arrays_of(model)
    freeze_of_timm(model, modules)
    ours, theirs = our_run(case, start, freeze=freeze), timms_run(model, config_of(case))
    compare(case, start, ours, theirs)
    frozen = [name for name in start if name.startswith(tuple(f"{m}." for m in modules))]
    assert len(frozen) > 5
    for name, value in start.items():
        assert np.array_equal(ours[1][name], value) == (name in frozen), name


def compare(
    case: Case,
    start: Dict[str, np.ndarray],
    ours: Tuple[List[float], Dict[str, np.ndarray]],
    theirs: Tuple[List[float], Dict[str, np.ndarray]],
) -> None:
    """Losses of each step, and where the weights have gone from `start`."""
    (losses, weights), (expected_losses, expected) = ours, theirs
    errors = np.abs(np.array(losses) / expected_losses - 1)
    assert errors.max() <= 1e-3, errors
    assert weights.keys() == expected.keys()
    flat, flat_expected, flat_start = (
        np.concatenate([values[name].ravel() for name in expected])
        for values in (weights, expected, start)
    )
    distance = np.linalg.norm(flat - flat_expected)
    assert distance <= 1e-2 * np.linalg.norm(flat_expected)
    # The weights have moved, and the same way.
    moved = np.linalg.norm(flat_expected - flat_start)
    assert distance <= 5e-3 * moved
    print(
        f"\n{case.name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, largest relative error "
        f"{errors.max():.1e}; weights {distance / np.linalg.norm(flat_expected):.1e}, of the way "
        f"{distance / moved:.1e}"
    )
