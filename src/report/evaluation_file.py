"""The scores of one evaluation as a file beside the weights, named after what was evaluated."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Dict

from ..runtime.files import numbered, write_whole
from ..runtime.regular_files import read_regular

KIND, VERSION = "evaluation", 1
# Of a data set's name, as a part of a file's.
_MOST_CHARS = 60


def evaluation_name(source: Path, *, weights: str, data_url: str) -> str:
    """`eval_best_digits_val`, `eval_best_ema_digits_val`, `eval_net.mindir_digits_val`.

    Args:
        source: the file of weights; only other endings than .ckpt are kept.
        weights: `raw` or `ema`.
        data_url: whose val/ was evaluated.
    """
    stem = source.stem if source.suffix == ".ckpt" else source.name
    data = re.sub(r"[^\w.-]+", "-", Path(data_url).absolute().name)[:_MOST_CHARS]
    parts = ["eval", stem, *(["ema"] if weights == "ema" else []), data, "val"]
    return "_".join(part for part in parts if part)


def write_evaluation(folder: Path, name: str, content: Dict[str, Any]) -> Path:
    """Writes FOLDER/NAME.json, or NAME_2.json, ... where others of that name have other content.

    Returns:
        The file, maybe one of before that says just this.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    text = (json.dumps({"kind": KIND, "version": VERSION, **content}, indent=2) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for path in numbered(folder / f"{name}.json"):
        if not path.exists():
            write_whole(path, text)
            break
        with contextlib.suppress(OSError):  # what is larger, or no file, says something else
            if read_regular(path, len(text)) == text:
                break
    return path
