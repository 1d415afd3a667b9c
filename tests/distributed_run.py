"""Runs of train.py on several ranks of this machine's CPU, for tests that look at a whole run."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def losses(run: Path) -> List[float]:
    return [float(row["loss"]) for row in rows(run) if row["loss"]]


def rows(run: Path) -> List[Dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def msrun(num_ranks: int, logs: Path, *command: str) -> subprocess.CompletedProcess:
    """`python command...` on that many ranks, by MindSpore's own launcher."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run", "--join=True"),
            *(f"--worker_num={num_ranks}", f"--local_worker_num={num_ranks}"),
            *(f"--master_port={free_port()}", f"--log_dir={logs}", *command),
        ],
        capture_output=True,
        text=True,
        # msrun starts what the shell calls `python`.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
