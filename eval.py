"""Evaluate a checkpoint: `python eval.py --config src/configs/NAME.yaml --pretrained FILE.ckpt`.

With `--mindir FILE.mindir` a file of export.py instead.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Optional, Sequence

from src.args import EvalRun
from src.data.data_utils.staging import localize_output, stage_inputs, uploads
from src.errors import UserError
from src.tools.device import setup_device
from src.tools.entry import run_entry_point


def evaluate_network(config: EvalRun) -> None:
    """Prints one line of scores over the validation set and writes report.json."""
    if bool(config.model.pretrained) == bool(config.evaluation.mindir):
        raise UserError("eval.py needs --pretrained FILE.ckpt or --mindir FILE.mindir, one of them")
    train_url = config.train.train_url
    config = localize_output(stage_inputs(config), continues=False)
    world = setup_device(config.run, seed=config.train.seed)
    from src.data.imagenet import create_dataset
    from src.tools.checkpoint import read_checkpoint, run_folder
    from src.trainer.build import build_eval_net, build_network, load_network
    from src.trainer.evaluate import evaluate
    from src.trainer.served import open_mindir

    if config.evaluation.mindir:
        source = Path(config.evaluation.mindir)
        net, config = open_mindir(config)
        dataset = create_dataset(config, False, world.rank, world.size)
    else:
        checkpoint = read_checkpoint(Path(config.model.pretrained or ""))
        if config.train.ema:
            checkpoint = checkpoint.averaged()
        source = checkpoint.path
        dataset = create_dataset(config, False, world.rank, world.size)
        network = build_network(config)
        load_network(network, checkpoint, config)
        net = build_eval_net(config, network)
    result = evaluate(net, dataset, world)
    if not world.is_main:
        return
    print(
        f"top-1 {result.top1:.3f} %  top-5 {result.top5:.3f} %  loss {result.loss:.4f}  "
        f"images {result.images}  {config.model.arch}  {source}"
    )
    folder = run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "arch": config.model.arch,
        "checkpoint": str(source),
        "weights": "ema" if config.train.ema else "raw",
        "data_url": config.data.data_url,
        **asdict(result),
    }
    path = folder / "report.json"
    with uploads(train_url, config, is_main=world.is_main):
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    logging.getLogger(__name__).info("wrote %s", path)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(evaluate_network, argv, EvalRun)


if __name__ == "__main__":
    sys.exit(main())
