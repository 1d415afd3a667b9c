"""ImageNet classifiers on MindSpore: networks, recipes, input pipeline and training step.

The names below are imported when they are first asked for: importing the package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Dict, List

if TYPE_CHECKING:
    from .args import RunConfig, parse_args
    from .configs.recipes import list_recipes, recipe
    from .data.imagenet import create_dataset
    from .errors import UserError
    from .models.registry import create_model, list_models
    from .optim.schedulers import create_lr_schedule
    from .runtime.device import setup_device
    from .trainer.build import build_eval_net, build_network, build_train_step
    from .trainer.evaluate import evaluate
    from .trainer.open_checkpoint import open_checkpoint

__version__ = "0.2.0"

__all__: List[str] = [
    "RunConfig",
    "UserError",
    "build_eval_net",
    "build_network",
    "build_train_step",
    "create_dataset",
    "create_lr_schedule",
    "create_model",
    "evaluate",
    "list_models",
    "list_recipes",
    "open_checkpoint",
    "parse_args",
    "recipe",
    "setup_device",
]

_HOMES: Dict[str, str] = {
    "RunConfig": ".args",
    "UserError": ".errors",
    "build_eval_net": ".trainer.build",
    "build_network": ".trainer.build",
    "build_train_step": ".trainer.build",
    "create_dataset": ".data.imagenet",
    "create_lr_schedule": ".optim.schedulers",
    "create_model": ".models.registry",
    "evaluate": ".trainer.evaluate",
    "list_models": ".models.registry",
    "list_recipes": ".configs.recipes",
    "open_checkpoint": ".trainer.open_checkpoint",
    "parse_args": ".args",
    "recipe": ".configs.recipes",
    "setup_device": ".runtime.device",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> List[str]:
    return sorted([*globals(), *__all__])
