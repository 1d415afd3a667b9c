"""A network behind one call, whatever kind of file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from mindspore import Tensor

from ..args import Config
from ..checkpoints.checkpoint import read_checkpoint
from ..checkpoints.complete_config import complete_by_checkpoint
from ..data.augment.batch_transform import normalize_pixels
from ..errors import UserError
from ..report.heat_maps import create_heat_maps
from ..trainer.build import build_eval_net, build_network, load_network
from .export_record import read_record
from .onnx_export import INPUT
from .served import load_mindir, settings_of

Run = Callable[[np.ndarray], np.ndarray]


class CheckpointPredictor:
    """The network of a .ckpt under MindSpore.

    Attributes:
        config: the given one, completed by what the file says.
        class_names: of its training data, when the file says them.
    """

    def __init__(self, config: Config) -> None:
        path = Path(str(config.model.pretrained))
        checkpoint = read_checkpoint(path)
        if config.train.ema:
            checkpoint = checkpoint.averaged()
        self.config = complete_by_checkpoint(config, checkpoint.meta, path=str(path))
        if self.config.model.num_classes == 0:
            raise UserError(
                f"num_classes 0: {path} does not say how many classes it has; give --num_classes"
            )
        self.class_names: Optional[List[str]] = checkpoint.meta.get("class_names")
        self._network = build_network(self.config)
        load_network(self._network, checkpoint, self.config)
        self._net = build_eval_net(self.config, self._network).set_train(False)
        self._batch_size = 0

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, num_classes) float32 logits."""
        # A smaller batch, the last, is filled up: another shape would be compiled anew.
        self._batch_size = max(self._batch_size, len(image))
        return self._net(Tensor(_filled(image, self._batch_size))).asnumpy()[: len(image)]

    def heat_maps(self) -> Tuple[str, Any]:
        """As `create_heat_maps`."""
        return create_heat_maps(self._net.normalize, self._network)


def _filled(image: np.ndarray, batch_size: int) -> np.ndarray:
    """(B, ...) -> (batch_size, ...), black images at the end."""
    missing = max(0, batch_size - len(image))
    return np.concatenate([image, np.zeros((missing, *image.shape[1:]), image.dtype)])


class ExportedPredictor:
    """The network of a .mindir under MindSpore, or of an .onnx under onnxruntime.

    Attributes:
        config: the given one, completed by what the file's record says.
        class_names: of its training data, when the record says them.
    """

    def __init__(self, config: Config) -> None:
        path = Path(str(config.model.pretrained))
        record = read_record(path)
        self.config = settings_of(config, record, path)
        self.class_names: Optional[List[str]] = record.class_names
        # 0: any number of images.
        self._batch_size = record.batch_size or 0
        run = {".mindir": _mindir_of, ".onnx": _onnx_of}[path.suffix](path)
        data = self.config.data

        def predict(image: np.ndarray) -> np.ndarray:
            if record.input == "float32_nchw":
                image = normalize_pixels(image, mean=data.mean, std=data.std)
            return run(image)

        self._predict = predict

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, num_classes) float32 logits."""
        return self._predict(_filled(image, self._batch_size))[: len(image)]

    def heat_maps(self) -> Tuple[str, Any]:
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
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"pretrained {str(path)!r}: needs onnxruntime; pip install onnxruntime"
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"pretrained {str(path)!r}: onnxruntime cannot read it ({reason})"
        ) from error
    return lambda image: np.asarray(session.run(None, {INPUT: image})[0])


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
