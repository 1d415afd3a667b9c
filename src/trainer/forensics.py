"""After too many overflows: which gradient is not finite, and how to see it again."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..data.dataset import Batch
from ..errors import UserError, on_one_line
from ..optim.tensors import for_each
from ..runtime.float_status import FloatStatus
from ..runtime.regular_files import TABLE_BYTES, open_regular
from .train_one_step import AnyNetWithLoss, TrainOneStep

CHECKPOINT = "overflow.ckpt"
_BATCH = "overflow.npz"
REPORT = "overflow.json"


# What a saturated gradient holds: the largest numbers of the types it is computed in.
_LARGEST = (float(np.finfo(np.float16).max), float(np.finfo(np.float32).max))


class GradientProbe(nn.Cell):
    """(image, label, mix, scale) -> (loss, one flag per weight: its gradient is finite, overflow).

    With `float_status` a gradient that holds a largest number counts as not finite, and `overflow`
    is 1.0 where the device overflowed; without, it is 0.0.
    """

    def __init__(
        self,
        net_with_loss: AnyNetWithLoss,
        weights: ms.ParameterTuple,
        float_status: Optional[FloatStatus] = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.net_with_loss = net_with_loss
        self.float_status = float_status
        self.value_and_grad = ms.value_and_grad(self._scaled_loss, None, weights, has_aux=True)

    def _scaled_loss(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tensor]:
        loss = self.net_with_loss(image, label, mix)
        return loss * scale, loss

    def construct(
        self, image: Tensor, label: Tensor, mix: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, ...], Tensor]:
        if self.float_status is None:
            (_, loss), grads = self.value_and_grad(image, label, mix, scale)
            return loss, for_each(_is_finite, grads), ops.zeros((), ms.float32)
        image = self.float_status.clear(image)
        (_, loss), grads = self.value_and_grad(image, label, mix, scale)
        overflow = self.float_status.read((loss, grads))
        return loss, for_each(_is_below_largest, grads), overflow


def _is_finite(grad: Tensor) -> Tensor:
    return ops.isfinite(grad).astype(ms.float32).min()


def _is_below_largest(grad: Tensor) -> Tensor:
    size = ops.abs(grad.astype(ms.float32))
    is_below = ops.logical_and(size != _LARGEST[0], size != _LARGEST[1])
    return ops.logical_and(is_below, ops.isfinite(size)).astype(ms.float32).min()


@dataclass(frozen=True)
class Finding:
    """What a probe saw.

    Attributes:
        parameter: the first weight whose gradient is not finite, or holds a largest number after
            an overflow on a device that saturates; None: there is none.
        overflowed: whether the update would be skipped.
    """

    loss: float
    parameter: Optional[str]
    overflowed: bool

    def place(self) -> str:
        """Where the overflow is first seen, in words."""
        if self.parameter is not None:
            return self.parameter
        if self.overflowed:
            return "what comes before the gradients, whose numbers do not show it"
        return "none, all are finite"


def probe(train_step: TrainOneStep, batch: Batch, *, scale: float, calls: int) -> Finding:
    """Gradients of one batch under the present weights; changes nothing.

    Args:
        calls: what the training step's counter was for this batch; random layers draw from it.
    """
    weights = train_step.optimizer.parameters
    touched = [*train_step.statistics, train_step.calls]
    before = [parameter.asnumpy().copy() for parameter in touched]
    train_step.set_train(True)
    cell = GradientProbe(train_step.net_with_loss, weights, train_step.float_status)
    train_step.calls.set_data(Tensor(calls, ms.int32))
    try:
        inputs = [Tensor(array) for array in batch]
        loss, flags, overflow = cell(*inputs, Tensor(scale, ms.float32))
        broken = [w.name for w, flag in zip(weights, flags) if float(flag.asnumpy()) == 0.0]
    finally:
        for parameter, value in zip(touched, before):
            parameter.set_data(Tensor(value))
    if train_step.float_status is None:
        overflowed = bool(broken)
    else:
        # A gradient may be at 65504 by chance.
        overflowed = bool(overflow.asnumpy())
        broken = broken if overflowed else []
    return Finding(float(loss.asnumpy()), broken[0] if broken else None, overflowed)


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
        if finding.overflowed:
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
        UserError: there is none, or another content.
    """
    path = folder / _BATCH
    try:
        with open_regular(path, TABLE_BYTES) as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in Batch._fields if name in stored.files}
            scale, calls = float(stored["scale"]), int(stored["calls"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or on_one_line(error)
        raise UserError(
            f"{path}: cannot be read ({reason}); replay what a run that stopped on overflow left"
        ) from error
    return probe(train_step, Batch(**arrays), scale=scale, calls=calls), scale
