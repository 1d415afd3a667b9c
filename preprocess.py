"""Prepare validation images for the C++ program: files of pixels, their labels and a manifest.

usage: python preprocess.py --dataset_name NAME --data_path DIR [--KEY VALUE ...]

With --for_mindir FILE.mindir the pixels are what that file of export.py expects; else --config
says how they are made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional, Sequence, Tuple

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import PreprocessRun, replace
from src.configs.parser import COMMAND_LINE
from src.data.classes import TrainedClasses
from src.runtime.entry import run_entry_point
from src.runtime.files import check_output_folder
from src.settings.programs import DATASET_NAMES


def inputs_recipe(
    config: PreprocessRun,
) -> Tuple[PreprocessRun, int, Optional[TrainedClasses]]:
    """The recipe of the inputs, how many images each file has, and the network's classes."""
    from src.serving.export_record import TRANSFORM_KEYS, read_record

    batch_size = config.serving_batch()
    options = config.preprocess
    values, trained = {}, None
    if options.for_mindir:
        record = read_record(Path(options.for_mindir))
        values = {
            key: value
            for key, value in record.settings().items()
            if not (key in TRANSFORM_KEYS and config.origins[key] == COMMAND_LINE)
        }
        trained = record.trained_classes(f"for_mindir {options.for_mindir!r}")
        batch_size = record.batch_size or batch_size
    if options.dataset_name:
        values["set"] = DATASET_NAMES[options.dataset_name.lower()]
    if options.data_path:
        values["data_url"] = options.data_path
    return replace(config, **values), batch_size, trained


def preprocess(config: PreprocessRun) -> None:
    """Writes inputs, labels and manifest, and prints where."""
    from src.serving.input_files import write_inputs
    from src.storage.staging import stage_inputs

    check_output_folder("result_path", Path(config.preprocess.result_path))
    config, batch_size, trained = inputs_recipe(config)
    config = stage_inputs(config)
    if config.model.pretrained and not config.preprocess.for_mindir:
        from src.serving.complete_config import complete_by_file

        config = complete_by_file(config)
    if not (config.model.num_classes and config.model.image_size):
        from src.checkpoints.complete_config import complete_by_data

        config = complete_by_data(config)
    count = write_inputs(config, batch_size=batch_size, trained=trained)
    print(f"wrote {count} inputs of {batch_size} to {config.preprocess.result_path}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(preprocess, argv, PreprocessRun, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
