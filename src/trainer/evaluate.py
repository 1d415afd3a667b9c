"""Evaluation: every image of the validation set once."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Tuple, Union

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..models.classifier import Classifier
from ..runtime.collectives import gather_from_ranks, sum_over_ranks
from ..runtime.float_status import FloatStatus
from ..runtime.ranks import ALONE, World
from .metrics import EvalResult, EvalTotals
from .multi_label import MultiLabelResult, MultiLabelTotals

if TYPE_CHECKING:
    # Inference alone needs no pipeline, whose compiler takes 60 MB.
    from ..data.dataset import Batch, ImageDataset

_LOGGER = logging.getLogger(__name__)

# Of images with one label, and with any number of them.
Scores = Union[EvalResult, MultiLabelResult]
Watch = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


class EvalNet(nn.Cell):
    """(B, H, W, C) uint8 images -> (B, num_classes) float32 logits."""

    def __init__(self, normalize: nn.Cell, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        return self.network(self.normalize(image)).astype(ms.float32)


class FeatureNet(nn.Cell):
    """(B, H, W, C) uint8 images -> (B, num_features) float32, what a classifier reads."""

    def __init__(self, normalize: nn.Cell, network: Classifier) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        features = self.network.forward_features(self.normalize(image))
        return self.network.forward_head(features, pre_logits=True).astype(ms.float32)


def evaluate(
    eval_net: EvalNet,
    dataset: ImageDataset,
    world: World = ALONE,
    *,
    watch: Optional[Watch] = None,
    float_status: Optional[FloatStatus] = None,
) -> Scores:
    """Scores `eval_net` over all of `dataset`, the last partial batch included.

    Where its classes are a subset of the network's, the scores are over the logits of these
    classes, and `all_classes` has those over all.

    Args:
        world: whose every process evaluates its share of the set; all return the same scores.
        watch: is given the logits, labels and images of every batch of this process.
        float_status: of a device that saturates. With an overflow the loss is NaN, which the
            device would not show.

    Raises:
        UserError: the network is for another number of classes than the data has.
    """
    eval_net.set_train(False)
    kind = MultiLabelTotals if dataset.is_multi_label else EvalTotals
    totals = kind(len(dataset.class_names))
    over_all = EvalTotals(len(dataset.class_names))  # of a subset of the classes
    _has_overflowed(float_status)  # in what ran before
    for batch, logits in _with_logits(eval_net, dataset.batches()):
        if logits.shape[1] != len(dataset.class_names):
            raise UserError(
                f"num_classes {logits.shape[1]}: the data has {len(dataset.class_names)} classes; "
                "give a network for as many"
            )
        if dataset.scored is not None:
            over_all.update(logits, batch.label)
            logits = _only(logits, dataset.scored)
        totals.update(logits, batch.label)
        if watch is not None:
            watch(logits, batch.label, batch.image)
    if dataset.lost:
        _LOGGER.warning("%s; evaluated without", dataset.lost)
    over_all.overflows = totals.overflows = int(_has_overflowed(float_status))
    result = _result(totals, world)
    if dataset.scored is None or isinstance(result, MultiLabelResult):
        return result
    everything = over_all.summed(lambda sums: sum_over_ranks(sums, world)).result()
    return replace(result, classes=len(dataset.scored), all_classes=everything)


def _result(totals: Union[EvalTotals, MultiLabelTotals], world: World) -> Scores:
    """Of all ranks together."""
    if isinstance(totals, MultiLabelTotals):
        return totals.gathered(lambda values: gather_from_ranks(values, world)).result()
    return totals.summed(lambda sums: sum_over_ranks(sums, world)).result()


def _only(logits: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(B, K) float32: those of other classes are -inf, which no class loses against."""
    found = np.full_like(logits, -np.inf)
    found[:, scored] = logits[:, scored]
    return found


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
