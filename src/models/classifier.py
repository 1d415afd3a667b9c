"""The contract of all families: what programs know of a network beside its images and logits."""

from __future__ import annotations

import re
from functools import reduce
from types import SimpleNamespace
from typing import Dict, List, NamedTuple, Sequence, Set, Tuple, Union

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..errors import UserError

# Numbers of layers, from 0, negative ones from the end; or so many of the last; None: all.
Layers = Union[None, int, Sequence[int]]


class FeatureInfo(NamedTuple):
    """A map that a layer gives, in timm's words.

    Attributes:
        num_chs: channels.
        reduction: side of the image / side of the map.
    """

    num_chs: int
    reduction: int


class Classifier(nn.Cell):
    """An image classifier, (B, in_chans, H, W) float -> (B, num_classes) logits.

    Every family's constructor takes `num_classes, in_chans, img_size, drop_path_rate,
    nonlinearity` as keywords, beside its own, sets `num_features` and calls `reset_classifier`.

    Attributes:
        num_features: C of the pooled features (B, C), which the classifier reads.
        num_classes: 0: the network has no classifier, and its output is the pooled features.
        classifier_layers: paths of the layers that know the number of classes.
        head_norm: path of the last norm, where weights without classifier may lack it too; "": no.
        num_prefix_tokens: tokens before the patches.
        num_prefix_positions: so many positions precede those of the patches.
        position_table: name of the parameter (1, N, C) with the tokens' positions; "": none.
        position_filter: how the authors resize it for another grid, `bicubic` or `bilinear`.
        has_attention_maps: `attention_maps` can be called.
        frozen_features: whose layers before the head stay in evaluation mode while it trains:
            `none`, `some` or `all` of them.
    """

    num_features: int
    num_classes: int
    classifier_layers: Tuple[str, ...] = ("head",)
    head_norm: str = ""
    num_prefix_tokens: int = 0
    position_table: str = ""
    position_filter: str = ""
    has_attention_maps: bool = False
    frozen_features: str = "none"

    @property
    def num_prefix_positions(self) -> int:
        return self.num_prefix_tokens

    def forward_features(self, x: Tensor) -> Tensor:
        """Everything before pooling: images (B, in_chans, H, W) -> the family's feature map.

        (B, C, h, w), or (B, N, C) with the prefix tokens first.
        """
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooling and classification: the feature map -> (B, num_classes).

        Args:
            pre_logits: stop before the classifier: -> (B, num_features).
        """
        raise NotImplementedError

    def construct(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    @property
    def feature_info(self) -> Tuple[FeatureInfo, ...]:
        """The maps of `layer_maps`."""
        raise NotImplementedError

    def layer_maps(self, x: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        """`forward_features`, and what every layer gives on the way, before a last norm.

        Layers are stages, or blocks in families without stages.

        Returns:
            From images (B, in_chans, H, W): the features, and a map (B, C, h, w) for each layer,
            without prefix tokens.
        """
        raise NotImplementedError

    def forward_intermediates(
        self, x: Tensor, layers: Layers = None
    ) -> Tuple[Tensor, List[Tensor]]:
        """`forward_features`, and the maps of some layers, as timm's.

        Within another cell's `construct` use `FeatureMaps`.

        Args:
            x: (B, in_chans, H, W).
            layers: whose maps.

        Returns:
            The features, and maps (B, C, h, w) in the order of the layers.

        Raises:
            UserError: there is no such layer.
        """
        chosen = self.layer_numbers(layers)
        features, maps = self.layer_maps(x)
        return features, [maps[layer] for layer in chosen]

    def layer_numbers(self, layers: Layers) -> List[int]:
        """The numbers that `layers` stands for, from 0, in order.

        Raises:
            UserError: there is no such layer.
        """
        count = len(self.feature_info)
        if isinstance(layers, int):
            is_right, numbers = 0 < layers <= count, list(range(count - layers, count))
        else:
            numbers = list(range(count) if layers is None else layers)
            is_right = bool(numbers) and all(-count <= layer < count for layer in numbers)
        if not is_right:
            raise UserError(
                f"layers {layers}: expected a list of numbers from {-count} to {count - 1}, or one "
                f"number from 1 to {count} for so many of the last"
            )
        return sorted({layer % count for layer in numbers})

    def attention_maps(self, x: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
        """How the tokens look at each other, in families where all do in every layer.

        Returns:
            From images (B, in_chans, H, W): of every layer (B, N, N), the mean of the heads'
            softmax; and (B, N) or (1, N), the share of each token in the pooled features.
        """
        raise NotImplementedError

    @classmethod
    def count_macs(cls, model: SimpleNamespace) -> int:
        """Multiply-accumulates for one image, counted as `macs.py` says.

        Args:
            model: every keyword of the constructor.
        """
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a freshly initialised one for `num_classes`; 0: by none.

        For a bare network: cells that hold it already, and have been compiled, keep the old layer.
        """
        self.num_classes = num_classes
        for path in self.classifier_layers:
            *above, name = path.split(".")
            layer = self._create_classifier(num_classes) if num_classes else nn.Identity()
            setattr(reduce(getattr, above, self), name, layer)
        # A cell assigned below the root carries the names of its own level only.
        for name, parameter in self.parameters_and_names():
            parameter.name = name
        # In graph mode calls would go on using the graph of the old layer.
        self.compile_cache.clear()

    def no_weight_decay(self) -> Set[str]:
        """Names of parameters that never decay, besides vectors, which never do anyway."""
        return set()

    def pointwise_convs(self) -> Set[str]:
        """Names of weights (C', C) that the reference has as 1x1 convolutions, (C', C, 1, 1)."""
        return set()

    def layer_groups(self) -> List[List[str]]:
        """Names of the trainable parameters by depth, from the stem to the head.

        For learning rates that decay from layer to layer (Clark et al. 2020, section 3.2).
        """
        layers = {p.name: self._layer_of(p.name) for p in self.trainable_params()}
        depth = max(layers.values()) + 1
        return [[name for name in layers if layers[name] == layer] for layer in range(depth)]

    def block_cells(self) -> List[nn.Cell]:
        """The repeated blocks, those of the first stage first: a family calls them `blocks`."""
        found: Dict[str, nn.Cell] = {}
        for path, cell in self.cells_and_names():
            *above, last = path.split(".")
            is_inside = any(path.startswith(f"{block}.") for block in found)
            is_numbered = "blocks" in above and re.fullmatch("[0-9]+", last)
            if is_numbered and not is_inside and not isinstance(cell, nn.CellList):
                found[path] = cell
        return list(found.values())

    def _create_classifier(self, num_classes: int) -> nn.Cell:
        """(B, num_features) -> (B, num_classes), freshly initialised."""
        raise NotImplementedError

    def _layer_of(self, name: str) -> int:
        """Number of the group a parameter belongs to, 0 for the stem."""
        raise NotImplementedError


def equal_shares(x: Tensor, count: int) -> Tensor:
    """Tokens (B, N, C) -> (1, N) float32, 1 / `count` for the first `count`, 0 for the others."""
    shares = ops.ones((1, count), ms.float32) / count
    if count < x.shape[1]:
        shares = ops.concat((shares, ops.zeros((1, x.shape[1] - count), ms.float32)), axis=1)
    return shares


def tokens_as_map(x: Tensor, num_prefix_tokens: int, side: int) -> Tensor:
    """Tokens (B, N, C), the prefix first -> (B, C, side, side)."""
    x = x[:, num_prefix_tokens:]
    x = x.reshape(x.shape[0], side, side, x.shape[2])
    return x.transpose(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)


def check_img_size(img_size: int, stride: int) -> None:
    """Refuses an image side that the total stride does not divide.

    Raises:
        ValueError: `img_size` is not a positive multiple of `stride`.
    """
    if img_size < stride or img_size % stride:
        nearest = max(1, round(img_size / stride)) * stride
        raise ValueError(
            f"image_size {img_size}: expected a multiple of {stride}, such as {nearest} (img_size "
            "in Python)"
        )
