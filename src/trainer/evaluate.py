"""Evaluation: every image of the validation set once."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from src.data.imagenet import ImageDataset
from src.tools.collectives import sum_over_ranks
from src.tools.device import ALONE, World
from src.tools.metrics import EvalResult, EvalTotals


class EvalNet(nn.Cell):
    """(B, H, W, 3) uint8 images -> (B, num_classes) float32 logits."""

    def __init__(self, normalize: nn.Cell, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network

    def construct(self, image: Tensor) -> Tensor:
        return self.network(self.normalize(image)).astype(ms.float32)


def evaluate(eval_net: EvalNet, dataset: ImageDataset, world: World = ALONE) -> EvalResult:
    """Scores `eval_net` over all of `dataset`, the last partial batch included.

    Args:
        world: whose every process evaluates its share of the set; all return the same scores.
    """
    eval_net.set_train(False)
    totals = EvalTotals()
    for batch in dataset.batches():
        totals.update(eval_net(Tensor(batch.image)).asnumpy(), batch.label)
    return totals.summed(lambda sums: sum_over_ranks(sums, world)).result()
