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
    "webdataset": "WebDataset",
    "digits": "Digits",
}


@dataclass(frozen=True)
class ServingConfig(Section):
    """What an exported network takes: an option of the programs around inference."""

    input: str = key(
        "float32_nchw",
        "images that the exported network takes",
        choices={
            "float32_nchw": "normalised, as the network itself takes them",
            "uint8_nhwc": "uint8 pixels, a quarter of the bytes; the exported graph normalises "
            "them",
        },
    )


@dataclass(frozen=True)
class ExportConfig(Section):
    """What export.py writes; the batch is 1, or N with --batch_size N."""

    file_format: str = key(
        "MINDIR",
        "format of the file",
        choices={
            "MINDIR": "",
            "AIR": "on Ascend only; deprecated in MindSpore 2.10",
            "ONNX": "needs requirements-onnx.txt",
        },
    )
    output: Optional[str] = key(
        None,
        "file to write",
        special="null: beside the checkpoint, with its name; refused if that file exists",
    )
    bundle: Optional[str] = key(
        None,
        "folder to make in place of the file: the file, five images with their logits, digests of "
        "all; scripts/check_bundle.py and the C++ program run it on the target",
        special="null: none",
    )
    dynamic_batch: bool = key(False, "accept any number of images per call")
    write_converter_config: bool = key(
        False, "also write configuration files for converter_lite and atc"
    )


@dataclass(frozen=True)
class EvalConfig(Section):
    """What eval.py does beside the evaluation."""

    report: Optional[str] = key(
        None,
        "folder to write a report with pictures to; report.html is its page",
        special="null: no report",
    )
    real_labels: Optional[str] = key(
        None,
        "with report: JSON file of the ReaL labels of ImageNet's validation images",
        special="null: not used",
    )
    class_subset: Optional[str] = key(
        None,
        "for images of some of the network's classes: auto, by the names of their folders, which "
        "may be label numbers; imagenet_a or imagenet_r; or a file with a line FOLDER,CLASS for "
        "each class; scored over the logits of these classes, and over all",
        special="null: the data has the network's classes",
    )
    results_file: Optional[str] = key(
        None,
        "CSV file to write: a row for each checkpoint of pretrained, best top-1 first",
        special="null: none",
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
        "the recipe's `set`, in upper or lower case, such as imagenet2012 or digits",
        special="null: `set` of the recipe",
    )
    data_path: Optional[str] = key(
        None, "dataset folder, as data_url", special="null: data_url of the recipe"
    )
    result_path: str = key("./preprocess_Result", "folder to write to")
    for_mindir: Optional[str] = key(
        None,
        "file of export.py whose image size, transform, input and batch are used instead of "
        "those of --config",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name is not None and self.dataset_name.lower() not in DATASET_NAMES:
            raise FieldError(["dataset_name"], self.dataset_name, ", ".join(DATASET_NAMES))
