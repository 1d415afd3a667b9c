"""The keys of a training run, and of the device it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..configs.parser import FieldError, Section, key


@dataclass(frozen=True)
class TrainConfig(Section):
    """The training run: its length, its step, what is kept of it."""

    epochs: int = key(300, "epochs of the schedule", range="[0, 100000]")
    seed: int = key(1, "random seed of weights, image order, augmentation and mixing", range=">= 0")

    # Mixed precision.
    amp_level: str = key(
        "O0",
        "mixed precision: what is computed in amp_dtype",
        choices={
            "O0": "nothing",
            "O1": "matrix products and convolutions",
            "O2": "all but norms, softmax and GELU",
            "O3": "all",
            "auto": "O0 on CPU, else O2",
        },
        special="O1 to O3 in a recipe are meant for an accelerator: a CPU takes O0, unless the "
        "command line says otherwise",
    )
    amp_dtype: str = key(
        "float16",
        "half-precision type",
        choices={"float16": "", "bfloat16": "Ascend only, not 910A"},
    )
    keep_bn_fp32: bool = key(True, "O2: keep BatchNorm in float32")
    is_dynamic_loss_scale: bool = key(
        True, "adapt the loss scale during training", special="false: it stays at loss_scale"
    )
    loss_scale: Optional[float] = key(
        None,
        "initial loss scale; used with float16 only",
        special="null: 4096 on Ascend, otherwise 65536",
        range=">= 1",
    )
    loss_scale_factor: float = key(
        2.0,
        "dynamic loss scale: factor by which it grows, and by which an overflow reduces it",
        range="> 1",
    )
    loss_scale_window: Optional[int] = key(
        None,
        "dynamic loss scale: steps with finite gradients before it grows",
        special="null: 1000 on Ascend, otherwise 2000",
        range=">= 1",
    )
    max_overflows: int = key(
        20,
        "training stops with a report after this many steps in a row whose gradient is not finite",
        range=">= 1",
        free=True,
    )

    # The step.
    accumulation_step: int = key(
        1,
        "gradient accumulation: batches whose gradients are averaged for one step",
        range="[1, 65536]",
    )
    recompute: bool = key(
        False,
        "compute the activations of each block again for the gradient instead of keeping them: a "
        "step takes less memory and more time",
        free=True,
    )
    with_ema: bool = key(False, "keep an exponential moving average (EMA) of the weights")
    ema_decay: float = key(0.9999, "EMA: decay per step", range="[0, 1)")
    ema_warmup: bool = key(False, "EMA: let the decay grow from 0 over the first steps")
    seeded_dropout: bool = key(
        True,
        "draw dropout from (seed, step), so that a resumed run is exact",
        special="false: the framework draws, whose generator is not saved; for a device on "
        "which that is much faster",
    )

    # What is kept.
    best_by: str = key(
        "raw",
        "weights whose score decides what best.ckpt is",
        choices={"raw": "those of the training itself", "ema": "their moving average"},
    )
    # Each is a line of SCORES in src/runs/scores.py too.
    best_metric: str = key(
        "top1",
        "score that decides what best.ckpt is, and when early_stop_epochs ends a run",
        choices={
            "top1": "",
            "macro_recall": "mean of the recalls of all classes",
            "loss": "that on val/; the lowest is the best",
            "map": "multi-label: mean average precision",
        },
    )
    early_stop_epochs: int = key(
        0,
        "training ends when so many epochs have brought no better score",
        special="0: it runs to the end of its schedule",
        range=">= 0",
        free=True,
    )
    train_url: Optional[str] = key(
        None,
        "folder of checkpoints and logs",
        special="null: ./outputs/<arch>; eval.py: beside the weights",
        also="--output_dir",
        free=True,
        output_url=True,
    )
    save_every: int = key(
        1, "epochs from one epoch_NNN.ckpt to the next", special="0: none", range=">= 0", free=True
    )
    save_steps: int = key(
        0,
        "steps from one save of last.ckpt to the next within an epoch",
        special="0: only at the end of an epoch",
        range=">= 0",
        free=True,
    )
    keep_checkpoint_max: int = key(
        3, "how many of the newest epoch_NNN.ckpt are kept", range=">= 1", free=True
    )
    eval_every: int = key(
        1,
        "epochs from one evaluation on val/ to the next",
        special="0: only after the last epoch",
        range=">= 0",
        free=True,
    )
    log_interval: int = key(
        10,
        "steps from one line of the log, and row of metrics.csv, to the next",
        range=">= 1",
        free=True,
    )
    resume: Optional[str] = key(
        None,
        "checkpoint to continue from; auto: train_url/last.ckpt if there is one",
        free=True,
        input_url=True,
    )
    take_over: bool = key(
        False,
        "write into train_url although another run seems to write there; that run ends at its "
        "next save",
        free=True,
    )
    allow_config_change: bool = key(
        False,
        "continue although the recipe or the data differ from those of the checkpoint",
        free=True,
    )
    allow_other_classes: bool = key(
        False,
        "go on although the class names of the data differ from those of the weights that are "
        "evaluated, resumed or used as teacher; with pretrained: keep the classifier of the "
        "weights too",
        free=True,
    )
    tensorboard: bool = key(
        False,
        "also write the rows of metrics.csv to train_url/tensorboard (needs the package "
        "tensorboard)",
        free=True,
    )

    # Instead of training.
    dry_run: bool = key(
        False,
        "only try the recipe: 2 steps, one evaluation batch, a checkpoint written and read; "
        "nothing is left behind",
        free=True,
    )
    profile: int = key(
        0,
        "instead of training: time this many steps part by part and write the times to "
        "train_url/profile",
        special="0: off",
        range="[0, 10000]",
        free=True,
    )
    ema: bool = key(False, "eval.py: evaluate the averaged weights of the checkpoint", free=True)

    def check_training(self) -> None:
        if self.best_by == "ema" and not self.with_ema:
            raise FieldError(["best_by", "with_ema"], self.best_by, "raw, or with_ema: True")
        if self.recompute and not self.seeded_dropout:
            raise FieldError(
                ["recompute", "seeded_dropout"],
                self.recompute,
                "false, or seeded_dropout true: the framework's dropout would draw anew",
            )
        if self.early_stop_epochs and not self.eval_every:
            raise FieldError(
                ["early_stop_epochs", "eval_every"],
                self.early_stop_epochs,
                "0 with eval_every 0; give --eval_every 1, so that each epoch is evaluated",
            )


@dataclass(frozen=True)
class RunConfig(Section):
    """Where the run takes place."""

    device_target: str = key("CPU", "kind of device", choices=("Ascend", "GPU", "CPU"), free=True)
    device_id: int = key(0, "number of the device on this host", range=">= 0", free=True)
    mode: str = key(
        "graph",
        "how MindSpore runs the network",
        choices={"graph": "compiled", "pynative": "operator by operator, for debugging"},
    )
    jit_level: Optional[str] = key(
        None,
        "how far MindSpore compiles graphs; MindSpore 2.3 or later",
        choices={
            "O0": "one operator after another",
            "O1": "with fused operators",
            "O2": "whole graphs by GE, on Ascend; MindSpore calls it deprecated",
        },
        special="null: MindSpore's choice, O2 on a first-generation Ascend 910, otherwise O0",
        free=True,
    )
    cpu_kernels: str = key(
        "auto",
        "what computes on a CPU",
        choices={
            "auto": "the first of the following that works",
            "native": "the repository's own C++ kernels, compiled at first use",
            "pure": "other MindSpore operators",
            "off": "MindSpore's standard cells; mode pynative and mixed precision have no others",
        },
        free=True,
    )
    run_modelarts: bool = key(
        False,
        "for a run on ModelArts: options of the platform that are no keys are ignored and "
        "listed, and files at URLs are copied to /cache",
        free=True,
    )
    cache_dir: Optional[str] = key(
        None,
        "local folder for what lies at URLs (data_url, train_url, pretrained, resume, ...)",
        special="null: /cache with run_modelarts, otherwise ./data/cache",
        free=True,
    )
    obs_endpoint: Optional[str] = key(
        None,
        "endpoint of obs:// and s3://, such as https://obs.cn-north-4.myhuaweicloud.com",
        special="null: AWS_ENDPOINT_URL of the environment",
        free=True,
    )
    debug: bool = key(False, "show the traceback of an error that the user can correct", free=True)

    def __post_init__(self) -> None:
        if self.cpu_kernels is False:
            object.__setattr__(self, "cpu_kernels", "off")  # which unquoted YAML takes for false
        super().__post_init__()
