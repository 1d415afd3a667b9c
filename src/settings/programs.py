"""The options that one program has beside the keys of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..configs.parser import FieldError, Section, key

# What the inference scripts of the model zoo call a `set`.
DATASET_NAMES = {
    "imagenet2012": "ImageNet",
    "imagenet": "ImageNet",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "fashionmnist": "FashionMNIST",
    "mindrecord": "MindRecord",
    "digits": "Digits",
}


@dataclass(frozen=True)
class ServingConfig(Section):
    """What an exported network takes; option of the programs around inference."""

    input: str = key(
        "float32_nchw",
        "images that the exported network takes",
        choices={
            "float32_nchw": "normalised, as the network itself",
            "uint8_nhwc": "pixels, a quarter of the bytes; the exported graph normalises them",
        },
    )


@dataclass(frozen=True)
class ExportConfig(Section):
    """What export.py writes; --batch_size N fixes the batch, which is 1 otherwise."""

    file_format: str = key(
        "MINDIR",
        "format of the file",
        choices={
            "MINDIR": "",
            "AIR": "on an Ascend only; deprecated in MindSpore 2.10",
            "ONNX": "needs requirements-onnx.txt",
        },
    )
    output: Optional[str] = key(
        None,
        "file to write",
        special="null: beside the checkpoint with its name, unless that file is there already",
    )
    dynamic_batch: bool = key(False, "take any number of images")
    write_converter_config: bool = key(
        False, "write configurations of converter_lite and atc beside the file"
    )


@dataclass(frozen=True)
class EvalConfig(Section):
    """What eval.py evaluates."""

    report: Optional[str] = key(
        None, "folder for a report with pictures, report.html in it", special="null: none"
    )
    real_labels: Optional[str] = key(
        None,
        "with report: JSON with ReaL's labels of ImageNet's validation images",
        special="null: not used",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.real_labels and not self.report:
            raise FieldError(["real_labels", "report"], self.real_labels, "null, or give report")


@dataclass(frozen=True)
class PreprocessConfig(Section):
    """What preprocess.py reads and writes."""

    dataset_name: Optional[str] = key(
        None,
        "the recipe's `set` in any case, such as imagenet2012 or digits",
        special="null: the recipe's own",
    )
    data_path: Optional[str] = key(
        None, "dataset folder, as data_url", special="null: the recipe's own"
    )
    result_path: str = key("./preprocess_Result", "folder to write to")
    for_mindir: Optional[str] = key(
        None,
        "file of export.py whose image size, transform, input and batch are taken instead of "
        "--config's",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name is not None and self.dataset_name.lower() not in DATASET_NAMES:
            raise FieldError(["dataset_name"], self.dataset_name, ", ".join(DATASET_NAMES))
