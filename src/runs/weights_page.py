"""What the page of an evaluation shows of the run that made the weights."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List

from ..args import Config
from ..checkpoints.saved_record import SavedRecord
from ..configs import parser
from ..runtime.regular_files import RECIPE_BYTES, read_text
from .markup import Section
from .own_files import epoch_of
from .records import read_records
from .run_page import Rows, choice_bias, count_evaluations, curves_section, recipe_section

# Keys that say, with data_url, which images a run is evaluated on.
_CHOICE = ("set", "val_share", "train_list", "val_list", "label_separator")
# A line of the config.yaml of a run: key, value, where that came from.
_LINE = re.compile(r"^(\w+): (.*)  # (.*)$", re.M)


def curves_of(record: SavedRecord, path: Path) -> List[Section]:
    """The curves of the run, where its metrics.csv is beside the checkpoint at `path`."""
    rows = _rows(path.parent / "metrics.csv") if record.step is not None else []
    return [curves_section(rows, record.changes or [])] if rows else []


def recipe_of(record: SavedRecord, path: Path) -> List[Section]:
    """The recipe of the run; of converted weights none is known."""
    recipe = record.recipe(str(path)) if record.step is not None else None
    if recipe is None:
        return []
    origins = origins_of(recipe, path.parent / "config.yaml")
    return [recipe_section(recipe, origins, title="Recipe of the training")]


def choice_of(record: SavedRecord, path: Path, config: Config) -> str:
    """That these images have chosen the weights at `path`, where `config` evaluates on them."""
    trained = record.recipe(str(path)) if record.step is not None else None
    is_best = path.name == "best.ckpt" or (
        "best.ckpt" in (record.names or ()) and epoch_of(path.name) is None
    )
    if trained is None or not is_best or path.name == "last.ckpt":
        return ""
    data = [
        (os.path.abspath(recipe.data.data_url), *(getattr(recipe.data, key) for key in _CHOICE))
        for recipe in (trained, config)
    ]
    count = count_evaluations(_rows(path.parent / "metrics.csv"))
    return choice_bias(count) if data[0] == data[1] and count != 1 else ""


def epochs_of(record: SavedRecord) -> str:
    """`7.5 (330 steps)`; empty where it does not say."""
    if record.step is None or record.steps_per_epoch is None:
        return ""
    return f"{record.step / record.steps_per_epoch:.4g} ({record.step} steps)"


def origins_of(recipe: Config, path: Path) -> Dict[str, str]:
    """Key -> where its value came from, by the config.yaml of the run where that has this value."""
    try:
        told = {
            key: (value, origin)
            for key, value, origin in _LINE.findall(read_text(path, RECIPE_BYTES))
        }
    except (OSError, ValueError):
        told = {}
    defaults = Config().flat()
    found = {}
    for key, value in recipe.flat().items():
        shown, origin = told.get(key, ("", ""))
        silent = parser.DEFAULT if value == defaults[key] else "the checkpoint"
        found[key] = origin if shown == parser.to_flow(value) else silent
    return found


def _rows(path: Path) -> Rows:
    try:
        return read_records(path)
    except (OSError, ValueError):
        return []
