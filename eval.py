"""Evaluate a checkpoint: `python eval.py --config src/configs/NAME.yaml --pretrained FILE.ckpt`.

With `--mindir FILE.mindir` a file of export.py instead.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, Sequence

# Which `python -P` does not do.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from src.args import EvalRun
from src.errors import UserError
from src.runtime.device import setup_device
from src.runtime.entry import run_entry_point
from src.runtime.files import write_json
from src.storage.staging import localize_output, stage_inputs, uploads


def evaluate_network(config: EvalRun) -> None:
    """Prints one line of scores over the validation set and writes report.json."""
    if bool(config.model.pretrained) == bool(config.evaluation.mindir):
        raise UserError("eval.py needs --pretrained FILE.ckpt or --mindir FILE.mindir, one of them")
    train_url = config.train.train_url
    config = localize_output(stage_inputs(config), continues=False)
    world = setup_device(config.run, seed=config.train.seed)
    from src.data.imagenet import create_dataset
    from src.runtime.float_status import create_float_status
    from src.serving.exported_network import open_mindir
    from src.trainer.build import build_eval_net
    from src.trainer.evaluate import evaluate
    from src.trainer.open_checkpoint import open_checkpoint

    checkpoint = None
    if config.evaluation.mindir:
        net, config = open_mindir(config)
    else:
        network, config, checkpoint = open_checkpoint(config)
        net = build_eval_net(config, network)
    dataset = create_dataset(config, False, world.rank, world.size)
    if config.evaluation.report:
        if world.size > 1:
            raise UserError(
                f"report {config.evaluation.report!r}: is made by one process, not several"
            )
        result = _write_report(config, checkpoint, net, dataset)
    else:
        status = create_float_status(config.run)
        result = evaluate(net, dataset, world, float_status=status)
    if world.is_main:
        with uploads(train_url, config, is_main=True):
            _write_result(config, result)


def _source(config: EvalRun) -> str:
    return str(config.evaluation.mindir or config.model.pretrained)


def _write_result(config: EvalRun, result: Any) -> None:
    from src.runs.folder import run_folder

    source = _source(config)
    if not math.isfinite(result.loss):
        logging.getLogger(__name__).warning(
            "loss %s: some logits are not finite numbers and count as wrong; --amp_level O0 may "
            "cure it",
            result.loss,
        )
    print(
        f"top-1 {result.top1:.3f} %  top-5 {result.top5:.3f} %  loss {result.loss:.4f}  "
        f"images {result.images}  {config.model.arch}  {source}"
    )
    folder = run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "arch": config.model.arch,
        "checkpoint": source,
        "weights": "ema" if config.train.ema else "raw",
        "data_url": config.data.data_url,
        **asdict(result),
    }
    path = folder / "report.json"
    write_json(path, report)
    logging.getLogger(__name__).info("wrote %s", path)


def _write_report(config: EvalRun, checkpoint: Any, eval_net: Any, dataset: Any) -> Any:
    """Evaluates `eval_net`, and after it the averaged weights where the checkpoint has both."""
    from src.checkpoints.checkpoint import STATE_PREFIX
    from src.report.class_names import imagenet_names
    from src.report.outcomes import Collector
    from src.report.page import MISTAKES, create_folder, write_report
    from src.runtime.float_status import create_float_status
    from src.trainer.evaluate import evaluate
    from src.trainer.open_checkpoint import load_network

    folder = Path(str(config.evaluation.report))
    create_folder(folder)
    status = create_float_status(config.run)
    known = imagenet_names()
    names = [known.get(name, name) for name in dataset.class_names]

    def one_pass(weights: str) -> Any:
        collector = Collector(keep=MISTAKES)
        result = evaluate(eval_net, dataset, watch=collector.add, float_status=status)
        return collector.outcomes(weights, result, dataset.file_name, names), collector

    passes = [one_pass("ema" if config.train.ema else "raw")]
    tensors = checkpoint.tensors if checkpoint and not config.train.ema else {}
    if any(name.startswith(f"{STATE_PREFIX}ema.") for name in tensors):
        load_network(eval_net.network, checkpoint.averaged(), config)
        passes.append(one_pass("ema"))
    facts = {
        "arch": config.model.arch,
        "checkpoint": _source(config),
        "data": config.data.data_url,
        "image size": str(config.model.image_size),
    }
    real = config.evaluation.real_labels
    page = write_report(folder, passes, facts=facts, real_labels=Path(real) if real else None)
    logging.getLogger(__name__).info("wrote %s", page)
    return passes[0][0].result


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(evaluate_network, argv, EvalRun)


if __name__ == "__main__":
    sys.exit(main())
