"""The keys of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..configs.parser import Section, key


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which network is built."""

    arch: str = key(
        "cct_2_3x2_32",
        "name of the architecture; scripts/list_models.py lists all; without it, the "
        "architecture of the pretrained weights",
        also="-a",
        network=True,
    )
    num_classes: int = key(
        0,
        "number of classes",
        special="0: as many as the data folder has (eval.py, predict.py: as the weights have)",
        range="[0, 1000000]",
        network=True,
    )
    image_size: int = key(
        0,
        "side of the square input image, pixels",
        special="0: the architecture's own size",
        range="[0, 4096]",
        network=True,
    )
    in_chans: int = key(
        3,
        "channels of the images; the first layer of weights for 3 is adapted to them",
        choices={1: "grey", 3: "RGB", 4: "RGB and opacity"},
        network=True,
    )
    drop_path_rate: Optional[float] = key(
        None,
        "stochastic depth: drop rate of the last block, from which it falls linearly to 0 at "
        "the first",
        special="null: the architecture's own rate",
        range="[0, 1)",
    )
    nonlinearity: Optional[str] = key(
        None,
        "activation function of the blocks",
        special="null: the architecture's own",
        choices=("GELU", "ReLU", "GELU_tanh", "SiLU"),
        network=True,
    )
    model_args: Dict[str, Any] = key(
        {},
        "further keywords of the architecture; docs/models lists those of each family",
        network=True,
    )
    pretrained: Optional[str] = key(
        None,
        "weights loaded before training: a checkpoint, or the name of published weights "
        "(scripts/list_models.py --pretrained lists them); eval.py and predict.py also take a "
        "file of export.py, and eval.py a pattern of files such as 'outputs/*/best.ckpt'",
        free=True,
        input_url=True,
    )
