"""Check a run: repeat some of its steps, and compare the weights with the digests it left.

python scripts/verify_run.py RUN [--steps N] [--checkpoint RUN/epoch_NNN.ckpt] [--KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.args import Config, RunConfig, parse_args, with_values
from src.configs.parser import COMMAND_LINE
from src.errors import UserError
from src.runtime.entry import CommandParser, finite, parse_recipe, positive, run_parsed

_ABOUT = """\
Check a run: repeat some of its steps, and compare the weights with the digests in its metrics.csv.
Before that every checkpoint is compared with its own digest and its row in metrics.csv, and
config.yaml with the recipe inside the checkpoints. Nothing in RUN is written.

--KEY VALUE: keys of a recipe that do not change what it computes, such as --device_target, or
--data_url where the images are elsewhere now.

Exit code 0: all agrees; 1: something does not, and is named; 2: it cannot be repeated."""


def verify(arguments: argparse.Namespace, keys: Sequence[str]) -> int:
    """Prints what agrees and what does not; returns the exit code.

    Args:
        keys: words of the command line that are keys of a recipe.
    """
    from src.runtime.device import prepare_import

    prepare_import(RunConfig())
    from src.runs.evidence import contradictions, plan_repetition, read_evidence

    evidence = read_evidence(arguments.run)
    given = _given(["--config", str(arguments.run / "config.yaml"), *keys])
    for checkpoint in evidence.checkpoints:
        state = "damaged" if checkpoint.damage else f"weights {checkpoint.weights}"
        step = "?" if checkpoint.step is None else checkpoint.step
        print(f"{checkpoint}: step {step}, {state}")
    findings = contradictions(evidence)
    plan = plan_repetition(evidence, steps=arguments.steps, checkpoint=arguments.checkpoint)
    if plan is None:
        print("nothing is repeated: no checkpoint with a digest after it can be trusted")
        return _conclude(findings)
    return _conclude(findings + _repeat(arguments, given, evidence, plan))


def _repeat(
    arguments: argparse.Namespace, given: Dict[str, Any], evidence: Any, plan: Any
) -> List[str]:
    """Findings of a repetition."""
    from src.checkpoints.named_weights import stage_weights
    from src.runtime.device import setup_device
    from src.runtime.processor import describe_processor

    record = plan.start.record
    recipe = record.recipe(str(plan.start.path))
    if recipe is None:
        raise UserError(f"{plan.start.path}: says no recipe; only train.py's can be repeated")
    config = _recipe_here(recipe, given, record.world_size)
    with tempfile.TemporaryDirectory() as folder:
        here = {"resume": str(plan.start.path), "train_url": folder}
        config = stage_weights(with_values(config, here, origin=COMMAND_LINE))
        if setup_device(config.run, seed=config.train.seed).size > 1:
            raise UserError("verify_run.py: repeats a run in one process; leave the launcher out")
        from src.data.decode import BadImageError
        from src.trainer.dry_run import release_log
        from src.trainer.verifying import judge, repeat

        trained, now = (record.versions or {}).get("processor", "?"), describe_processor()
        print(f"from {plan.start}, step {plan.start.step}, to {plan.steps[-1]} on {now}")
        if trained != now:
            print(f"the run was on {trained}: last bits may differ, see --tolerance")
        try:
            repetition = repeat(config, evidence, plan, Path(folder))
        except BadImageError as error:
            return [f"images: {error}"]
        finally:
            release_log()
        verdict = judge(evidence, plan, repetition, tolerance=arguments.tolerance)
    for note in verdict.notes:
        print(note)
    return verdict.findings


def _given(words: List[str]) -> Dict[str, Any]:
    """The values of keys that the command line gives."""
    config = parse_args(words)
    return {k: v for k, v in config.flat().items() if config.origins[k] == COMMAND_LINE}


def _recipe_here(recipe: Config, given: Dict[str, Any], world_size: int) -> Config:
    """The recipe for one process, without what only its run did beside training."""
    off: Dict[str, Any] = {"allow_config_change": False, "tensorboard": False, "take_over": False}
    off.update(dry_run=False, profile=0, pretrained=None, batch_size=recipe.data.batch_size)
    off["batch_size"] *= world_size
    return with_values(recipe, {**off, **given}, origin=COMMAND_LINE)


def _conclude(findings: List[str]) -> int:
    for finding in findings:
        print(f"FOUND {finding}")
    print(f"{len(findings)} finding(s)" if findings else "all agrees")
    return 1 if findings else 0


def _parser() -> CommandParser:
    parser = CommandParser("verify_run.py", _ABOUT)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument(
        "--steps", type=positive, help="repeat at most so many steps (default: to the next digest)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="start from this file of RUN (default: the newest that has a digest after it, or "
        "the one before a file that is not as it was)",
    )
    parser.add_argument(
        "--tolerance",
        type=finite,
        default=0.0,
        help="on another machine: weights may differ by this part of the largest number of their "
        "tensor (default 0: to the bit)",
    )
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments, keys = _parser().parse_with_keys(argv)
    parse_recipe(keys)  # says what is no key, whatever RUN is
    return run_parsed(lambda arguments: verify(arguments, keys), arguments)


if __name__ == "__main__":
    sys.exit(main())
