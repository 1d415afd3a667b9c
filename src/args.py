"""Every setting of the project: frozen dataclasses, and `parse_args` which fills them.

A YAML recipe is flat: each field below is one key. The comment above a field is its documentation,
which `--help` prints: meaning, unit, allowed values.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, List, NoReturn, Optional, Sequence, Tuple, Type, TypeVar

from .configs import parser
from .configs.parser import Entry, FieldError, check_choices, check_ranges, check_types
from .errors import UserError

# Other spellings on the command line: the model zoo's, and the customary short ones.
_ALIASES = {
    "--cct_config": "config",
    "--lr": "base_lr",
    "--wd": "weight_decay",
    "--output_dir": "train_url",
    "-a": "arch",
    "-b": "batch_size",
    "-j": "num_parallel_workers",
}
# Options that are no keys.
_CONFIG, _PRINT_CONFIG, _HELP = "config", "print_config", "help"
_RUN_MODELARTS = "run_modelarts"
# What the inference scripts of the model zoo call a `set`.
DATASET_NAMES = {
    "imagenet2012": "ImageNet",
    "imagenet": "ImageNet",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mindrecord": "MindRecord",
    "digits": "Digits",
}
# Mixing needs an even batch, which what only evaluates does not.
UNMIXED: Dict[str, Any] = {"mix_up": 0.0, "cutmix": 0.0, "cutmix_minmax": None}


AnyConfig = TypeVar("AnyConfig", bound="Config")


@dataclass(frozen=True)
class ModelConfig:
    """What network is built."""

    # architecture name, scripts/list_models.py lists all; without it that of the pretrained weights
    arch: str = "cct_2_3x2_32"
    # classes of the classifier; >= 0; 0: as many as the data folder (eval.py, predict.py: the
    # weights) has
    num_classes: int = 0
    # side of the square input, pixels; >= 0; 0: the architecture's own
    image_size: int = 0
    # stochastic depth of the last block; [0, 1); null: the architecture's own
    drop_path_rate: Optional[float] = None
    # activation of the blocks; GELU or ReLU; null: the architecture's own
    nonlinearity: Optional[str] = None
    # further constructor keywords of the architecture
    model_args: Dict[str, Any] = field(default_factory=dict)
    # checkpoint whose weights are loaded before training, or evaluated
    pretrained: Optional[str] = None

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, num_classes=">= 0", image_size=">= 0", drop_path_rate="[0, 1)")
        check_choices(self, nonlinearity=("GELU", "ReLU"))


@dataclass(frozen=True)
class DataConfig:
    """What the network sees."""

    # dataset; ImageNet (any folder of images, a folder for each class), CIFAR10, CIFAR100 (their
    # archives), MindRecord (written by scripts/pack_dataset.py) or Digits (ships with the
    # repository)
    set: str = "ImageNet"
    # dataset folder
    data_url: str = "./data/imagenet"
    # share of each class that is set aside for validation where data_url has class folders but
    # neither train/ nor val/; [0, 1); 0: refuse such a folder
    val_share: float = 0.0
    # images per device and step; >= 1
    batch_size: int = 128
    # threads (or processes) that prepare images; >= 1; clamped to the number of cores
    num_parallel_workers: int = 8
    # prepare images in processes instead of threads
    python_multiprocessing: bool = False
    # an image that cannot be read; raise (an error that names it) or skip (training takes the next
    # of the epoch, evaluation leaves it out; listed after the epoch; more than 1 % is an error)
    on_bad_image: str = "raise"
    # larger images are refused before they are unpacked (decompression bombs), width x height;
    # 1 to 178956970
    max_image_pixels: int = 178_956_970
    # turn photographs as their EXIF block says; timm does not
    exif_orientation: bool = False
    # filter of every resize; bilinear, bicubic or random (training only)
    interpolation: str = "bicubic"
    # area of the random crop, share of the image; 0 < low <= high <= 1
    scale: Tuple[float, float] = (0.08, 1.0)
    # aspect of the random crop, width / height; 0 < low <= high
    ratio: Tuple[float, float] = (0.75, 4.0 / 3.0)
    # probability of a horizontal flip; [0, 1]
    hflip: float = 0.5
    # probability of a vertical flip; [0, 1]
    vflip: float = 0.0
    # copies of each image in an epoch, augmented each in its own way; an epoch has as many steps
    # as without (DeiT: 3); >= 1
    repeated_aug: int = 1
    # evaluation: image_size / side after the resize; (0, 1]
    crop_pct: float = 0.875
    # evaluation: center (resize the shorter side) or squash (resize both sides)
    crop_mode: str = "center"
    # per channel, of images scaled to [0, 1]
    mean: Tuple[float, float, float] = (0.485, 0.456, 0.406)
    # per channel, of images scaled to [0, 1]; > 0
    std: Tuple[float, float, float] = (0.229, 0.224, 0.225)
    # policy: rand-..., augmix-..., original, originalr, v0, v0r, 3a or ta_wide, such as
    # rand-m9-mstd0.5-inc1; null: off
    auto_augment: Optional[str] = None
    # jitter of brightness, contrast, saturation, largest distance from 1, and maybe of hue, at most
    # 0.5 of the circle; none below 0; []: off; off too beside an auto_augment without 3a
    color_jitter: Tuple[float, ...] = ()
    # probability of that jitter; [0, 1]
    color_jitter_prob: float = 1.0
    # jitter beside any auto_augment
    force_color_jitter: bool = False
    # probability of a grey image; [0, 1]
    grayscale_prob: float = 0.0
    # probability of a blur by 0.1 to 2 pixels; [0, 1]
    gaussian_blur_prob: float = 0.0
    # random erasing: probability; [0, 1]
    re_prob: float = 0.0
    # random erasing: filling; const (mean colour), rand (colour per box) or pixel (noise)
    re_mode: str = "pixel"
    # random erasing: most boxes per image, which share the area; >= 1
    re_count: int = 1
    # random erasing: the first 1/re_split of each batch stays whole; >= 0; 0 or 1: nothing does
    re_split: int = 0
    # Mixup: alpha of Beta(alpha, alpha); >= 0; 0: off
    mix_up: float = 0.0
    # CutMix: alpha of Beta(alpha, alpha); >= 0; 0: off
    cutmix: float = 0.0
    # CutMix: sides of the box, share of the image's, instead of alpha; 0 <= low < high <= 1
    cutmix_minmax: Optional[Tuple[float, float]] = None
    # CutMix: label by the area that was pasted; false: by the area before the border clipped it
    correct_lam: bool = True
    # probability that a batch is mixed at all; [0, 1]
    mixup_prob: float = 1.0
    # probability of CutMix when both are on; [0, 1]
    switch_prob: float = 0.5
    # what shares one draw; batch, pair or elem
    mixup_mode: str = "batch"
    # first epoch without mixing, counted from 0; >= 0; 0: none
    mixup_off_epoch: int = 0
    # mass spread evenly over all classes; [0, 1)
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, batch_size=">= 1", num_parallel_workers=">= 1", crop_pct="(0, 1]")
        check_ranges(self, scale="(0, 1]", ratio="> 0", hflip="[0, 1]", std="> 0")
        check_ranges(self, val_share="[0, 1)", max_image_pixels="[1, 178956970]")
        check_ranges(self, re_prob="[0, 1]", re_count=">= 1", re_split=">= 0")
        check_ranges(self, vflip="[0, 1]", repeated_aug=">= 1", color_jitter=">= 0")
        check_ranges(self, color_jitter_prob="[0, 1]", grayscale_prob="[0, 1]")
        check_ranges(self, gaussian_blur_prob="[0, 1]", mixup_off_epoch=">= 0")
        check_ranges(self, mix_up=">= 0", cutmix=">= 0", cutmix_minmax="[0, 1]")
        check_ranges(self, mixup_prob="[0, 1]", switch_prob="[0, 1]", label_smoothing="[0, 1)")
        check_choices(
            self,
            set=("ImageNet", "CIFAR10", "CIFAR100", "MindRecord", "Digits"),
            on_bad_image=("raise", "skip"),
            interpolation=("bilinear", "bicubic", "random"),
            crop_mode=("center", "squash"),
            re_mode=("const", "rand", "pixel"),
            mixup_mode=("batch", "pair", "elem"),
        )
        for key in ("scale", "ratio"):
            low, high = getattr(self, key)
            if low > high:
                raise FieldError([key], (low, high), "low <= high")
        if len(self.color_jitter) not in (0, 3, 4) or max(self.color_jitter[3:], default=0) > 0.5:
            raise FieldError(["color_jitter"], self.color_jitter, "[], 3 numbers, or 4; hue <= 0.5")
        self._check_mixing()

    def _check_mixing(self) -> None:
        low, high = self.cutmix_minmax or (0.0, 1.0)
        if low >= high:
            raise FieldError(["cutmix_minmax"], (low, high), "low < high")
        # Images are mixed with their partner from the other half of the batch.
        is_mixed = self.mix_up > 0 or self.cutmix > 0 or self.cutmix_minmax is not None
        if is_mixed and self.batch_size % 2:
            raise FieldError(
                ["batch_size", "mix_up", "cutmix"],
                self.batch_size,
                "an even batch_size, or mix_up 0 and cutmix 0; these are "
                f"{self.batch_size}, {self.mix_up} and {self.cutmix}",
            )


@dataclass(frozen=True)
class OptimConfig:
    """How weights are updated."""

    # adamw, adamweightdecay (AdamW without bias correction: MindSpore's), sgd (with Nesterov
    # momentum), momentum, lamb or lion
    optimizer: str = "adamw"
    # peak learning rate; >= 0
    base_lr: float = 0.0005
    # batch over all devices that base_lr is meant for: base_lr grows in proportion to the actual
    # one, warmup_lr and min_lr do not; >= 1; null: base_lr as it stands
    lr_base_batch: Optional[int] = None
    # decoupled, but for sgd and momentum (L2) and lamb (part of the update); not on 1-d
    # parameters; >= 0
    weight_decay: float = 0.05
    # factor of the learning rate from each layer group to the one before it, the head has 1;
    # (0, 1]; null: one rate for all
    layer_decay: Optional[float] = None
    # decay of the moments (all but sgd and momentum); each [0, 1)
    beta: Tuple[float, float] = (0.9, 0.999)
    # adamw, adamweightdecay, lamb: added to the root of the second moment; > 0
    eps: float = 1e-08
    # sgd, momentum: decay of the velocity; [0, 1)
    momentum: float = 0.9
    # cosine_lr, linear_lr (both end at min_lr), step_lr, multistep_lr, exponential_lr, constant_lr
    # or one_cycle_lr (ConvMixer's)
    lr_scheduler: str = "cosine_lr"
    # the learning rate stays the same within an epoch
    lr_per_epoch: bool = False
    # learning rate of the first step when there is a warmup; >= 0
    warmup_lr: float = 1e-06
    # cosine_lr, linear_lr: learning rate at the end; >= 0
    min_lr: float = 1e-05
    # epochs of linear warmup; >= 0
    warmup_length: int = 0
    # the warmup is the schedule's head (replace), comes before its `epochs` (prefix), or is the
    # first of `epochs` with the whole schedule in the rest (shift)
    warmup_mode: str = "replace"
    # further epochs at the schedule's last rate; >= 0
    cooldown_epochs: int = 0
    # cosine_lr, linear_lr: times the schedule of `epochs` runs; >= 1
    lr_cycles: int = 1
    # factor of the peak from cycle to cycle; (0, 1]
    lr_cycle_decay: float = 1.0
    # step_lr, exponential_lr: epochs in which the rate falls to decay_rate of what it was; > 0
    decay_epochs: float = 30.0
    # step_lr, multistep_lr, exponential_lr: factor of the rate; (0, 1]
    decay_rate: float = 0.1
    # multistep_lr: epochs at which the rate falls, in rising order; each > 0
    milestones: Tuple[float, ...] = (90.0, 180.0, 270.0)
    # limit of the gradient, in the sense of clip_mode; > 0; null: no clipping
    clip_global_norm_value: Optional[float] = None
    # what is limited: the global norm (norm), every element (value), or the norm of each unit as
    # a factor of its weights' norm (adaptive)
    clip_mode: str = "norm"
    # loss; cross_entropy, or bce (every class on its own)
    criterion: str = "cross_entropy"
    # bce: targets above it count as 1, others as 0; [0, 1); null: targets stay soft
    bce_target_thresh: Optional[float] = None
    # bce: sum over the classes instead of their mean
    bce_sum: bool = False
    # what a teacher adds to the loss: nothing (none), its decision (hard) or its logits (soft)
    distillation_type: str = "none"
    # distillation: weight of the teacher's part; [0, 1]
    distillation_alpha: float = 0.5
    # soft distillation: temperature; > 0
    distillation_tau: float = 1.0
    # distillation: architecture of the teacher
    teacher_arch: Optional[str] = None
    # distillation: checkpoint of the teacher
    teacher_pretrained: Optional[str] = None

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, base_lr=">= 0", warmup_lr=">= 0", min_lr=">= 0", weight_decay=">= 0")
        check_ranges(self, lr_base_batch=">= 1", layer_decay="(0, 1]")
        check_ranges(self, beta="[0, 1)", eps="> 0", momentum="[0, 1)")
        check_ranges(self, warmup_length=">= 0", cooldown_epochs=">= 0", lr_cycles=">= 1")
        check_ranges(self, lr_cycle_decay="(0, 1]", decay_epochs="> 0", decay_rate="(0, 1]")
        check_ranges(self, milestones="> 0", clip_global_norm_value="> 0")
        check_ranges(self, bce_target_thresh="[0, 1)")
        check_ranges(self, distillation_alpha="[0, 1]", distillation_tau="> 0")
        check_choices(
            self,
            optimizer=("adamw", "adamweightdecay", "sgd", "momentum", "lamb", "lion"),
            lr_scheduler=(
                "cosine_lr",
                "linear_lr",
                "step_lr",
                "multistep_lr",
                "exponential_lr",
                "constant_lr",
                "one_cycle_lr",
            ),
            warmup_mode=("replace", "prefix", "shift"),
            clip_mode=("norm", "value", "adaptive"),
            criterion=("cross_entropy", "bce"),
            distillation_type=("none", "soft", "hard"),
        )
        self._check_schedule()
        for key in ("teacher_arch", "teacher_pretrained"):
            if self.distillation_type != "none" and getattr(self, key) is None:
                raise FieldError(
                    ["distillation_type", key], self.distillation_type, f"none, or give {key}"
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


@dataclass(frozen=True)
class TrainConfig:
    """The run over the data."""

    # epochs of the schedule; >= 0
    epochs: int = 300
    # of weights, order, augmentation and mixing; >= 0
    seed: int = 1
    # mixed precision: what computes in amp_dtype; O0 (nothing), O1 (matrix products and
    # convolutions), O2 (all but norms and softmax), O3 (all) or auto (O0 on CPU, else O2)
    amp_level: str = "O0"
    # half precision; float16 or bfloat16 (Ascend only)
    amp_dtype: str = "float16"
    # O2: BatchNorm stays in float32
    keep_bn_fp32: bool = True
    # adapt the loss scale; false: it stays at loss_scale
    is_dynamic_loss_scale: bool = True
    # initial loss scale (with float16 only); >= 1
    loss_scale: float = 65536.0
    # dynamic loss scale: factor of growth, and of reduction on overflow; > 1
    loss_scale_factor: float = 2.0
    # dynamic loss scale: finite steps before it grows; >= 1
    loss_scale_window: int = 2000
    # steps in a row whose gradient is not finite before training stops with a report; >= 1
    max_overflows: int = 20
    # batches whose gradients are averaged for one step; >= 1
    accumulation_step: int = 1
    # keep an exponential moving average of the weights
    with_ema: bool = False
    # decay of that average per step; [0, 1)
    ema_decay: float = 0.9999
    # let that decay grow from 0 over the first steps
    ema_warmup: bool = False
    # dropout drawn from (seed, step): a resumed run is exact; false: by the framework's own
    # generator, which forgets its place (for a device on which it is much faster)
    seeded_dropout: bool = True
    # weights whose top-1 decides what best.ckpt is; raw or ema
    best_by: str = "raw"
    # folder of checkpoints and logs; null: ./outputs/<arch>
    train_url: Optional[str] = None
    # epochs between epoch_NNN.ckpt; >= 0; 0: none
    save_every: int = 1
    # steps between saves of last.ckpt within an epoch; >= 0; 0: at its end only
    save_steps: int = 0
    # newest epoch_NNN.ckpt that are kept; >= 1
    keep_checkpoint_max: int = 3
    # epochs between evaluations on val/; >= 0; 0: only after the last epoch
    eval_every: int = 1
    # steps between lines of the log and rows of metrics.csv; >= 1
    log_interval: int = 10
    # checkpoint to continue from, or auto: train_url/last.ckpt when there is one
    resume: Optional[str] = None
    # continue although the recipe differs from the one in the checkpoint
    allow_config_change: bool = False
    # write the rows of metrics.csv to train_url/tensorboard too (needs the package tensorboard)
    tensorboard: bool = False
    # try the recipe: 2 steps, an evaluation batch, a checkpoint there and back; leaves nothing
    dry_run: bool = False
    # instead of training, this many steps timed part by part, into train_url/profile; >= 0; 0: off
    profile: int = 0
    # eval.py: use the averaged weights of the checkpoint
    ema: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self, epochs=">= 0", seed=">= 0", loss_scale=">= 1", loss_scale_factor="> 1")
        check_ranges(self, loss_scale_window=">= 1", ema_decay="[0, 1)", save_every=">= 0")
        check_ranges(self, keep_checkpoint_max=">= 1", eval_every=">= 0", log_interval=">= 1")
        check_ranges(self, max_overflows=">= 1", accumulation_step=">= 1", save_steps=">= 0")
        check_ranges(self, profile=">= 0")
        check_choices(
            self,
            amp_level=("O0", "O1", "O2", "O3", "auto"),
            amp_dtype=("float16", "bfloat16"),
            best_by=("raw", "ema"),
        )
        if self.best_by == "ema" and not self.with_ema:
            raise FieldError(["best_by", "with_ema"], self.best_by, "raw, or with_ema: True")


@dataclass(frozen=True)
class RunConfig:
    """Where it runs."""

    # Ascend, GPU or CPU
    device_target: str = "CPU"
    # number of the device on this host; >= 0
    device_id: int = 0
    # graph, or pynative for debugging
    mode: str = "graph"
    # on CPU: own C++ kernels, compiled at first use (native), other MindSpore operators (pure),
    # MindSpore's standard cells (off; mode pynative and mixed precision have no others), or the
    # first that works (auto)
    cpu_kernels: str = "auto"
    # running on ModelArts: options of the platform that are no keys are ignored (and listed), and
    # URLs are staged to /cache
    run_modelarts: bool = False
    # folder that URLs (data_url, train_url, pretrained, resume, ...) are staged to; null: /cache
    # with run_modelarts, else ./data/cache
    cache_dir: Optional[str] = None
    # endpoint of obs:// and s3://, such as https://obs.cn-north-4.myhuaweicloud.com; null:
    # AWS_ENDPOINT_URL of the environment
    obs_endpoint: Optional[str] = None
    # show the traceback of an error the user can mend
    debug: bool = False

    def __post_init__(self) -> None:
        if self.cpu_kernels is False:
            object.__setattr__(self, "cpu_kernels", "off")  # which unquoted YAML takes for false
        check_types(self)
        check_ranges(self, device_id=">= 0")
        check_choices(self, device_target=("Ascend", "GPU", "CPU"), mode=("graph", "pynative"))
        check_choices(self, cpu_kernels=("auto", "native", "pure", "off"))


@dataclass(frozen=True)
class Config:
    """The five sections, and where each value came from."""

    # whether the program trains, and so mixes images
    MIXES: ClassVar[bool] = True
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    # key -> "default", "FILE:LINE", "command line", or "program" (`replace`)
    origins: Dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        origins = {key: self.origins.get(key, parser.DEFAULT) for key in parser.keys_of(type(self))}
        object.__setattr__(self, "origins", origins)
        warmup_length, epochs = self.optim.warmup_length, self.train.epochs
        if 0 < epochs < warmup_length:
            raise FieldError(
                ["warmup_length", "epochs"],
                warmup_length,
                f"warmup_length <= epochs; these are {warmup_length} and {epochs}",
            )

    def serving_batch(self) -> int:
        """Images per file or call when serving: those of --batch_size, else 1.

        The batch_size of a recipe is for training.
        """
        is_given = self.origins["batch_size"] == parser.COMMAND_LINE
        return self.data.batch_size if is_given else 1

    def flat(self) -> Dict[str, Any]:
        """Every key with its value, in the order of declaration."""
        return parser.flatten(self)


@dataclass(frozen=True)
class InputConfig:
    """What a served network takes; option of the programs around inference."""

    # float32_nchw (normalised, as the network itself) or uint8_nhwc (pixels, a quarter of the
    # bytes; the exported graph normalises them)
    input: str = "float32_nchw"

    def __post_init__(self) -> None:
        check_types(self)
        check_choices(self, input=("float32_nchw", "uint8_nhwc"))


@dataclass(frozen=True)
class ExportConfig:
    """What export.py writes; --batch_size N fixes the batch, which is 1 otherwise."""

    # MINDIR, ONNX, or AIR (on an Ascend only)
    file_format: str = "MINDIR"
    # file to write; null: ARCH.mindir, ARCH.onnx or ARCH.air in the current folder
    output: Optional[str] = None
    # take any number of images
    dynamic_batch: bool = False
    # write configurations of converter_lite and atc beside the file
    write_converter_config: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_choices(self, file_format=("MINDIR", "AIR", "ONNX"))


@dataclass(frozen=True)
class ExportRun(Config):
    """What export.py reads."""

    MIXES: ClassVar[bool] = False
    input: InputConfig = field(default_factory=InputConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


@dataclass(frozen=True)
class EvalConfig:
    """What eval.py evaluates."""

    # file of export.py to evaluate instead of a checkpoint
    mindir: Optional[str] = None
    # folder for a report with pictures, report.html in it; null: none
    report: Optional[str] = None
    # with report: JSON with ReaL's labels of ImageNet's validation images; null: not used
    real_labels: Optional[str] = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.real_labels and not self.report:
            raise FieldError(["real_labels", "report"], self.real_labels, "null, or give report")


@dataclass(frozen=True)
class EvalRun(Config):
    """What eval.py reads."""

    MIXES: ClassVar[bool] = False
    evaluation: EvalConfig = field(default_factory=EvalConfig)


@dataclass(frozen=True)
class PreprocessConfig:
    """What preprocess.py reads and writes."""

    # the recipe's `set` in any case, such as imagenet2012 or digits; null: the recipe's own
    dataset_name: Optional[str] = None
    # dataset folder, as data_url; null: the recipe's own
    data_path: Optional[str] = None
    # folder to write to
    result_path: str = "./preprocess_Result"
    # file of export.py whose image size, transform, input and batch are taken instead of --config's
    for_mindir: Optional[str] = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.dataset_name is not None and self.dataset_name.lower() not in DATASET_NAMES:
            raise FieldError(["dataset_name"], self.dataset_name, ", ".join(DATASET_NAMES))


@dataclass(frozen=True)
class PreprocessRun(Config):
    """What preprocess.py reads."""

    MIXES: ClassVar[bool] = False
    input: InputConfig = field(default_factory=InputConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)


def parse_args(argv: Optional[Sequence[str]] = None, config_type: Type[Config] = Config) -> Any:
    """The configuration of a program: the defaults, under `--config FILE`, under the command line.

    Args:
        argv: the words after the program's name; None: those of `sys.argv`.
        config_type: Config, or a program's extension of it by sections of its own, which recipes
            may not have keys of.

    Returns:
        A `config_type`.

    Raises:
        SystemExit: with 0 after `--help` or `--print_config`; with 2, and one line on stderr,
            after an error of the user.
        UserError: that error, when there is `--debug`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _config_of(arguments, config_type)
    except UserError as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def replace(config: AnyConfig, **values: Any) -> AnyConfig:
    """A copy of `config` with other values for some flat keys, checked like any other.

    Raises:
        UserError: an unknown key, or a value that is not allowed.
    """
    entries = {key: Entry(value, config.origins[key]) for key, value in config.flat().items()}
    entries.update({key: Entry(value, "program") for key, value in values.items()})
    return parser.build(type(config), entries)


