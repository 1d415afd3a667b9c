"""Losses and their gradients against torch and timm in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from torch_oracle import torch

from src.args import Config, OptimConfig, replace
from src.data.augment.batch_transform import BatchTransform
from src.data.class_weights import resolve_class_weights
from src.errors import UserError
from src.optim.criterion import DistillationLoss, SoftTargetCrossEntropy, create_criterion

functional = torch.nn.functional


def logits_of(seed: int) -> np.ndarray:
    """(8, 10) float32: rows from small to very sure, one element exactly 0."""
    logits = np.random.default_rng(seed).normal(size=(8, 10)) * np.geomspace(0.3, 30, 8)[:, None]
    logits[0, 0] = 0.0
    return logits.astype(np.float32)


def target_of(seed: int) -> np.ndarray:
    """(8, 10) float32: labels smoothed by 0.1, mixed with the flipped batch; one row halves."""
    hot = np.eye(10)[np.random.default_rng(seed).integers(0, 10, 8)] * 0.9 + 0.01
    target = 0.3 * hot + 0.7 * hot[::-1]
    target[0] = [0.5, 0.5] + [0.0] * 8
    return target.astype(np.float32)


def value_and_grads(loss: nn.Cell, inputs: List[np.ndarray]) -> Tuple[float, List[np.ndarray]]:
    """The loss, and its gradient for every input but the last, the target."""
    positions = tuple(range(len(inputs) - 1))
    value, grads = ms.value_and_grad(loss, positions)(*(Tensor(x) for x in inputs))
    assert value.dtype == ms.float32
    assert value.shape == ()
    grads = grads if isinstance(grads, tuple) else (grads,)
    return float(value.asnumpy()), [grad.asnumpy() for grad in grads]


def torch_value_and_grads(
    loss: Callable[..., Any], inputs: List[np.ndarray]
) -> Tuple[float, List[np.ndarray]]:
    *others, target = (torch.tensor(x).double() for x in inputs)
    for x in others:
        x.requires_grad_()
    value = loss(*others, target)
    grads = torch.autograd.grad(value, others, allow_unused=True, materialize_grads=True)
    return float(value.detach()), [grad.numpy() for grad in grads]


def assert_equal(loss: nn.Cell, reference: Callable[..., Any], inputs: List[np.ndarray]) -> None:
    value, grads = value_and_grads(loss, inputs)
    expected, expected_grads = torch_value_and_grads(reference, inputs)
    assert value == pytest.approx(expected, rel=1e-6)
    for grad, expected_grad in zip(grads, expected_grads):
        np.testing.assert_allclose(grad, expected_grad, rtol=0, atol=1e-6)


def test_cross_entropy_equals_torch() -> None:
    criterion = create_criterion(OptimConfig())
    inputs = [logits_of(0), target_of(1)]
    assert_equal(criterion, lambda x, target: functional.cross_entropy(x, target), inputs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_equals_timm(smoothing: float) -> None:
    from timm.loss import LabelSmoothingCrossEntropy

    label = np.random.default_rng(3).integers(0, 10, 8).astype(np.int32)
    transform = BatchTransform(
        8, 4, num_classes=10, mean=(0.5,) * 3, std=(0.5,) * 3, label_smoothing=smoothing
    )
    images, mix = np.zeros((8, 4, 4, 3), np.uint8), np.tile(np.float32([1, 0, 0, 0, 0]), (8, 1))
    _, target = transform(Tensor(images), Tensor(label), Tensor(mix))
    value, (grad,) = value_and_grads(
        create_criterion(OptimConfig()), [logits_of(0), target.asnumpy()]
    )
    logits = torch.tensor(logits_of(0)).double().requires_grad_()
    expected = LabelSmoothingCrossEntropy(smoothing)(logits, torch.tensor(label).long())
    (expected_grad,) = torch.autograd.grad(expected, logits)
    assert value == pytest.approx(float(expected.detach()), rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
@pytest.mark.parametrize("sum_classes", [False, True])
def test_bce_equals_timm(threshold: Optional[float], sum_classes: bool) -> None:
    from timm.loss import BinaryCrossEntropy

    optim = OptimConfig(criterion="bce", bce_target_thresh=threshold, bce_sum=sum_classes)
    reference = BinaryCrossEntropy(target_threshold=threshold, sum_classes=sum_classes)
    assert_equal(create_criterion(optim), reference, [logits_of(2), target_of(3)])


def test_bce_is_exact_for_sure_and_right_answers() -> None:
    """log(1 + exp(x)) - x would leave 0 where the loss is 1e-9, and infinity beyond x = 88."""
    logits = np.array([[20.0, -20.0], [200.0, -200.0]], np.float32)
    target = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    value, (grad,) = value_and_grads(
        create_criterion(OptimConfig(criterion="bce")), [logits, target]
    )
    assert 0.0 <= value < 1e-8
    np.testing.assert_allclose(grad[0], [-5.15e-10, 5.15e-10], rtol=1e-2)
    assert np.isfinite(grad).all()


def deit_loss(kind: str, alpha: float, tau: float) -> Callable[..., Any]:
    """The authors' loss in torch's own words."""

    def loss(logits: Any, dist: Any, teacher: Any, target: Any) -> Any:
        base = functional.cross_entropy(logits, target)
        teacher = teacher.detach()
        if kind == "none":
            return base
        if kind == "hard":
            added = functional.cross_entropy(dist, teacher.argmax(dim=1))
        else:
            student, teacher = (functional.log_softmax(x / tau, dim=1) for x in (dist, teacher))
            added = functional.kl_div(student, teacher, reduction="sum", log_target=True)
            added = added * tau * tau / dist.numel()
        return (1 - alpha) * base + alpha * added

    return loss


@pytest.mark.parametrize(
    ("kind", "alpha", "tau"),
    [("none", 0.5, 1.0), ("hard", 0.5, 1.0), ("hard", 0.1, 3.0), ("soft", 0.1, 3.0)],
)
def test_distillation_equals_torch(kind: str, alpha: float, tau: float) -> None:
    loss = DistillationLoss(SoftTargetCrossEntropy(), kind=kind, alpha=alpha, tau=tau)
    inputs = [logits_of(seed) for seed in (4, 5, 6)]
    assert_equal(loss, deit_loss(kind, alpha, tau), [*inputs, target_of(7)])


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_half_precision_logits_are_computed_in_float32(name: str) -> None:
    criterion = create_criterion(OptimConfig(criterion=name))
    loss = DistillationLoss(criterion, kind="soft", alpha=0.5, tau=2.0)
    logits = [logits_of(seed).astype(np.float16) for seed in (8, 9, 10)]
    target = Tensor(target_of(11))
    half = loss(*(Tensor(x) for x in logits), target)
    single = loss(*(Tensor(x.astype(np.float32)) for x in logits), target)
    assert half.dtype == ms.float32
    assert float(half.asnumpy()) == float(single.asnumpy())


def test_distillation_needs_a_teacher() -> None:
    teacher = {"teacher_arch": "convnext_tiny", "teacher_pretrained": "teacher.ckpt"}
    assert OptimConfig(distillation_type="hard", **teacher).distillation_alpha == 0.5
    for missing in teacher:
        with pytest.raises(UserError, match=f"distillation_type: soft .* or give {missing}"):
            OptimConfig(distillation_type="soft", **{**teacher, missing: None}).check_training()
    with pytest.raises(UserError, match=r"distillation_type: sof .* did you mean 'soft'"):
        OptimConfig(distillation_type="sof", **teacher)


# --- class weights --------------------------------------------------------------------------------

WEIGHTS = np.linspace(0.2, 3.0, 10).astype(np.float32)


def test_class_weights_are_torchs_of_labels() -> None:
    """And of mixed targets the same mean, where torch divides by the batch."""
    label = np.random.default_rng(5).integers(0, 10, 8)
    hot, weight = np.eye(10, dtype=np.float32)[label], torch.tensor(WEIGHTS).double()

    def of_labels(x: Any, target: Any) -> Any:
        return functional.cross_entropy(x, torch.tensor(label), weight=weight)

    def of_mixtures(x: Any, target: Any) -> Any:
        total = functional.cross_entropy(x, target, weight=weight, reduction="sum")
        return total / (target * weight).sum()

    criterion = create_criterion(OptimConfig(class_weights="balanced"), WEIGHTS)
    assert_equal(criterion, of_labels, [logits_of(0), hot])
    assert_equal(criterion, of_mixtures, [logits_of(0), target_of(1)])


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    images = [500, 10, 90]
    found = resolve_class_weights("balanced", ["a", "b", "c"], images)
    due = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(range(3), images))
    np.testing.assert_allclose(found, due.astype(np.float32))
    some = resolve_class_weights("balanced", ["a", "b", "c", "d"], [*images, 0])
    np.testing.assert_array_equal(some, [*found, 1.0])
    assert resolve_class_weights(None, None, None) is None
    with pytest.raises(UserError, match="not known here"):
        resolve_class_weights("balanced", ["a"], None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read (No such file or directory); give balanced, or"),
        ("cat,1\ndog\n", "class 2 is not CLASS,WEIGHT"),
        ("cat,1\ndog,-1\n", "weight -1 of 'dog' is not within"),
        ("cat,1\ndog,0\n", "weight 0 of 'dog' is not within"),
        ("cat,1\ncat,1\n", "'cat' is there twice"),
        ("cat,1\n", "no weight for dog"),
        ("cat,1\ndogs,1\n", "no class of the data is called dogs; did you mean 'dog'?"),
        ("cat,1\ndog,one\n", "'one' of 'dog' is no number such as 0.5; correct the file"),
    ],
)
def test_files_of_weights(text: Optional[str], said: str, tmp_path: Path) -> None:
    path, names = tmp_path / "weights.csv", ["cat", "dog"]
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="class_weights") as refused:
        resolve_class_weights(str(path), names, [1, 1])
    assert said in str(refused.value)
    path.write_text("# mine\ndog, 0.5\ncat,2\n")
    found = resolve_class_weights(str(path), names, [1, 1])
    assert found is not None
    assert found.tolist() == [2.0, 0.5]


def test_class_weights_are_of_cross_entropy() -> None:
    with pytest.raises(UserError, match="null with criterion bce"):
        replace(Config(), class_weights="balanced", criterion="bce")
