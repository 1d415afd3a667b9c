"""A network from an ONNX file, in the place of one that was built here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError, on_one_line
from ..runtime.regular_files import EXPORT_BYTES, read_regular
from .onnx_export import INPUT


class OnnxNet(nn.Cell):
    """Inputs of the file, as a Tensor -> (B, num_classes) float32 logits, by onnxruntime.

    Args:
        session: an `onnxruntime.InferenceSession`.
    """

    def __init__(self, session: Any) -> None:
        super().__init__(auto_prefix=False)
        self._session = session

    def __call__(self, image: Tensor) -> Tensor:
        return Tensor(np.asarray(self._session.run(None, {INPUT: image.asnumpy()})[0]))


def load_onnx(path: Path) -> OnnxNet:
    """The network of an ONNX file, on the CPU.

    Raises:
        UserError: onnxruntime is not installed or cannot read the file.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"onnx {str(path)!r}: needs onnx and onnxruntime; pip install -r requirements-onnx.txt"
        ) from error
    _check_one_file(path, onnx)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise UserError(
            f"onnx {str(path)!r}: onnxruntime cannot read it ({on_one_line(error)})"
        ) from error
    return OnnxNet(session)


def _check_one_file(path: Path, onnx: Any) -> None:
    """Refuses a network with weights in other files, which may be any file of this machine.

    Raises:
        UserError: as said; export.py writes none, and their bytes are in no record.
    """
    content = read_regular(path, EXPORT_BYTES)
    if b"location" not in content:  # the key of such a file's name
        return
    try:
        found = _names_other_files(onnx.load_from_string(content))
    except Exception as error:  # protobuf's own kinds
        raise UserError(f"onnx {str(path)!r}: damaged; copy it again") from error
    if found:
        raise UserError(
            f"onnx {str(path)!r}: weights of it lie in other files, which are not read; "
            "export.py writes one file that holds them all"
        )


def _names_other_files(message: Any) -> bool:
    for field, value in message.ListFields():
        if field.name == "external_data":
            return True
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            if any(map(_names_other_files, parts)):
                return True
    return False
