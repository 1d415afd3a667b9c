"""The keys of a training run, and of the device it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..configs.parser import FieldError, Section, key


@dataclass(frozen=True)
class TrainConfig(Section):
    """The run over the data."""

    epochs: int = key(300, "epochs of the schedule", range="[0, 100000]")
    seed: int = key(1, "of weights, order, augmentation and mixing", range=">= 0")

    # Mixed precision.
    amp_level: str = key(
        "O0",
        "mixed precision: what computes in amp_dtype",
        choices={
            "O0": "nothing",
            "O1": "matrix products and convolutions",
            "O2": "all but norms, softmax and GELU",
            "O3": "all",
            "auto": "O0 on CPU, else O2",
        },
        special="a recipe's O1 to O3 are an accelerator's: O0 on CPU, unless the command line says",
    )
    amp_dtype: str = key(
        "float16", "half precision", choices={"float16": "", "bfloat16": "Ascend only, not 910A"}
    )
    keep_bn_fp32: bool = key(True, "O2: BatchNorm stays in float32")
    is_dynamic_loss_scale: bool = key(
        True, "adapt the loss scale", special="false: it stays at loss_scale"
    )
    loss_scale: Optional[float] = key(
        None,
        "initial loss scale (with float16 only)",
        special="null: 4096 on Ascend, else 65536",
        range=">= 1",
    )
    loss_scale_factor: float = key(
        2.0, "dynamic loss scale: factor of growth, and of reduction on overflow", range="> 1"
    )
    loss_scale_window: Optional[int] = key(
        None,
        "dynamic loss scale: finite steps before it grows",
        special="null: 1000 on Ascend, else 2000",
        range=">= 1",
    )
    max_overflows: int = key(
        20,
        "steps in a row whose gradient is not finite before training stops with a report",
        range=">= 1",
        free=True,
    )

    # The step.
    accumulation_step: int = key(
        1, "batches whose gradients are averaged for one step", range="[1, 65536]"
    )
    with_ema: bool = key(False, "keep an exponential moving average of the weights")
    ema_decay: float = key(0.9999, "decay of that average per step", range="[0, 1)")
    ema_warmup: bool = key(False, "let that decay grow from 0 over the first steps")
    seeded_dropout: bool = key(
        True,
        "dropout drawn from (seed, step): a resumed run is exact",
        special="false: by the framework's own generator, which forgets its place (for a device "
        "on which it is much faster)",
    )

    # What is kept.
    best_by: str = key(
        "raw", "weights whose top-1 decides what best.ckpt is", choices=("raw", "ema")
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
        1, "epochs between epoch_NNN.ckpt", special="0: none", range=">= 0", free=True
    )
    save_steps: int = key(
        0,
        "steps between saves of last.ckpt within an epoch",
        special="0: at its end only",
        range=">= 0",
        free=True,
    )
    keep_checkpoint_max: int = key(
        3, "newest epoch_NNN.ckpt that are kept", range=">= 1", free=True
    )
    eval_every: int = key(
        1,
        "epochs between evaluations on val/",
        special="0: only after the last epoch",
        range=">= 0",
        free=True,
    )
    log_interval: int = key(
        10, "steps between lines of the log and rows of metrics.csv", range=">= 1", free=True
    )
    resume: Optional[str] = key(
        None,
        "checkpoint to continue from, or auto: train_url/last.ckpt when there is one",
        free=True,
        input_url=True,
    )
    take_over: bool = key(
        False,
        "write into train_url although another run seems to; that one ends at its next save",
        free=True,
    )
    allow_config_change: bool = key(
        False, "continue although recipe or data differ from those of the checkpoint", free=True
    )
    allow_other_classes: bool = key(
        False,
        "go on although the classes of the data are called otherwise than those of the weights "
        "that are evaluated, resumed or taught by; pretrained: keep their classifier too",
        free=True,
    )
    tensorboard: bool = key(
        False,
        "write the rows of metrics.csv to train_url/tensorboard too (needs the package "
        "tensorboard)",
        free=True,
    )

    # Instead of training.
    dry_run: bool = key(
        False,
        "try the recipe: 2 steps, an evaluation batch, a checkpoint there and back; leaves nothing",
        free=True,
    )
    profile: int = key(
        0,
        "instead of training, this many steps timed part by part, into train_url/profile",
        special="0: off",
        range="[0, 10000]",
        free=True,
    )
    ema: bool = key(False, "eval.py: use the averaged weights of the checkpoint", free=True)

    def check_training(self) -> None:
        if self.best_by == "ema" and not self.with_ema:
            raise FieldError(["best_by", "with_ema"], self.best_by, "raw, or with_ema: True")


@dataclass(frozen=True)
class RunConfig(Section):
    """Where it runs."""

    device_target: str = key("CPU", "kind of device", choices=("Ascend", "GPU", "CPU"), free=True)
    device_id: int = key(0, "number of the device on this host", range=">= 0", free=True)
    mode: str = key(
        "graph",
        "how MindSpore runs the network",
        choices={"graph": "compiled", "pynative": "for debugging"},
    )
    jit_level: Optional[str] = key(
        None,
        "how far MindSpore compiles graphs; from MindSpore 2.3 on",
        choices={
            "O0": "one operator after another",
            "O1": "with fused operators",
            "O2": "whole graphs by GE, on Ascend; MindSpore calls it deprecated",
        },
        special="null: MindSpore's choice, O2 on a first-generation Ascend 910, else O0",
        free=True,
    )
    cpu_kernels: str = key(
        "auto",
        "what computes on CPU",
        choices={
            "auto": "the first of the following that works",
            "native": "own C++ kernels, compiled at first use",
            "pure": "other MindSpore operators",
            "off": "MindSpore's standard cells; mode pynative and mixed precision have no others",
        },
        free=True,
    )
    run_modelarts: bool = key(
        False,
        "running on ModelArts: options of the platform that are no keys are ignored (and listed), "
        "and URLs are staged to /cache",
        free=True,
    )
    cache_dir: Optional[str] = key(
        None,
        "folder that URLs (data_url, train_url, pretrained, resume, ...) are staged to",
        special="null: /cache with run_modelarts, else ./data/cache",
        free=True,
    )
    obs_endpoint: Optional[str] = key(
        None,
        "endpoint of obs:// and s3://, such as https://obs.cn-north-4.myhuaweicloud.com",
        special="null: AWS_ENDPOINT_URL of the environment",
        free=True,
    )
    debug: bool = key(False, "show the traceback of an error the user can mend", free=True)

    def __post_init__(self) -> None:
        if self.cpu_kernels is False:
            object.__setattr__(self, "cpu_kernels", "off")  # which unquoted YAML takes for false
        super().__post_init__()
