"""Evaluation: every image of the validation set once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..runtime.collectives import sum_over_ranks
from ..runtime.float_status import FloatStatus
from ..runtime.ranks import ALONE, World
from .metrics import EvalResult, EvalTotals

if TYPE_CHECKING:
    # Inference alone needs no pipeline, whose compiler takes 60 MB.
    from ..data.dataset import Batch, ImageDataset

_LOGGER = logging.getLogger(__name__)

Watch = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


class EvalNet(nn.Cell):
    """(B, H, W, 3) uint8 images -> (B, num_classes) float32 logits."""

    def __init__(self, normalize: nn.Cell, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        return self.network(self.normalize(image)).astype(ms.float32)


def evaluate(
    eval_net: EvalNet,
    dataset: ImageDataset,
    world: World = ALONE,
    *,
    watch: Optional[Watch] = None,
    float_status: Optional[FloatStatus] = None,
) -> EvalResult:
    """Scores `eval_net` over all of `dataset`, the last partial batch included.

    Args:
        world: whose every process evaluates its share of the set; all return the same scores.
        watch: is given the logits, labels and images of every batch of this process.
        float_status: of a device that saturates. With an overflow the loss is NaN, which the
            device would not show.

    Raises:
        UserError: the network is for another number of classes than the data has.
    """
    eval_net.set_train(False)
    totals = EvalTotals(len(dataset.class_names))
    _has_overflowed(float_status)  # in what ran before
    for batch, logits in _with_logits(eval_net, dataset.batches()):
        if logits.shape[1] != len(dataset.class_names):
            raise UserError(
                f"num_classes {logits.shape[1]}: the data has {len(dataset.class_names)} classes; "
                "give a network for as many"
            )
        totals.update(logits, batch.label)
        if watch is not None:
            watch(logits, batch.label, batch.image)
    if dataset.lost:
        _LOGGER.warning("%s; evaluated without", dataset.lost)
    totals.overflows = int(_has_overflowed(float_status))
    return totals.summed(lambda sums: sum_over_ranks(sums, world)).result()


def _has_overflowed(status: Optional[FloatStatus]) -> bool:
    """What the device's status says; clears it."""
    return status is not None and bool(status(Tensor(0.0, ms.float32)).asnumpy())


def _with_logits(eval_net: EvalNet, batches: Iterator[Batch]) -> Iterator[Tuple[Batch, np.ndarray]]:
    """Each batch with its logits, which are waited for when the next batch is on the device too."""
    started = ((batch, eval_net(Tensor.from_numpy(batch.image))) for batch in batches)
    last = next(started, None)
    while last is not None:
        following = next(started, None)
        yield last[0], last[1].asnumpy()
        last = following
