"""Find out why a run gave up: repeat the step whose gradient was not finite, and name the weight.

usage: python scripts/replay_step.py --config RUN/config.yaml --resume RUN/overflow.ckpt

This command is in overflow.json of the run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.args import Config
from src.errors import UserError
from src.runtime.device import setup_device
from src.runtime.entry import run_entry_point


def replay(config: Config) -> None:
    """Prints the loss and the first weight whose gradient is not finite."""
    if not config.train.resume or config.train.resume == "auto":
        raise UserError("resume: replay_step.py needs --resume RUN/overflow.ckpt")
    setup_device(config.run, seed=config.train.seed)
    from src.checkpoints.checkpoint import load_parameters, read_checkpoint
    from src.trainer import forensics
    from src.trainer.build import build_network, build_train_step

    path = Path(config.train.resume)
    # What it looks for may be in the weights already.
    checkpoint = read_checkpoint(path, must_be_finite=False)
    train_step = build_train_step(
        config,
        build_network(config),
        class_names=checkpoint.record.class_names if config.optim.class_weights else None,
        images_per_class=checkpoint.record.images_per_class,
    )
    load_parameters(train_step.saved_parameters(), checkpoint, target="this recipe")
    finding, scale = forensics.replay(train_step, path.parent)
    print(
        f"step {checkpoint.record.step}  loss {finding.loss:g}  loss scale {scale:g}  first "
        f"gradient that is not finite: {finding.place()}"
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(replay, argv, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
