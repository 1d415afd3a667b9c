"""Train a network on a folder of images, and leave checkpoints, scores and curves in a folder.

usage: python train.py --config src/configs/NAME.yaml [--KEY VALUE ...]

The network begins with new weights, with those of --pretrained FILE, or where a run stopped
(--resume auto).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import Config
from src.checkpoints.named_weights import stage_weights
from src.runtime.device import prepare_import, setup_device
from src.runtime.entry import run_entry_point
from src.runtime.ranks import World
from src.storage.staging import localize_output, uploads


def train(config: Config) -> None:
    """Trains from scratch, from `pretrained` weights or from where `resume` stopped."""
    from src.checkpoints.tensor_file import is_whole

    train_url = config.train.train_url
    has_run_log = not (config.train.dry_run or config.train.profile)
    # Weights by name are converted, which imports MindSpore.
    prepare_import(config.run, has_run_log=has_run_log)
    config = localize_output(stage_weights(config), continues=True, is_whole=is_whole)
    world = setup_device(config.run, seed=config.train.seed, has_run_log=has_run_log)
    # MindSpore is imported by now, after the arguments are known to be good: a misspelt key costs a
    # tenth of a second.
    from src.checkpoints.complete_config import complete_by_data
    from src.runs.lock import sole_writer

    config = complete_by_data(config)
    with sole_writer(config, world) as is_ours:
        _train(config, world, train_url, is_ours=is_ours)


def _train(
    config: Config, world: World, train_url: Optional[str], *, is_ours: Callable[[], bool]
) -> None:
    from src.checkpoints.tensor_file import is_whole
    from src.data.imagenet import create_dataset
    from src.trainer.dry_run import dry_run, profile
    from src.trainer.resuming import check_same_data
    from src.trainer.run import build_run, build_trainer

    run = build_run(config, world)
    rank, size = world.rank, world.size
    trained = run.resumed.trained_classes("resume") if run.resumed else None
    start = run.state.step
    train_set = create_dataset(config, True, rank, size, start_step=start, trained=trained)
    if run.resumed:
        run.state.note(check_same_data(config, run.resumed, train_set, world))
        before = run.resumed.record.steps_per_epoch
        run.state.renumber_epochs(before, train_set.steps_per_epoch)
    val_set = create_dataset(config, False, rank, size)
    if config.train.dry_run:
        return dry_run(config, run, (train_set, val_set))
    if config.train.profile:
        return profile(config, run, (train_set, val_set))
    run.checkpoints.is_ours = is_ours
    trainer = build_trainer(config, run, train_set=train_set, val_set=val_set)
    with uploads(train_url, config, is_main=world.is_main, is_whole=is_whole) as send:
        run.checkpoints.on_save = send
        trainer.announce()
        trainer.run()
        trainer.conclude()


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(train, argv, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
