"""Runs of train.py on several ranks of this machine's CPU, for tests that look at a whole run."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Dict, List

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
GLOBAL_BATCH = 12
STEPS = 20
VAL_IMAGES = 101


def write_images(root: Path) -> Path:
    """20 steps of training images and 101 for validation, in 4 classes told by a bright stripe."""
    rng = np.random.default_rng(0)
    for split, count in (("train", GLOBAL_BATCH * STEPS), ("val", VAL_IMAGES)):
        for number in range(count):
            label = number % 4
            image = rng.integers(0, 128, (32, 32, 3))
            image[8 * label : 8 * label + 8] += 127
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:04d}.png")
    return root


def words(images: Path, run: Path, batch_size: int, *more: str) -> List[str]:
    """A small DeiT with everything on that is drawn per sample; nothing that is drawn per batch."""
    return [
        *("--arch", "deit_tiny_patch16_224", "--image_size", "32", "--num_classes", "4"),
        *("--model_args", "{embed_dim: 48, depth: 2, num_heads: 3, patch_size: 8}"),
        *("--data_url", str(images), "--train_url", str(run), "--batch_size", str(batch_size)),
        *("--drop_path_rate", "0.2", "--auto_augment", "rand-m9-mstd0.5-inc1"),
        *("--re_prob", "0.25", "--label_smoothing", "0.1", "--num_parallel_workers", "1"),
        *("--base_lr", "0.001", "--clip_global_norm_value", "1.0"),
        *("--epochs", "1", "--log_interval", "1", *more),
    ]


def losses(run: Path) -> List[float]:
    return [float(row["loss"]) for row in rows(run) if row["loss"]]


def rows(run: Path) -> List[Dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if not row.get("weights")]


def ranks_command(num_ranks: int, folder: Path, arguments: List[str]) -> List[str]:
    """The command that trains on that many ranks by the script; logs go to folder/logs."""
    empty = folder / "defaults.yaml"
    empty.write_text("seed: 1\n")
    script = ROOT / "scripts" / "run_distribute_train_cpu.sh"
    return ["bash", str(script), str(num_ranks), str(empty), *arguments]


def environment(folder: Path, **more: str) -> Dict[str, str]:
    """What the script reads: this Python, and a folder for the logs."""
    options = f"--logs {folder / 'logs'}"
    return {**os.environ, "LAUNCH_PYTHON": sys.executable, "LAUNCH_OPTIONS": options, **more}
