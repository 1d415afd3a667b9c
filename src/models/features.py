"""A network's maps for another head: detection, segmentation, or whatever reads several scales."""

from __future__ import annotations

from typing import Tuple

from mindspore import Tensor, nn

from .classifier import Classifier, Layers

# Layers of families without stages whose maps are given where nobody says which, as timm does.
_LAST_BLOCKS = 3


class FeatureMaps(nn.Cell):
    """Maps of some layers, images (B, in_chans, H, W) -> a tuple of maps (B, C, h, w).

    Args:
        network: best one without classifier (`num_classes=0`), whose head takes no part.
        layers: as of `Classifier.forward_intermediates`; None: all stages, or the last 3 blocks.

    Attributes:
        layers: their numbers, in order.
        channels: C of each map.
        reduction: side of the image / side of the map, of each.

    Raises:
        UserError: there is no such layer.
    """

    def __init__(self, network: Classifier, layers: Layers = None) -> None:
        super().__init__(auto_prefix=False)
        info = network.feature_info
        if layers is None and len({one.reduction for one in info}) == 1:
            layers = min(_LAST_BLOCKS, len(info))
        self.network = network
        self.layers = tuple(network.layer_numbers(layers))
        self.channels = tuple(info[layer].num_chs for layer in self.layers)
        self.reduction = tuple(info[layer].reduction for layer in self.layers)

    def construct(self, x: Tensor) -> Tuple[Tensor, ...]:
        _, maps = self.network.layer_maps(x)
        chosen = ()
        for layer in self.layers:
            chosen = chosen + (maps[layer],)
        return chosen
