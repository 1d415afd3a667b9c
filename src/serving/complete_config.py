"""The configuration a program works with once the file of weights has been asked."""

from __future__ import annotations

from pathlib import Path

from ..args import AnyConfig, EvalRun
from ..checkpoints.checkpoint import read_checkpoint
from ..checkpoints.complete_config import complete_by_checkpoint
from ..storage.staging import stage_inputs
from .export_record import read_record
from .exported_network import complete_by_record

_EXPORTED = (".mindir", ".onnx")


def complete_by_file(config: AnyConfig) -> AnyConfig:
    """`config` with what its `mindir` or `pretrained` says where nobody else said something.

    Without such a file it is as it was. Nothing is built.

    Raises:
        UserError: the file is missing, damaged or of another network.
    """
    mindir = config.evaluation.mindir if isinstance(config, EvalRun) else None
    given = mindir or config.model.pretrained
    if not given:
        return config
    # Only the weights are asked, so only they are brought here.
    local = stage_inputs(config, keys=("mindir" if mindir else "pretrained",)).flat()
    path = Path(local["mindir"] if mindir else local["pretrained"])
    if path.suffix in _EXPORTED:
        return complete_by_record(config, read_record(path), path)
    return complete_by_checkpoint(config, read_checkpoint(path).record, path=given)
