"""Train a network: `python train.py --config src/configs/NAME.yaml [--KEY VALUE ...]`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Optional, Sequence

from src.args import Config, to_yaml
from src.tools.device import setup_device
from src.tools.entry import run_entry_point

_LOGGER = logging.getLogger(__name__)


def train(config: Config) -> None:
    """Trains from scratch, from `pretrained` weights or from where `resume` stopped."""
    setup_device(config.run, seed=config.train.seed)
    # MindSpore is imported here, after the arguments are known to be good: a misspelt key costs a
    # tenth of a second.
    from src.data.imagenet import create_dataset
    from src.tools.checkpoint import CheckpointFolder, load_parameters, read_checkpoint, run_folder
    from src.tools.records import Records, draw_curves, read_records
    from src.tools.schedulers import create_lr_schedule
    from src.trainer.build import build_eval_net, build_network, build_train_step, load_network
    from src.trainer.loop import RunState, Trainer

    folder = run_folder(config)
    checkpoints = CheckpointFolder(
        folder, save_every=config.train.save_every, keep_max=config.train.keep_checkpoint_max
    )
    resumed = checkpoints.find_resumed(config.train.resume)
    state = RunState.from_meta(resumed.meta) if resumed else RunState()
    train_set = create_dataset(config, training=True, start_step=state.step)
    val_set = create_dataset(config, training=False)
    network = build_network(config)
    if config.model.pretrained and not resumed:
        load_network(network, read_checkpoint(Path(config.model.pretrained)), config)
    train_step = build_train_step(config, network)
    if resumed:
        load_parameters(train_step.get_parameters(), resumed, target="this recipe")
        _LOGGER.info("resumed from %s at step %d", resumed.path, state.step)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config, with_origins=True), encoding="utf-8")
    schedule = create_lr_schedule(
        config.optim, epochs=config.train.epochs, steps_per_epoch=train_set.steps_per_epoch
    )
    trainer = Trainer(
        config,
        train_step,
        build_eval_net(config, network),
        train_set=train_set,
        val_set=val_set,
        lr_schedule=schedule,
        checkpoints=checkpoints,
        records=Records(folder / "metrics.csv", first_step=state.step),
        state=state,
    )
    state = trainer.run()
    draw_curves(
        read_records(folder / "metrics.csv"), folder / "curves.png", title=config.model.arch
    )
    _LOGGER.info(
        "best val top-1 %.3f %% in epoch %d; checkpoints, metrics.csv and curves.png are in %s",
        state.best_top1,
        state.best_epoch,
        folder,
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(train, argv)


if __name__ == "__main__":
    sys.exit(main())
