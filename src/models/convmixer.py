"""ConvMixer: Patches Are All You Need? (Trockman and Kolter 2022).

Legend: B batch, H W image size, p patch size, C dim. Maps have the layout that suits the device.
Parameter names are timm's but for the norms' gamma, beta, moving_mean and moving_variance.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .classifier import Classifier, check_img_size
from .layers.conv_mixer_block import ConvMixerBlock, ConvMixerBlocks, uniform_init
from .layers.global_pool import GlobalAveragePool
from .layers.layout import NCHW, Relayout, preferred_layout
from .layers.norm import create_activation_and_norm
from .layers.patch_embed import PatchConv


class ConvMixer(Classifier):
    """Patch embedding and `depth` equal blocks (section 2, figure 2).

    Args:
        drop_path_rate: stochastic depth of the last block's residual branch, growing linearly from
            0. Not in the paper, whose models have none; the model zoo's recipe sets it.
        img_size: for the check only; every multiple of `patch_size` gives the same parameters.

    Raises:
        ValueError: `img_size` is not a multiple of `patch_size`.
    """

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        kernel_size: int,
        patch_size: int,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        nonlinearity: str = "GELU",
    ) -> None:
        super().__init__()
        check_img_size(img_size, patch_size)
        self.dim, self.depth = dim, depth
        layout = preferred_layout()
        fan_in = in_chans * patch_size**2
        patches = PatchConv(
            in_chans,
            dim,
            patch_size,
            in_layout=NCHW,
            out_layout=layout,
            weight_init=uniform_init(fan_in),
            bias_init=uniform_init(fan_in),
        )
        activation, norm = create_activation_and_norm(nonlinearity, dim, layout=layout)
        self.stem = nn.SequentialCell(patches, activation, norm)
        self.blocks = ConvMixerBlocks(
            [
                ConvMixerBlock(
                    dim,
                    kernel_size=kernel_size,
                    drop_path=float(rate),
                    nonlinearity=nonlinearity,
                    layout=layout,
                )
                for rate in np.linspace(0.0, drop_path_rate, depth)
            ],
            first_norm=norm,
        )
        self.to_map = Relayout(layout, NCHW)
        self.pool = GlobalAveragePool()
        self._create_head(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H/p, W/p)."""
        if self.blocks.native is not None and self.training and x.dtype == ms.float32:
            x = self.blocks.with_first_norm(self.stem[0](x))
        else:
            x = self.blocks(self.stem(x))
        return self.to_map(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, C, H/p, W/p) -> (B, num_classes)."""
        return self.head(self.pool(x))  # (B, C, H/p, W/p) -> (B, C)

    def _create_head(self, num_classes: int) -> None:
        self.head = nn.Dense(
            self.dim,
            num_classes,
            weight_init=uniform_init(self.dim),
            bias_init=uniform_init(self.dim),
        )

    def _layer_of(self, name: str) -> int:
        part, index = name.split(".")[:2]
        if part == "blocks":
            return int(index) + 1
        return 0 if part == "stem" else self.depth + 1


VARIANTS = {
    "convmixer_1536_20": (
        ConvMixer,
        {"dim": 1536, "depth": 20, "kernel_size": 9, "patch_size": 7},
    ),
    "convmixer_1536_20_ks3_p7": (
        ConvMixer,
        {"dim": 1536, "depth": 20, "kernel_size": 3, "patch_size": 7},
    ),
    "convmixer_1024_20_ks9_p14": (
        ConvMixer,
        {"dim": 1024, "depth": 20, "kernel_size": 9, "patch_size": 14},
    ),
    "convmixer_768_32": (
        ConvMixer,
        {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "nonlinearity": "ReLU"},
    ),
}