def to_yaml(config: Config, with_origins: bool = False) -> str:
    """`config` as YAML with a heading per section; `from_yaml_text` gives an equal one back.

    Args:
        with_origins: add where each value came from as a comment at the end of its line.
    """
    return parser.to_yaml(config, with_origins)


def from_yaml_text(text: str, name: str) -> Config:
    """The configuration of a YAML text, such as the one inside a checkpoint.

    Args:
        name: what messages and origins call the text.

    Raises:
        UserError: invalid YAML, `base:`, an unknown key, a value that is not allowed.
    """
    return parser.read_text(Config, text, name)


def _config_of(arguments: List[str], config_type: Type[Config]) -> Config:
    options = _options(config_type)
    known, ignored = parser.split_known(arguments, options)
    words = parser.split_command_line(known, options)
    if _HELP in words:
        _print_and_exit(_help_text(config_type))
    keys = parser.keys_of(config_type)
    given = {
        key: parser.command_line_entry(key, words[key], is_flag=keys.get(key, bool) is bool)
        for key in words
        if key != _CONFIG
    }
    is_printed = _flag(given.pop(_PRINT_CONFIG, None))
    entries = {**(_recipe(words, given) if _CONFIG in words else {}), **given}
    if ignored and not (_RUN_MODELARTS in entries and entries[_RUN_MODELARTS].value is True):
        parser.split_command_line(arguments, options)  # says which is unknown
    if not config_type.MIXES:
        entries.update({key: Entry(value, "program") for key, value in UNMIXED.items()})
    config = parser.build(config_type, entries)
    if ignored:
        print(f"run_modelarts: ignored {' '.join(ignored)}", file=sys.stderr)
    if is_printed:
        _print_and_exit(to_yaml(config, with_origins=True))
    return config


