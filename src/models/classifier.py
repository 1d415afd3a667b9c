"""The contract of all five families."""

from __future__ import annotations

from typing import List, Set

from mindspore import Tensor, nn


class Classifier(nn.Cell):
    """An image classifier, (B, in_chans, H, W) float -> (B, num_classes) logits.

    Every family's constructor takes `num_classes, in_chans, img_size, drop_path_rate,
    nonlinearity` as keywords, beside its own.
    """

    def forward_features(self, x: Tensor) -> Tensor:
        """Everything before pooling: images (B, in_chans, H, W) -> the family's feature map."""
        raise NotImplementedError

    def forward_head(self, x: Tensor) -> Tensor:
        """Pooling and classification: the feature map -> (B, num_classes)."""
        raise NotImplementedError

    def construct(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a freshly initialised one for `num_classes`.

        For a bare network: cells that hold it already, and have been compiled, keep the old layer.
        """
        self._create_head(num_classes)
        # A cell assigned below the root carries the names of its own level only.
        for name, parameter in self.parameters_and_names():
            parameter.name = name
        # In graph mode calls would go on using the graph of the old layer.
        self.compile_cache.clear()

    def no_weight_decay(self) -> Set[str]:
        """Names of parameters that never decay, besides vectors, which never do anyway."""
        return set()

    def layer_groups(self) -> List[List[str]]:
        """Names of the trainable parameters by depth, from the stem to the head.

        For learning rates that decay from layer to layer (Clark et al. 2020, section 3.2).
        """
        layers = {p.name: self._layer_of(p.name) for p in self.trainable_params()}
        depth = max(layers.values()) + 1
        return [[name for name in layers if layers[name] == layer] for layer in range(depth)]

    def _create_head(self, num_classes: int) -> None:
        raise NotImplementedError

    def _layer_of(self, name: str) -> int:
        """Number of the group a parameter belongs to, 0 for the stem."""
        raise NotImplementedError


def check_img_size(img_size: int, stride: int) -> None:
    """Refuses an image side that the total stride does not divide.

    Raises:
        ValueError: `img_size` is not a positive multiple of `stride`.
    """
    if img_size < stride or img_size % stride:
        nearest = max(1, round(img_size / stride)) * stride
        raise ValueError(f"img_size {img_size}: expected a multiple of {stride}, such as {nearest}")
