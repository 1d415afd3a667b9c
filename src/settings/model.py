"""The keys of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..configs.parser import Section, key


@dataclass(frozen=True)
class ModelConfig(Section):
    """What network is built."""

    arch: str = key(
        "cct_2_3x2_32",
        "architecture name, scripts/list_models.py lists all; without it that of the pretrained "
        "weights",
        also="-a",
        network=True,
    )
    num_classes: int = key(
        0,
        "classes of the classifier",
        special="0: as many as the data folder (eval.py, predict.py: the weights) has",
        range="[0, 1000000]",
        network=True,
    )
    image_size: int = key(
        0,
        "side of the square input, pixels",
        special="0: the architecture's own",
        range="[0, 4096]",
        network=True,
    )
    drop_path_rate: Optional[float] = key(
        None,
        "stochastic depth of the last block",
        special="null: the architecture's own",
        range="[0, 1)",
    )
    nonlinearity: Optional[str] = key(
        None,
        "activation of the blocks",
        special="null: the architecture's own",
        choices=("GELU", "ReLU", "GELU_tanh", "SiLU"),
        network=True,
    )
    model_args: Dict[str, Any] = key(
        {}, "further constructor keywords of the architecture", network=True
    )
    pretrained: Optional[str] = key(
        None,
        "checkpoint whose weights are loaded before training, or the name of published ones "
        "(scripts/list_models.py --pretrained); for eval.py and predict.py also a network of "
        "export.py",
        free=True,
        input_url=True,
    )