def _options(config_type: Type[Config]) -> Dict[str, str]:
    """Every spelling of every option -> its key."""
    names = [*parser.keys_of(config_type), _CONFIG, _PRINT_CONFIG, _HELP]
    return {**{f"--{name}": name for name in names}, **_ALIASES, "-h": _HELP}


def _flag(entry: Optional[Entry]) -> bool:
    if entry is not None and type(entry.value) is not bool:
        raise UserError(
            f"command line: --{_PRINT_CONFIG}: {parser.show(entry.value)} is not allowed; "
            "allowed: nothing, true or false"
        )
    return entry is not None and entry.value


def _recipe(words: Dict[str, List[str]], given: Dict[str, Entry]) -> Dict[str, Entry]:
    if len(words[_CONFIG]) != 1:
        shown = parser.show(words[_CONFIG])
        raise UserError(f"command line: --{_CONFIG}: needs one file, but was given {shown}")
    synonyms = {option.lstrip("-"): key for option, key in _ALIASES.items()}
    endpoint = given["obs_endpoint"].value if "obs_endpoint" in given else None

    def fetch(url: str) -> bytes:
        # Imported here: a recipe on the disk needs none of it.
        from .storage.moxing_adapter import read_small_file

        return read_small_file(url, endpoint=endpoint)

    return parser.read_files(words[_CONFIG][0], parser.keys_of(Config), synonyms, fetch=fetch)


