"""After too many overflows: which gradient is not finite, and how to see it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..data.dataset import Batch
from ..errors import UserError
from ..optim.tensors import for_each
from .train_one_step import AnyNetWithLoss, TrainOneStep

CHECKPOINT = "overflow.ckpt"
_BATCH = "overflow.npz"
REPORT = "overflow.json"


class GradientProbe(nn.Cell):
    """(image, label, mix, scale) -> (loss, one flag per weight: its gradient is finite)."""

    def __init__(self, net_with_loss: AnyNetWithLoss, weights: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.net_with_loss = net_with_loss
        self.value_and_grad = ms.value_and_grad(self._scaled_loss, None, weights, has_aux=True)

    def _scaled_loss(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tensor]:
        loss = self.net_with_loss(image, label, mix)
        return loss * scale, loss

    def construct(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        (_, loss), grads = self.value_and_grad(image, label, mix, scale)
        return loss, for_each(_is_finite, grads)


def _is_finite(grad: Tensor) -> Tensor:
    return ops.isfinite(grad).astype(ms.float32).min()


@dataclass(frozen=True)
class Finding:
    """What a probe saw: the loss, and the first weight whose gradient is not finite, if any."""

    loss: float
    parameter: Optional[str]


def probe(train_step: TrainOneStep, batch: Batch, *, scale: float, calls: int) -> Finding:
    """Gradients of one batch under the present weights; changes nothing.

    Args:
        calls: what the training step's counter was for this batch; random layers draw from it.
    """
    weights = train_step.optimizer.parameters
    touched = [*train_step.statistics, train_step.calls]
    before = [parameter.asnumpy().copy() for parameter in touched]
    train_step.set_train(True)
    cell = GradientProbe(train_step.net_with_loss, weights)
    train_step.calls.set_data(Tensor(calls, ms.int32))
    try:
        loss, flags = cell(*(Tensor(array) for array in batch), Tensor(scale, ms.float32))
        broken = [w.name for w, flag in zip(weights, flags) if float(flag.asnumpy()) == 0.0]
    finally:
        for parameter, value in zip(touched, before):
            parameter.set_data(Tensor(value))
    return Finding(float(loss.asnumpy()), broken[0] if broken else None)


@dataclass(frozen=True)
class Suspect:
    """A batch, the counter of the training step for it, and what a probe of it found."""

    batch: Batch
    calls: int
    finding: Finding


def find_suspect(train_step: TrainOneStep, batches: Sequence[Batch], scale: float) -> Suspect:
    """The first batch of the last step whose gradient is not finite, else the last batch.

    Args:
        batches: of the step that has just been done, `accumulation_step` of them.
    """
    first_call = int(train_step.calls.asnumpy()) - len(batches)
    suspects = []
    for calls, batch in enumerate(batches, first_call):
        finding = probe(train_step, batch, scale=scale, calls=calls)
        suspects.append(Suspect(batch, calls, finding))
        if finding.parameter is not None:
            break
    return suspects[-1]


def write_report(folder: Path, suspect: Suspect, *, step: int, lr: float, scale: float) -> str:
    """Writes overflow.npz and overflow.json into `folder`; returns the command that replays it."""
    arrays = {name: array for name, array in suspect.batch._asdict().items() if array is not None}
    np.savez_compressed(folder / _BATCH, scale=scale, calls=suspect.calls, **arrays)
    command = (
        f"python scripts/replay_step.py --config {folder / 'config.yaml'} "
        f"--resume {folder / CHECKPOINT}"
    )
    report = {
        "step": step,
        "lr": lr,
        "loss_scale": scale,
        "loss": repr(suspect.finding.loss),
        "first_non_finite_gradient": suspect.finding.parameter,
        "replay": command,
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return command


def replay(train_step: TrainOneStep, folder: Path) -> Tuple[Finding, float]:
    """What a probe finds in the batch that `write_report` left in `folder`, and its loss scale.

    Raises:
        UserError: there is none.
    """
    path = folder / _BATCH
    if not path.is_file():
        raise UserError(f"{path}: no such file; replay what a run that stopped on overflow left")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in Batch._fields if name in stored.files}
        scale, calls = float(stored["scale"]), int(stored["calls"])
    return probe(train_step, Batch(**arrays), scale=scale, calls=calls), scale
