"""The keys of the optimizer, its schedule, the loss and the teacher."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional, Tuple

from ..configs.parser import FieldError, Section, key


@dataclass(frozen=True)
class OptimConfig(Section):
    """How the weights are updated."""

    optimizer: str = key(
        "adamw",
        "optimizer",
        choices={
            "adamw": "",
            "adamweightdecay": "AdamW without bias correction, MindSpore's own",
            "sgd": "with Nesterov momentum",
            "momentum": "",
            "lamb": "",
            "lion": "",
        },
    )
    base_lr: float = key(0.0005, "peak learning rate", range=">= 0", also="--lr")
    lr_base_batch: Optional[int] = key(
        None,
        "batch over all devices that base_lr is meant for: base_lr is scaled by the actual "
        "batch / lr_base_batch, warmup_lr and min_lr are not",
        special="null: base_lr is taken as it is",
        range=">= 1",
    )
    weight_decay: float = key(
        0.05,
        "weight decay: decoupled, except for sgd and momentum (L2) and lamb (part of the "
        "update); one-dimensional parameters have none",
        range=">= 0",
        also="--wd",
    )
    layer_decay: Optional[float] = key(
        None,
        "factor of the learning rate from each layer group to the one before it; the head has "
        "factor 1",
        special="null: one rate for all",
        range="(0, 1]",
    )
    freeze: str = key(
        "none",
        "weights that keep their values; their layers compute as in evaluation: norms by their "
        "running statistics, without dropout and stochastic depth",
        special="none; backbone: all but the classifier, a linear probe; a number N: the first N "
        "layer groups, counted from the stem as for layer_decay",
    )
    beta: Tuple[float, float] = key(
        (0.9, 0.999), "decay of the two moments; sgd and momentum do not use it", range="[0, 1)"
    )
    eps: float = key(
        1e-08,
        "adamw, adamweightdecay, lamb: added to the square root of the second moment",
        range="> 0",
    )
    momentum: float = key(0.9, "sgd, momentum: decay of the velocity", range="[0, 1)")

    # The schedule.
    lr_scheduler: str = key(
        "cosine_lr",
        "learning-rate schedule; cosine_lr and linear_lr end at min_lr",
        choices={
            "cosine_lr": "",
            "linear_lr": "",
            "step_lr": "",
            "multistep_lr": "",
            "exponential_lr": "",
            "constant_lr": "",
            "one_cycle_lr": "ConvMixer's",
        },
    )
    lr_per_epoch: bool = key(False, "keep the learning rate constant within an epoch")
    warmup_lr: float = key(
        1e-06, "learning rate of the first step when there is a warmup", range=">= 0"
    )
    min_lr: float = key(1e-05, "cosine_lr, linear_lr: learning rate at the end", range=">= 0")
    warmup_length: int = key(0, "epochs of linear warmup", range=">= 0")
    warmup_mode: str = key(
        "replace",
        "place of the warmup",
        choices={
            "replace": "it replaces the beginning of the schedule",
            "prefix": "it comes before the schedule's `epochs`",
            "shift": "it takes the first of the `epochs`, and the whole schedule runs in the rest",
        },
    )
    cooldown_epochs: int = key(
        0, "further epochs at the schedule's last learning rate", range="[0, 100000]"
    )
    lr_cycles: int = key(
        1, "cosine_lr, linear_lr: how often the schedule of `epochs` runs", range="[1, 10000]"
    )
    lr_cycle_decay: float = key(
        1.0, "factor of the peak learning rate from one cycle to the next", range="(0, 1]"
    )
    decay_epochs: float = key(
        30.0,
        "step_lr, exponential_lr: epochs in which the learning rate falls to decay_rate of "
        "what it was",
        range="> 0",
    )
    decay_rate: float = key(
        0.1, "step_lr, multistep_lr, exponential_lr: factor of the learning rate", range="(0, 1]"
    )
    milestones: Tuple[float, ...] = key(
        (90.0, 180.0, 270.0),
        "multistep_lr: epochs at which the learning rate falls, in rising order",
        range="> 0",
    )

    # The gradient.
    clip_global_norm_value: Optional[float] = key(
        None,
        "gradient clipping: limit of what clip_mode names",
        special="null: no clipping",
        range="> 0",
    )
    clip_mode: str = key(
        "norm",
        "gradient clipping: what is limited",
        choices={
            "norm": "the global norm",
            "value": "every element",
            "adaptive": "the norm of each unit, as a factor of the norm of its weights",
        },
    )

    # The loss.
    criterion: str = key(
        "cross_entropy",
        "loss function",
        choices={"cross_entropy": "", "bce": "binary cross-entropy, every class on its own"},
    )
    bce_target_thresh: Optional[float] = key(
        None,
        "bce: targets above it count as 1, all others as 0",
        special="null: targets stay soft",
        range="[0, 1)",
    )
    bce_sum: bool = key(False, "bce: sum over the classes instead of their mean")
    class_weights: Optional[str] = key(
        None,
        "cross_entropy: how much each class weighs in the loss, which becomes a weighted mean over "
        "the batch: balanced, the inverse of its share of the images, as in scikit-learn; or a "
        "file with a line CLASS,WEIGHT for each class",
        special="null: all the same",
        input_url=True,
    )
    distillation_type: str = key(
        "none",
        "what the loss takes from a teacher",
        choices={"none": "nothing", "soft": "its logits", "hard": "its predicted class"},
    )
    distillation_alpha: float = key(
        0.5, "distillation: weight of the teacher's part of the loss", range="[0, 1]"
    )
    distillation_tau: float = key(1.0, "soft distillation: temperature", range="> 0")
    teacher_arch: Optional[str] = key(None, "distillation: architecture of the teacher")
    teacher_pretrained: Optional[str] = key(
        None,
        "distillation: checkpoint of the teacher, or a name of published weights as for pretrained",
        input_url=True,
    )

    def __post_init__(self) -> None:
        if type(self.freeze) is int:
            object.__setattr__(self, "freeze", str(self.freeze))
        if not re.fullmatch("none|backbone|[1-9][0-9]{0,5}", str(self.freeze)):
            raise FieldError(
                ["freeze"], self.freeze, "none, backbone, or a number of layer groups such as 3"
            )
        super().__post_init__()

    def check_training(self) -> None:
        self._check_schedule()
        if self.class_weights is not None and self.criterion != "cross_entropy":
            raise FieldError(
                ["class_weights", "criterion"],
                self.class_weights,
                f"null with criterion {self.criterion}; cross_entropy has class weights",
            )
        for needed in ("teacher_arch", "teacher_pretrained"):
            if self.distillation_type != "none" and getattr(self, needed) is None:
                raise FieldError(
                    ["distillation_type", needed], self.distillation_type, f"none, or give {needed}"
                )

    def _check_schedule(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise FieldError(["milestones"], self.milestones, "epochs in rising order")
        if self.lr_cycles > 1 and self.lr_scheduler not in ("cosine_lr", "linear_lr"):
            raise FieldError(
                ["lr_cycles", "lr_scheduler"],
                self.lr_cycles,
                f"1 with lr_scheduler {self.lr_scheduler}; cosine_lr and linear_lr have cycles",
            )
        # It has a warmup of its own, and is made of steps.
        if self.lr_scheduler == "one_cycle_lr" and (self.warmup_length or self.lr_per_epoch):
            raise FieldError(
                ["lr_scheduler", "warmup_length", "lr_per_epoch"],
                self.lr_scheduler,
                "one_cycle_lr with warmup_length 0 and lr_per_epoch false; these are "
                f"{self.warmup_length} and {str(self.lr_per_epoch).lower()}",
            )