def _print_and_exit(text: str) -> NoReturn:
    # A terminal that cannot show a character gets its escape, which YAML reads back.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="")
    raise SystemExit(0)


def _help_text(config_type: Type[Config] = Config) -> str:
    lines = [
        "usage: PROGRAM [--config FILE] [--KEY VALUE ...]",
        "",
        "Every key is an option, and a line `KEY: VALUE` of the YAML file. The command line goes",
        "before the file, the file before the file it names as `base:`, and that before defaults.",
        "",
        "  -h, --help",
        "      this text",
        "  --config FILE, --cct_config FILE",
        "      recipe: flat YAML",
        "  --print_config",
        "      print every value and where it came from, as YAML, and exit",
    ]
    comments = field_comments()
    for name, section_type in parser.section_types(config_type).items():
        lines += ["", f"{name}: {(section_type.__doc__ or '').splitlines()[0]}"]
        for key, value in vars(section_type()).items():
            aliases = [option for option, meant in _ALIASES.items() if meant == key]
            lines.append(f"  {', '.join([f'--{key}', *aliases])}")
            lines.append(f"      {comments[key]} (default: {parser.to_flow(value)})")
    return "\n".join(lines) + "\n"


def field_comments() -> Dict[str, str]:
    """Field name -> the comment above it in this file."""
    source = Path(__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    comments: Dict[str, str] = {}
    for node in (node for section in classes for node in section.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            end = first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            comments[node.target.id] = " ".join(line.strip(" #") for line in lines[first:end])
    return comments
