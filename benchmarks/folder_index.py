"""Time and memory to list 200,000 images, without and with the index cache.

python benchmarks/folder_index.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, run_command

NUM_CLASSES, IMAGES_PER_CLASS = 1000, 200


def write_links(root: Path) -> None:
    """Hard links to one file per class: file systems limit the links of a file."""
    for split, count in (("train", IMAGES_PER_CLASS), ("val", 1)):
        for label in range(NUM_CLASSES):
            folder = root / "data" / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            file = root / f"{split}{label}"
            file.touch()
            for i in range(count):
                os.link(file, folder / f"n{label:08d}_{i:05d}.JPEG")


def run(_arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    from src.data.image_folder import scan_image_folder

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_links(root)
        # Folders that changed just now are not trusted to the cache.
        time.sleep(2.5)
        seconds = []
        for _ in range(6):
            start = time.perf_counter()
            images = scan_image_folder(root / "data", "train")
            seconds.append(time.perf_counter() - start)
        size = len(images.names) + images.ends.nbytes + images.labels.nbytes
        again = sorted(seconds[1:])[len(seconds[1:]) // 2]
        print(f"{len(images)} images: {seconds[0]:.3f} s, from the index {again:.3f} s")
        print(f"first / later starts: {seconds[0] / again:.1f}")
        print(f"{size / len(images):.1f} bytes per image in memory")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(run, CommandParser("benchmarks/folder_index.py", __doc__ or ""), argv)


if __name__ == "__main__":
    sys.exit(main())
