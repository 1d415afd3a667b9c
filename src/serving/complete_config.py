"""The configuration a program works with once the file of weights has been asked."""

from __future__ import annotations

from pathlib import Path

from ..args import AnyConfig, replace
from ..checkpoints.checkpoint import read_checkpoint
from ..checkpoints.complete_config import complete_by_checkpoint
from ..checkpoints.named_weights import stage_weights
from ..runtime.files import write_whole
from ..runtime.regular_files import RECORD_BYTES, read_regular
from ..storage.remote_files import is_url
from .export_record import read_record, record_path
from .exported_network import complete_by_record, is_exported


def complete_by_file(config: AnyConfig) -> AnyConfig:
    """`config` with what its `pretrained` says where nobody else said something.

    Without such a file it is as it was. Nothing is built.

    Raises:
        UserError: the file is missing, damaged or of another network.
    """
    given = config.model.pretrained
    if not given:
        return config
    path = _staged(config, given)
    if not is_exported(path):
        return complete_by_checkpoint(config, read_checkpoint(path).record, path=given)
    if is_url(given):
        # Whose record lies beside it there, and must here.
        record = _staged(config, f"{given}.json")
        if record != record_path(path):
            write_whole(record_path(path), read_regular(record, RECORD_BYTES))
    return complete_by_record(config, read_record(path), path)


def _staged(config: AnyConfig, given: str) -> Path:
    """Where that file is on this host; nothing else of the recipe is brought here."""
    staged = stage_weights(replace(config, pretrained=given), keys=("pretrained",))
    return Path(str(staged.model.pretrained))
