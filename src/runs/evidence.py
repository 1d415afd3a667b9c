"""What the folder of a run says of itself, and whether its files agree with each other.

The rows of metrics.csv hold a digest for each save, the checkpoints their weights and the recipe.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..args import Config, from_saved_text
from ..checkpoints.examined import Examined, examine
from ..configs.parser import keys_marked, to_flow
from ..errors import UserError, on_one_line
from ..runtime.regular_files import RECIPE_BYTES, read_text
from .own_files import epoch_of
from .records import read_records

Row = Dict[str, str]


class Evidence(NamedTuple):
    """Of one run.

    Attributes:
        rows: of metrics.csv.
        checkpoints: each file once, by their steps.
        recipe: config.yaml.
    """

    folder: Path
    rows: List[Row]
    checkpoints: List[Examined]
    recipe: Config

    def digests(self) -> Dict[int, Row]:
        """Step -> the row with the digest of what was saved then."""
        return {int(row["step"]): row for row in self.rows if row.get("weights")}

    def at(self, step: int) -> List[Examined]:
        """The checkpoints of a step, damaged ones too."""
        return [checkpoint for checkpoint in self.checkpoints if checkpoint.step == step]

    def contradicts(self, checkpoint: Examined) -> bool:
        """Whether a whole file has other weights than its row says."""
        row = self.digests().get(checkpoint.step or 0)
        return bool(row and checkpoint.weights and row["weights"] != checkpoint.weights)


def read_evidence(folder: Path) -> Evidence:
    """Reads all checkpoints of a run to their ends.

    Raises:
        UserError: no run, or one without a digest; a file of it that cannot be read.
    """
    for name in ("metrics.csv", "config.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"run {str(folder)!r}: has no {name}; give the folder of a run")
    try:
        rows = read_records(folder / "metrics.csv")
        recipe = from_saved_text(
            read_text(folder / "config.yaml", RECIPE_BYTES), str(folder / "config.yaml")
        )
        checkpoints = [examine(names[0], [p.name for p in names]) for names in _files(folder)]
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"run {str(folder)!r}: cannot be read ({on_one_line(error)})") from error
    found = Evidence(folder, rows, sorted(checkpoints, key=lambda c: c.step or 0), recipe)
    if not found.digests():
        raise UserError(
            f"run {str(folder)!r}: its metrics.csv holds no digest of weights; an older version "
            "trained it, and only what is saved from now on has one"
        )
    return found


def _files(folder: Path) -> List[List[Path]]:
    """The paths of each checkpoint; those of one file together."""
    by_file: Dict[Tuple[int, int], List[Path]] = {}
    for path in sorted(folder.glob("*.ckpt")):
        if path.name in ("last.ckpt", "best.ckpt") or epoch_of(path.name) is not None:
            state = os.stat(path)
            by_file.setdefault((state.st_dev, state.st_ino), []).append(path)
    return list(by_file.values())


def contradictions(evidence: Evidence) -> List[str]:
    """What needs no repetition: files that are not as they were written, or contradict others."""
    found = []
    for checkpoint in evidence.checkpoints:
        if checkpoint.damage:
            found.append(f"{checkpoint}: damaged ({checkpoint.damage})")
        elif evidence.contradicts(checkpoint):
            due = evidence.digests()[checkpoint.step or 0]["weights"]
            found.append(
                f"{checkpoint}: its weights have the digest {checkpoint.weights}, and by "
                f"metrics.csv those of step {checkpoint.step} had {due}"
            )
    return found + _changed_keys(evidence)


def _changed_keys(evidence: Evidence) -> List[str]:
    """Keys in which config.yaml and the recipe inside a checkpoint differ."""
    there = evidence.recipe.flat()
    keys = set(there) - set(keys_marked(Config, "free"))
    differing: Dict[Tuple[str, str], List[str]] = {}
    whole = [c for c in evidence.checkpoints if not c.damage]
    if len({c.record.world_size for c in whole if c.record}) > 1:
        keys.remove("batch_size")  # as many images on another number of ranks
    for checkpoint in whole:
        for key, value in _recipe_of(checkpoint).items():
            if key in keys and value != there[key]:
                differing.setdefault((key, to_flow(value)), []).append(str(checkpoint))
    return [
        f"{key}: {to_flow(there[key])} in config.yaml, and {value} in {', '.join(names)}"
        for (key, value), names in differing.items()
    ]


def _recipe_of(checkpoint: Examined) -> Dict[str, Any]:
    recipe = checkpoint.record.recipe(str(checkpoint.path)) if checkpoint.record else None
    return recipe.flat() if recipe else {}


class Plan(NamedTuple):
    """What to repeat: the steps after those of a checkpoint, to the last of some digests."""

    start: Examined
    steps: List[int]


def plan_repetition(
    evidence: Evidence, *, steps: Optional[int], checkpoint: Optional[Path]
) -> Optional[Plan]:
    """From which checkpoint to go on, and to which digests.

    Args:
        steps: at most so many; None: to the next digest.
        checkpoint: to start from; None: the newest with a digest after it, or the one before a
            file that contradicts its row or is damaged.

    Returns:
        None: of all checkpoints with a digest after them none can be trusted.

    Raises:
        UserError: there is no digest to compare with.
    """
    files = _wanted(evidence, checkpoint)
    later = {c.path: [s for s in evidence.digests() if s > (c.step or 0)] for c in files}
    # Of one without a row it is not known whether it is still as it was.
    usable = [c for c in files if c.step in evidence.digests() and later[c.path]]
    if not usable and any(c.damage for c in files):
        return None  # which step it is of may not be known
    if not usable:
        raise UserError(
            f"run {str(evidence.folder)!r}: no digest comes after {', '.join(map(str, files))}; "
            "train with --save_every 1, which keeps a checkpoint of the epoch before"
        )
    trusted = [c for c in usable if not c.damage and not evidence.contradicts(c)]
    if not trusted:
        return None
    start = max(trusted, key=lambda c: (_leads_to_doubt(evidence, later[c.path][0]), c.step or 0))
    ends = later[start.path]
    if steps is None:
        return Plan(start, ends[:1])
    reached = [step for step in ends if step <= (start.step or 0) + steps]
    if not reached:
        least = ends[0] - (start.step or 0)
        raise UserError(
            f"--steps {steps}: the next digest after {start} (step {start.step}) is that of step "
            f"{ends[0]}; give --steps {least} or more"
        )
    return Plan(start, reached)


def _wanted(evidence: Evidence, checkpoint: Optional[Path]) -> List[Examined]:
    if checkpoint is None:
        return evidence.checkpoints
    found = [c for c in evidence.checkpoints if checkpoint.name in c.names]
    if not found or checkpoint.absolute().parent != evidence.folder.absolute():
        names = ", ".join(map(str, evidence.checkpoints))
        raise UserError(
            f"--checkpoint {str(checkpoint)!r}: is none of {evidence.folder}; give one of {names}"
        )
    return found


def _leads_to_doubt(evidence: Evidence, step: int) -> bool:
    return any(c.damage or evidence.contradicts(c) for c in evidence.at(step))
