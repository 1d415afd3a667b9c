"""Turn a checkpoint into a file for inference: MINDIR, ONNX or AIR.

usage: python export.py --pretrained FILE.ckpt [--file_format ONNX] [--KEY VALUE ...]

A MINDIR or ONNX file is kept only if it computes what the network computes. --bundle DIR makes a
folder that can be checked on the machine where it will run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional, Sequence

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import ExportRun
from src.checkpoints.named_weights import is_name, stage_weights
from src.errors import UserError
from src.runtime.device import prepare_import, setup_device
from src.runtime.entry import run_entry_point
from src.storage.remote_files import is_url


def export(config: ExportRun) -> None:
    """Writes MINDIR, ONNX or AIR; what MindSpore reads is loaded back and compared."""
    if not config.model.pretrained:
        raise UserError("pretrained null: export.py needs --pretrained FILE.ckpt")
    given = config.model.pretrained
    is_placed = config.export.output or config.export.bundle
    if (is_url(given) or is_name(given)) and not is_placed:
        raise UserError(f"output null: {given} is no file here; give --output FILE")
    prepare_import(config.run)  # weights by name are converted, which imports MindSpore
    config = stage_weights(config)
    setup_device(config.run, seed=config.train.seed)
    from src.report.class_names import class_names
    from src.serving.export import check_export, export_checkpoint

    check_export(config)
    export_checkpoint(config, lambda count, known: class_names(count, of_weights=known))


def completed(config: ExportRun) -> ExportRun:
    """The recipe with what the checkpoint says."""
    from src.serving.complete_config import complete_by_file

    return complete_by_file(config)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(export, argv, ExportRun, complete=completed, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
