"""A network from a file of export.py, in the place of one that was built here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..args import AnyConfig, with_values
from ..checkpoints.complete_config import taken_of
from ..errors import UserError, on_one_line
from ..runtime import compat
from ..runtime.text import check_utf8
from .export_record import ExportRecord, read_record
from .input_format import normalize_before
from .onnx_network import load_onnx

# What export.py writes and this machine runs.
_SUFFIXES = (".mindir", ".onnx")


def is_exported(path: Path) -> bool:
    """Whether the name is that of a network of export.py."""
    return path.suffix in _SUFFIXES


class ExportedNet(nn.Cell):
    """(B, H, W, C) uint8 images -> (B, num_classes) float32 logits, as `EvalNet`.

    Args:
        normalize: for files that take normalised images; the identity for others.
        network: of the file.
        batch_size: images that the file takes at once; None: any number.
    """

    def __init__(self, normalize: nn.Cell, network: nn.Cell, batch_size: Optional[int]) -> None:
        super().__init__(auto_prefix=False)
        self.normalize = normalize
        self.network = network
        self._batch_size = batch_size or 0

    def __call__(self, image: Tensor) -> Tensor:
        # Two calls and no graph around them: 2.0 does not compile a loaded graph into another one.
        count = image.shape[0]
        if count < self._batch_size:
            image = Tensor(filled(image.asnumpy(), self._batch_size))
        logits = self.network(self.normalize(image))
        return logits if len(logits) == count else Tensor(logits.asnumpy()[:count])


def filled(image: np.ndarray, batch_size: int) -> np.ndarray:
    """(B, ...) -> (batch_size, ...), black images at the end."""
    missing = max(0, batch_size - len(image))
    return np.concatenate([image, np.zeros((missing, *image.shape[1:]), image.dtype)])


def load_mindir(path: Path) -> nn.Cell:
    """The network of a MINDIR file, as a cell.

    Raises:
        UserError: the installed MindSpore cannot read the file.
    """
    check_utf8("mindir", path)
    try:
        return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"mindir {str(path)!r}: MindSpore {compat.version()} cannot read it "
            f"({on_one_line(error)})"
        ) from error


def complete_by_record(config: AnyConfig, record: ExportRecord, path: Path) -> AnyConfig:
    """The recipe with what the file says, see `taken_of`; it must be for its images and classes.

    Raises:
        UserError: naming the key that differs.
    """
    names = ("image_size", "num_classes", "in_chans")
    sizes = {key: getattr(record, key) for key in names}
    found = {**sizes, **record.transform}
    if record.label_separator and (config.data.train_list or config.data.val_list):
        found["label_separator"] = record.label_separator
    config = with_values(config, taken_of(config, found, str(path)), origin=str(path))
    for key, there in sizes.items():
        here = config.flat()[key]
        if here != there:
            raise UserError(
                f"{path.suffix[1:]} {str(path)!r}: {key} is {there} in the file and {here} "
                f"here; give --{key} {there} or another file"
            )
    settled: Dict[str, Any] = {"arch": record.arch}
    if record.batch_size:
        settled["batch_size"] = record.batch_size
    return with_values(config, settled, origin=str(path))


def open_exported(config: AnyConfig) -> Tuple[ExportedNet, AnyConfig, ExportRecord]:
    """The network of `pretrained`, the recipe to run it with, and what is said of the file.

    Raises:
        UserError: file or record missing or damaged, for other images or classes, or averaged
            weights are asked for.
    """
    path = Path(config.model.pretrained or "")
    if config.train.ema:
        raise UserError(
            f"ema True: {path} has the weights it was exported with, no others; leave it out here, "
            "and give it to export.py"
        )
    record = read_record(path)
    config = complete_by_record(config, record, path)
    network = load_onnx(path) if path.suffix == ".onnx" else load_mindir(path)
    net = ExportedNet(normalize_before(record.input, config), network, record.batch_size)
    return net, config, record
