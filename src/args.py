"""Every setting of the project: frozen dataclasses, and `parse_args` which fills them.

A YAML recipe is flat: each field below is one key. The comment above a field is its documentation,
which `--help` prints: meaning, unit, allowed values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple


@dataclass(frozen=True)
class ModelConfig:
    """What network is built."""

    # architecture name, see src/models/registry.py
    arch: str = "cct_2_3x2_32"
    # classes of the classifier; >= 1
    num_classes: int = 10
    # side of the square input, pixels; >= 1
    image_size: int = 32
    # stochastic depth of the last block; [0, 1); null: the architecture's own
    drop_path_rate: Optional[float] = None
    # activation of the blocks; GELU or ReLU; null: the architecture's own
    nonlinearity: Optional[str] = None
    # further constructor keywords of the architecture
    model_args: Dict[str, Any] = field(default_factory=dict)
    # checkpoint whose weights are loaded before training, or evaluated
    pretrained: Optional[str] = None


@dataclass(frozen=True)
class DataConfig:
    """What the network sees."""

    # dataset; ImageNet (any folder with train/ and val/) or Digits (ships with the repository)
    set: str = "ImageNet"
    # dataset folder
    data_url: str = "./data/imagenet"
    # images per device and step; >= 1
    batch_size: int = 128
    # threads that prepare images; >= 1; clamped to the number of cores
    num_parallel_workers: int = 8
    # filter of every resize; bilinear, bicubic or random (training only)
    interpolation: str = "bicubic"
    # area of the random crop, share of the image; 0 < low <= high <= 1
    scale: Tuple[float, float] = (0.08, 1.0)
    # aspect of the random crop, width / height; 0 < low <= high
    ratio: Tuple[float, float] = (0.75, 4.0 / 3.0)
    # probability of a horizontal flip; [0, 1]
    hflip: float = 0.5
    # evaluation: image_size / side after the resize; (0, 1]
    crop_pct: float = 0.875
    # per channel, of images scaled to [0, 1]
    mean: Tuple[float, float, float] = (0.485, 0.456, 0.406)
    # per channel, of images scaled to [0, 1]; > 0
    std: Tuple[float, float, float] = (0.229, 0.224, 0.225)
    # RandAugment policy such as rand-m9-mstd0.5-inc1; null: off
    auto_augment: Optional[str] = None
    # random erasing: probability; [0, 1]
    re_prob: float = 0.0
    # random erasing: filling; const, rand or pixel
    re_mode: str = "pixel"
    # random erasing: boxes per image; >= 1
    re_count: int = 1
    # Mixup: alpha of Beta(alpha, alpha); >= 0; 0: off
    mix_up: float = 0.0
    # CutMix: alpha of Beta(alpha, alpha); >= 0; 0: off
    cutmix: float = 0.0
    # probability that a batch is mixed at all; [0, 1]
    mixup_prob: float = 1.0
    # probability of CutMix when both are on; [0, 1]
    switch_prob: float = 0.5
    # what shares one draw; batch, pair or elem
    mixup_mode: str = "batch"
    # mass spread evenly over all classes; [0, 1)
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class OptimConfig:
    """How weights are updated."""

    # adamw, momentum or sgd
    optimizer: str = "adamw"
    # peak learning rate, not scaled with the batch; >= 0
    base_lr: float = 0.0005
    # decoupled (adamw) or L2 (sgd, momentum); not on 1-d parameters; >= 0
    weight_decay: float = 0.05
    # adamw: decay of both moments; each [0, 1)
    beta: Tuple[float, float] = (0.9, 0.999)
    # adamw: added to the root of the second moment; > 0
    eps: float = 1e-08
    # momentum: decay of the velocity; [0, 1)
    momentum: float = 0.9
    # cosine_lr or constant_lr
    lr_scheduler: str = "cosine_lr"
    # learning rate of the first step when there is a warmup; >= 0
    warmup_lr: float = 1e-06
    # learning rate at the end of the cosine; >= 0
    min_lr: float = 1e-05
    # epochs of linear warmup, the head of the cosine; >= 0
    warmup_length: int = 0
    # further epochs at min_lr after `epochs`; >= 0
    cooldown_epochs: int = 0
    # largest global norm of the gradient; > 0; null: no clipping
    clip_global_norm_value: Optional[float] = None


@dataclass(frozen=True)
class TrainConfig:
    """The run over the data."""

    # epochs of the schedule; >= 0
    epochs: int = 300
    # of weights, order, augmentation and mixing; >= 0
    seed: int = 1
    # mixed precision; O0 (float32) or O2 (float16, norms, softmax and loss in float32)
    amp_level: str = "O0"
    # O2: BatchNorm stays in float32
    keep_bn_fp32: bool = True
    # adapt the loss scale; false: it stays at loss_scale
    is_dynamic_loss_scale: bool = True
    # initial loss scale (amp_level O2); >= 1
    loss_scale: float = 65536.0
    # dynamic loss scale: factor of growth, and of reduction on overflow; > 1
    loss_scale_factor: float = 2.0
    # dynamic loss scale: finite steps before it grows; >= 1
    loss_scale_window: int = 2000
    # keep an exponential moving average of the weights
    with_ema: bool = False
    # decay of that average per step; [0, 1)
    ema_decay: float = 0.9999
    # folder of checkpoints and logs; null: ./outputs/<arch>
    train_url: Optional[str] = None
    # epochs between epoch_NNN.ckpt; >= 0; 0: none
    save_every: int = 1
    # newest epoch_NNN.ckpt that are kept; >= 1
    keep_checkpoint_max: int = 3
    # epochs between evaluations on val/; >= 0; 0: only after the last epoch
    eval_every: int = 1
    # steps between lines of the log and rows of metrics.csv; >= 1
    log_interval: int = 10
    # checkpoint to continue from, or auto: train_url/last.ckpt when there is one
    resume: Optional[str] = None


@dataclass(frozen=True)
class RunConfig:
    """Where it runs."""

    # Ascend, GPU or CPU
    device_target: str = "CPU"
    # number of the device on this host; >= 0
    device_id: int = 0
    # graph, or pynative for debugging
    mode: str = "graph"


@dataclass(frozen=True)
class Config:
    """The five sections, and where each value came from."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    # key -> "default", "FILE:LINE" or "command line"
    origins: Dict[str, str] = field(default_factory=dict)
