"""A network behind one call, whatever kind of file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, NoReturn, Optional

import numpy as np
from mindspore import Tensor

from ..args import Config
from ..errors import UserError, on_one_line
from ..runtime.regular_files import EXPORT_BYTES, read_regular
from ..trainer.build import build_eval_net
from ..trainer.evaluate import EvalNet
from ..trainer.open_checkpoint import open_checkpoint
from .export_record import read_record
from .exported_network import complete_by_record, load_mindir
from .input_format import as_input
from .onnx_export import INPUT

Run = Callable[[np.ndarray], np.ndarray]


class CheckpointPredictor:
    """The network of a .ckpt under MindSpore.

    Attributes:
        config: the given one, completed by what the file says.
        class_names: of its training data, when the file says them.
    """

    def __init__(self, config: Config) -> None:
        network, self.config, checkpoint = open_checkpoint(config)
        self.class_names: Optional[List[str]] = checkpoint.record.class_names
        self._net = build_eval_net(self.config, network).set_train(False)
        self._batch_size = 0

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, num_classes) float32 logits."""
        # A smaller batch, the last, is filled up: another shape would be compiled anew.
        self._batch_size = max(self._batch_size, len(image))
        logits = self._net(Tensor(_filled(image, self._batch_size))).asnumpy()
        return _finite(logits[: len(image)], self.config)

    def eval_net(self) -> EvalNet:
        """Normalisation and network, for who wants to see inside."""
        return self._net


def _filled(image: np.ndarray, batch_size: int) -> np.ndarray:
    """(B, ...) -> (batch_size, ...), black images at the end."""
    missing = max(0, batch_size - len(image))
    return np.concatenate([image, np.zeros((missing, *image.shape[1:]), image.dtype)])


def _finite(logits: np.ndarray, config: Config) -> np.ndarray:
    """`logits` (B, num_classes).

    Raises:
        UserError: one of them is no number.
    """
    if not np.isfinite(logits).all():
        level = config.train.amp_level
        raise UserError(
            f"pretrained {config.model.pretrained!r}: {int((~np.isfinite(logits)).sum())} of "
            f"{logits.size} logits of a batch are not finite numbers at amp_level {level}, so they "
            "say nothing of the images; give --amp_level O0, or other weights"
        )
    return logits


class ExportedPredictor:
    """The network of a .mindir under MindSpore, or of an .onnx under onnxruntime.

    Attributes:
        config: the given one, completed by what the file's record says.
        class_names: of its training data, when the record says them.
    """

    def __init__(self, config: Config) -> None:
        path = Path(str(config.model.pretrained))
        record = read_record(path)
        self.config = complete_by_record(config, record, path)
        self.class_names: Optional[List[str]] = record.class_names
        # 0: any number of images.
        self._batch_size = record.batch_size or 0
        run = {".mindir": _mindir_of, ".onnx": _onnx_of}[path.suffix](path)
        self._predict: Run = lambda image: run(as_input(record.input, self.config, image))

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, num_classes) float32 logits."""
        logits = self._predict(_filled(image, self._batch_size))
        return _finite(logits[: len(image)], self.config)

    def eval_net(self) -> NoReturn:
        """An exported file shows no inner values.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"heat_maps: {self.config.model.pretrained!r} shows no inner values; give the .ckpt it "
            "was exported from"
        )


def _mindir_of(path: Path) -> Run:
    network = load_mindir(path)
    return lambda image: network(Tensor(image)).asnumpy()


def _onnx_of(path: Path) -> Run:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"pretrained {str(path)!r}: needs onnx and onnxruntime; pip install -r "
            "requirements-onnx.txt"
        ) from error
    _check_one_file(path, onnx)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise UserError(
            f"pretrained {str(path)!r}: onnxruntime cannot read it ({on_one_line(error)})"
        ) from error
    return lambda image: np.asarray(session.run(None, {INPUT: image})[0])


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
        raise UserError(f"pretrained {str(path)!r}: damaged; copy it again") from error
    if found:
        raise UserError(
            f"pretrained {str(path)!r}: weights of it lie in other files, which are not read; "
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


_KINDS: Dict[str, Any] = {
    ".ckpt": CheckpointPredictor,
    ".mindir": ExportedPredictor,
    ".onnx": ExportedPredictor,
}


def open_predictor(config: Config) -> Any:
    """The network of `--pretrained`, by the file's ending.

    Raises:
        UserError: no file, another ending, or weights that do not fit.
    """
    given = config.model.pretrained
    if not given:
        raise UserError(f"pretrained null: predict.py needs --pretrained FILE ({' '.join(_KINDS)})")
    kind = _KINDS.get(Path(given).suffix, CheckpointPredictor)
    return kind(config)
