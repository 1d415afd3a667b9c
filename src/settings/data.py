"""The keys of the data: where images come from, how they are augmented and mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from ..configs.parser import FieldError, Section, key

# `set` as published -> what that is.
UNPACKED_SETS = {
    "ImageNet": "any folder of images, a folder for each class",
    "CIFAR10": "its archive",
    "CIFAR100": "its archive",
    "MNIST": "its four IDX files",
    "FashionMNIST": "its four IDX files",
    "WebDataset": "tar archives, each image beside a .cls with its label",
    "Digits": "ships with the repository",
}


# `label_separator` -> two labels.
SEPARATORS = {"bar": "cat|dog", "semicolon": "cat;dog", "comma": "cat,dog", "space": "cat dog"}


def _check_scale(mean: Sequence[float], std: Sequence[float]) -> None:
    """Other code has them for images of 0 to 255, a deviation of 1 beside such a mean too."""
    large = {"mean": mean} if max(mean) > 1 else {}
    if max(std) > 1 or (large and min(std) >= 1):
        large["std"] = std
    if large:
        right = ", ".join(
            f"{name} {[round(value / 255, 4) for value in values]}"
            for name, values in large.items()
        )
        raise FieldError(
            list(large),
            next(iter(large.values())),
            f"each <= 1, for images scaled to [0, 1]; divided by 255: {right}",
        )


@dataclass(frozen=True)
class DataConfig(Section):
    """Where images come from, and what the network sees of them."""

    set: str = key(
        "ImageNet",
        "kind of dataset",
        choices={**UNPACKED_SETS, "MindRecord": "written by scripts/pack_dataset.py"},
    )
    data_url: str = key(
        "./data/imagenet",
        "dataset folder; without it, eval.py takes data_url and `set` of the checkpoint",
        free=True,
        input_url=True,
    )
    train_list: Optional[str] = key(
        None,
        "set ImageNet: CSV with a path and a label in each row, or text with `path label` on each "
        "line, in place of class folders; it and the paths in it start from data_url",
        special="null: class folders",
        free=True,
        input_url=True,
    )
    val_list: Optional[str] = key(
        None,
        "the same for validation; without train_list, labels are names or numbers of the class "
        "folders",
        special="null: class folders, or with train_list a val_share of it",
        free=True,
        input_url=True,
    )
    label_separator: Optional[str] = key(
        None,
        "multi-label: what divides the labels of an image in train_list and val_list; an image may "
        "have any number of them, or none",
        special="null: each image has one label",
        choices=SEPARATORS,
    )
    val_share: float = key(
        0.0,
        "share of each class (multi-label: of all images) that is held out for validation when "
        "data_url has class folders but neither train/ nor val/, or when there is a train_list and "
        "no val_list",
        special="0: such data is refused",
        range="[0, 1)",
    )
    class_order: str = key(
        "code_point",
        "order of the class folders, which numbers the classes",
        choices={
            "code_point": "10 before 2, as in torchvision",
            "natural": "2 before 10, as in timm",
        },
    )
    batch_size: int = key(128, "images in a batch, per device", range="[1, 65536]", also="-b")
    num_parallel_workers: int = key(
        8,
        "threads (or processes) that prepare images, at most one per core; beyond 8 threads a "
        "process gains little, because they share the interpreter's lock",
        range="[1, 1024]",
        also="-j",
        free=True,
    )
    python_multiprocessing: bool = key(
        False,
        "prepare images in processes instead of threads; for more than 8 of them",
        free=True,
    )
    on_bad_image: str = key(
        "raise",
        "what happens when an image cannot be read",
        choices={
            "raise": "an error that names it",
            "skip": "training takes the next image of the epoch, evaluation leaves it out; a list "
            "comes after the epoch; more than max_bad_share is an error",
        },
    )
    max_bad_share: float = key(
        0.01,
        "on_bad_image skip: share of an epoch's images that may be unreadable; with one more, "
        "all unreadable images are searched for and listed",
        range="[0, 1]",
        free=True,
    )
    max_image_pixels: int = key(
        89_478_485,
        "largest width x height; a larger image is refused before it is unpacked "
        "(decompression bombs); the default, where Pillow warns too, takes 1 GiB at most, 12 "
        "bytes per pixel",
        range="[1, 178956970]",
        free=True,
    )
    exif_orientation: bool = key(
        False,
        "rotate photographs as their EXIF block or XMP says; timm does not",
        transform=True,
    )
    background: Optional[Tuple[int, int, int]] = key(
        (255, 255, 255),
        "colour shown behind transparent pixels: red, green, blue",
        special="null: the pixels' own colour, often black, as in timm",
        range="[0, 255]",
        transform=True,
    )

    # Crops and flips; their counterpart of evaluation.
    interpolation: str = key(
        "bicubic",
        "filter of every resize",
        choices={"bilinear": "", "bicubic": "", "random": "training only"},
        transform=True,
    )
    scale: Tuple[float, float] = key(
        (0.08, 1.0),
        "area of the random crop, as a share of the image",
        range="(0, 1]",
        order="low <= high",
    )
    ratio: Tuple[float, float] = key(
        (0.75, 4.0 / 3.0),
        "aspect ratio of the random crop, width / height",
        range="> 0",
        order="low <= high",
    )
    crop_padding: int = key(
        0,
        "random crop for small images, instead of the random resized crop: the shorter side "
        "is resized to image_size, and each side gets this many black pixels before the crop; "
        "scale and ratio then have no effect",
        special="0: off",
        range="[0, 4096]",
    )
    hflip: float = key(0.5, "probability of a horizontal flip", range="[0, 1]")
    vflip: float = key(0.0, "probability of a vertical flip", range="[0, 1]")
    repeated_aug: int = key(
        1,
        "repeated augmentation (DeiT: 3): how often an epoch shows each image it takes, "
        "augmented anew each time; the number of steps stays the same, so an epoch takes one "
        "image in repeated_aug; from 256 images on, only whole groups of 256 count",
        range="[1, 1000]",
    )
    balanced_sampling: str = key(
        "none",
        "how often an epoch takes images of rare and of common classes; it stays as long as it is",
        choices={
            "none": "each image once",
            "sqrt": "each class in proportion to the square root of its images",
            "full": "all classes equally often",
        },
    )
    crop_pct: float = key(
        0.875, "evaluation: image_size / side after the resize", range="(0, 1]", transform=True
    )
    crop_mode: str = key(
        "center",
        "evaluation: how an image is resized before its centre is cropped",
        choices={
            "center": "the shorter side, keeping the aspect ratio",
            "squash": "both sides to the same length",
        },
        transform=True,
    )
    mean: Tuple[float, ...] = key(
        (0.485, 0.456, 0.406),
        "mean that is subtracted from each channel, for images scaled to [0, 1]; a value for each "
        "of in_chans, or one for all; of three, grey images take the average, and opacity takes "
        "0.5",
        transform=True,
    )
    std: Tuple[float, ...] = key(
        (0.229, 0.224, 0.225),
        "standard deviation that each channel is divided by, for images scaled to [0, 1]; as many "
        "values as mean may have",
        range="> 0",
        transform=True,
    )

    # Colours.
    auto_augment: Optional[str] = key(
        None,
        "augmentation policy, such as rand-m9-mstd0.5-inc1: rand-..., augmix-..., original, "
        "originalr, v0, v0r, 3a, ta_wide or cifar10",
        special="null: off",
    )
    color_jitter: Tuple[float, ...] = key(
        (),
        "jitter of brightness, contrast and saturation: the largest distance from 1; a fourth "
        "number jitters the hue, by at most 0.5 of the colour circle",
        special="[]: off; an auto_augment without 3a turns it off too",
        range=">= 0",
    )
    color_jitter_prob: float = key(1.0, "probability of color_jitter", range="[0, 1]")
    force_color_jitter: bool = key(False, "apply color_jitter beside any auto_augment")
    grayscale_prob: float = key(0.0, "probability that an image becomes grey", range="[0, 1]")
    gaussian_blur_prob: float = key(
        0.0, "probability of a Gaussian blur, sigma 0.1 to 2 pixels", range="[0, 1]"
    )

    # Random erasing.
    re_prob: float = key(0.0, "random erasing: probability", range="[0, 1]")
    re_mode: str = key(
        "pixel",
        "random erasing: what fills a box",
        choices={"const": "the mean colour", "rand": "one colour per box", "pixel": "noise"},
    )
    re_count: int = key(
        1, "random erasing: most boxes per image; they share the erased area", range="[1, 100]"
    )
    re_split: int = key(
        0,
        "random erasing: the first 1/re_split of each batch is never erased",
        special="0 or 1: any image may be erased",
        range=">= 0",
    )

    # Mixing.
    mix_up: float = key(0.0, "Mixup: alpha of Beta(alpha, alpha)", special="0: off", range=">= 0")
    cutmix: float = key(0.0, "CutMix: alpha of Beta(alpha, alpha)", special="0: off", range=">= 0")
    cutmix_minmax: Optional[Tuple[float, float]] = key(
        None,
        "CutMix: limits of the box's sides, as a share of the image's; they replace alpha",
        special="null: alpha decides",
        range="[0, 1]",
        order="low < high",
    )
    correct_lam: bool = key(
        True,
        "CutMix: the label goes by the area that was really pasted",
        special="false: by the area before the border clipped it",
    )
    mixup_prob: float = key(1.0, "probability that a draw mixes images at all", range="[0, 1]")
    switch_prob: float = key(
        0.5, "probability of CutMix when Mixup and CutMix are both on", range="[0, 1]"
    )
    mixup_mode: str = key(
        "batch",
        "which images share one draw",
        choices={
            "batch": "all images",
            "pair": "the two that are mixed with each other",
            "elem": "every image has its own",
        },
    )
    mixup_off_epoch: int = key(
        0,
        "first epoch without mixing, counted from 0",
        special="0: mixing never ends",
        range=">= 0",
    )
    label_smoothing: float = key(
        0.0, "share of the label that is spread evenly over all classes", range="[0, 1)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not values:
                raise FieldError([name], values, "1, 3 or in_chans numbers")
        _check_scale(self.mean, self.std)
        names = ("train_list", "val_list", "label_separator")
        given = [name for name in names if getattr(self, name) is not None]
        is_packed = given == ["label_separator"] and self.set == "MindRecord"
        if given and self.set != "ImageNet" and not is_packed:
            raise FieldError(
                [*given, "set"],
                getattr(self, given[0]),
                f"null with set {self.set}; lists of images are read with set ImageNet",
            )
        if len(self.color_jitter) not in (0, 3, 4) or max(self.color_jitter[3:], default=0) > 0.5:
            raise FieldError(["color_jitter"], self.color_jitter, "[], 3 numbers, or 4; hue <= 0.5")

    def check_training(self) -> None:
        if self.label_separator is not None:
            self._check_multi_label()
        # Images are mixed with their partner from the other half of the batch.
        is_mixed = self.mix_up > 0 or self.cutmix > 0 or self.cutmix_minmax is not None
        if is_mixed and self.batch_size % 2:
            raise FieldError(
                ["batch_size", "mix_up", "cutmix"],
                self.batch_size,
                "an even batch_size, or mix_up 0 and cutmix 0; these are "
                f"{self.batch_size}, {self.mix_up} and {self.cutmix}",
            )

    def _check_multi_label(self) -> None:
        given = self.label_separator
        if self.train_list is None and self.set != "MindRecord":
            raise FieldError(
                ["label_separator", "train_list"],
                given,
                "null without train_list; give --train_list FILE, whose labels it divides",
            )
        if self.balanced_sampling != "none":
            raise FieldError(
                ["balanced_sampling", "label_separator"],
                self.balanced_sampling,
                "none with label_separator; an image of several classes is in no one's share",
            )
