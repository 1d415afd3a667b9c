"""A network behind one call, whatever kind of file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import List, NoReturn, Optional, Union

import numpy as np
from mindspore import Tensor

from ..args import Config
from ..errors import UserError
from ..trainer.build import build_eval_net, build_normalize
from ..trainer.evaluate import EvalNet, FeatureNet
from ..trainer.open_checkpoint import open_backbone, open_checkpoint
from .exported_network import filled, is_exported, open_exported


class CheckpointPredictor:
    """The network of a .ckpt under MindSpore.

    Attributes:
        config: the given one, completed by what the file says.
        class_names: of its training data, when the file says them.
        is_multi_label: it learnt images with any number of labels.
    """

    def __init__(self, config: Config) -> None:
        network, self.config, checkpoint = open_checkpoint(config)
        self.class_names: Optional[List[str]] = checkpoint.record.class_names
        self.is_multi_label = checkpoint.record.label_separator(str(checkpoint.path)) is not None
        self._net = build_eval_net(self.config, network).set_train(False)
        self._batch_size = 0

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 -> (B, num_classes) float32 logits."""
        # A smaller batch, the last, is filled up: another shape would be compiled anew.
        self._batch_size = max(self._batch_size, len(image))
        logits = self._net(Tensor(filled(image, self._batch_size))).asnumpy()
        return _finite(logits[: len(image)], self.config)

    def eval_net(self) -> EvalNet:
        """Normalisation and network, for who wants to see inside."""
        return self._net


class FeatureExtractor:
    """A checkpoint's network without classifier.

    Attributes:
        config: the given one, completed by what the file says.
        checkpoint: the file.

    Raises:
        UserError: no checkpoint, or weights that do not fit.
    """

    def __init__(self, config: Config) -> None:
        given = config.model.pretrained
        if not given or is_exported(Path(given)):
            raise UserError(
                f"pretrained {given!r}: features are those of a checkpoint; give --pretrained "
                "FILE.ckpt (of an exported file the one it was made from)"
            )
        network, self.config, self.checkpoint = open_backbone(config)
        self.num_features: int = network.num_features
        self._net = FeatureNet(build_normalize(self.config), network).set_train(False)
        self._batch_size = 0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 -> (B, num_features) float32.

        Raises:
            UserError: one of them is no number.
        """
        self._batch_size = max(self._batch_size, len(image))
        features = self._net(Tensor(filled(image, self._batch_size))).asnumpy()
        return _finite(features[: len(image)], self.config, "features")


def _finite(values: np.ndarray, config: Config, what: str = "logits") -> np.ndarray:
    """`values` (B, N) themselves.

    Raises:
        UserError: one of them is no number.
    """
    if not np.isfinite(values).all():
        level = config.train.amp_level
        raise UserError(
            f"pretrained {config.model.pretrained!r}: {int((~np.isfinite(values)).sum())} of "
            f"{values.size} {what} of a batch are not finite numbers at amp_level {level}, so they "
            "say nothing of the images; give --amp_level O0, or other weights"
        )
    return values


class ExportedPredictor:
    """The network of a .mindir under MindSpore, or of an .onnx under onnxruntime.

    Attributes:
        config: the given one, completed by what the file's record says.
        class_names: of its training data, when the record says them.
        is_multi_label: it learnt images with any number of labels.
    """

    def __init__(self, config: Config) -> None:
        self._net, self.config, record = open_exported(config)
        self.class_names: Optional[List[str]] = record.class_names
        self.is_multi_label = record.label_separator is not None

    @property
    def num_classes(self) -> int:
        return self.config.model.num_classes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 -> (B, num_classes) float32 logits."""
        return _finite(self._net(Tensor(image)).asnumpy(), self.config)

    def eval_net(self) -> NoReturn:
        """An exported file shows no inner values.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"heat_maps: {self.config.model.pretrained!r} shows no inner values; give the .ckpt it "
            "was exported from"
        )


def open_predictor(config: Config) -> Union[CheckpointPredictor, ExportedPredictor]:
    """The network of `--pretrained`, by the file's ending.

    Raises:
        UserError: no file, another ending, or weights that do not fit.
    """
    given = config.model.pretrained
    if not given:
        raise UserError("pretrained null: predict.py needs --pretrained FILE (.ckpt .mindir .onnx)")
    return ExportedPredictor(config) if is_exported(Path(given)) else CheckpointPredictor(config)
