"""Names of parameters here and in the reference implementations (timm, the authors' code)."""

from __future__ import annotations

from typing import Dict

from mindspore import nn

# The framework's names of a norm's parameters -> PyTorch's.
_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NORMS = (nn.LayerNorm, nn.BatchNorm2d)


def reference_names(network: nn.Cell) -> Dict[str, str]:
    """Name of every parameter of `network` -> its name in the reference implementation.

    Only norms differ. The kind of the cell decides, not the name: the layer scale of ConvNeXt is
    called `gamma` on both sides.
    """
    names = {parameter.name: parameter.name for parameter in network.get_parameters()}
    for _, cell in network.cells_and_names():
        if isinstance(cell, _NORMS):
            for parameter in cell.get_parameters(expand=False):
                path, _, last = parameter.name.rpartition(".")
                names[parameter.name] = f"{path}.{_NORM_NAMES[last]}"
    return names
