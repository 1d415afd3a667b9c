"""Activation recomputation (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost")."""

from __future__ import annotations

from mindspore import nn

from ..errors import UserError


def recompute_blocks(network: nn.Cell, mode: str) -> None:
    """Has each block of a classifier computed again for the gradient, from what it was given.

    What was drawn is drawn alike, by (seed, step). A BatchNorm keeps its output: computed again, it
    would move its running statistics twice. The native form of ConvMixer, which is one operator,
    computes what it needs again anyway.

    Raises:
        UserError: mode pynative, which would run a BatchNorm again whatever it is told.
    """
    if mode == "pynative":
        raise UserError(
            "recompute true: mode pynative would move the running statistics of BatchNorm twice; "
            "give --mode graph, or --recompute false"
        )
    for block in network.block_cells():
        block.recompute()
        for _, cell in block.cells_and_names():
            if isinstance(cell, nn.BatchNorm2d):
                cell.bn_train.recompute(False)
