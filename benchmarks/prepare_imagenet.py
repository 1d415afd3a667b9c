"""Time and memory to unpack ImageNet's training archive: scripts/prepare_imagenet.py beside tar.

python benchmarks/prepare_imagenet.py --rounds 3

The archive is made first: 100,000 images of 100 classes, 2 KB each, where the cost of a file shows.
`tar` is what people do: it unpacks the outer archive, then each inner one into its folder, and
deletes that. The sides take turns, each in processes of its own; shown are medians, and those of
the ratio of each turn. Memory is the most that one process held.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command

CLASSES = 100
IMAGE_BYTES = 2000
TRAIN, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"
# The outer archive, the inner ones, and each of them gone when it is unpacked.
TAR = (
    'tar -xf "$0" -C "$1" && cd "$1" && for inner in *.tar; do '
    'mkdir "${inner%.tar}" && tar -xf "$inner" -C "${inner%.tar}" && rm "$inner" || exit 1; done'
)


def write_archives(folder: Path, num_images: int) -> None:
    """The training archive and a devkit."""
    from scipy.io import savemat

    synsets = [f"n{label:08d}" for label in range(1, CLASSES + 1)]
    image = os.urandom(IMAGE_BYTES)
    with tarfile.open(folder / TRAIN, "w", format=tarfile.GNU_FORMAT) as outer:
        for synset in synsets:
            names = [f"{synset}_{i}.JPEG" for i in range(num_images // CLASSES)]
            _add(outer, f"{synset}.tar", _tar_of(dict.fromkeys(names, image)))
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    rows = [(float(number), name, name, 0.0) for number, name in enumerate(synsets, 1)]
    table = np.array(rows, dtype=[(field, object) for field in fields])
    meta = io.BytesIO()
    savemat(meta, {"synsets": table})
    data = "ILSVRC2012_devkit_t12/data"
    files = {
        f"{data}/meta.mat": meta.getvalue(),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": b"1\n",
    }
    (folder / DEVKIT).write_bytes(gzip.compress(_tar_of(files)))


def _tar_of(files: Dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            _add(archive, name, data)
    return file.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def timed(command: Sequence[str]) -> Tuple[float, float, float]:
    """Seconds, seconds of the processors and MiB of a command with all its processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mib = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        mib = max(mib, _mib(process.pid))
        time.sleep(0.02)
    seconds, usage = time.perf_counter() - start, ended[2]
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, usage.ru_utime + usage.ru_stime, mib


def _mib(pid: int) -> float:
    """The most that a process or its child has held; `ru_maxrss` would count this one's too."""
    found = [0.0]
    with contextlib.suppress(OSError):  # it has ended meanwhile
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for number in (pid, *children):
            status = Path(f"/proc/{number}/status").read_text()
            found += [int(kib) / 1024 for kib in re.findall(r"VmHWM:\s+(\d+) kB", status)]
    return max(found)


def run(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    num_images = arguments.images // CLASSES * CLASSES
    found: Dict[str, List[Tuple[float, float, float]]] = {"tar": [], "prepare_imagenet.py": []}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        write_archives(root, num_images)
        program = [sys.executable, str(ROOT / "scripts" / "prepare_imagenet.py")]
        program += ["--train", str(root / TRAIN), "--devkit", str(root / DEVKIT)]
        commands = {
            "tar": ["bash", "-c", TAR, str(root / TRAIN), str(root / "tar")],
            "prepare_imagenet.py": [*program, "--output", str(root / "here"), "--allow_partial"],
        }
        for _ in range(arguments.rounds):
            for side, command in commands.items():
                (root / "tar").mkdir(exist_ok=True)
                found[side].append(timed(command))
                for folder in ("tar", "here"):
                    shutil.rmtree(root / folder, ignore_errors=True)
                os.sync()  # so that neither side waits for the other's files
    for side, rows in found.items():
        seconds, work, mib = (statistics.median(column) for column in zip(*rows))
        print(
            f"{side}: {num_images / seconds:,.0f} images/s ({seconds:.1f} s, of the processors "
            f"{work:.1f} s), {mib:.0f} MiB"
        )
    pairs = list(zip(found["prepare_imagenet.py"], found["tar"]))
    for what, column in (("time", 0), ("time of the processors", 1)):
        ratio = statistics.median(ours[column] / theirs[column] for ours, theirs in pairs)
        print(f"{what}, prepare_imagenet.py / tar: {ratio:.2f}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/prepare_imagenet.py", __doc__ or "")
    parser.add_argument("--images", type=positive, default=100_000, help="in the archive")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: TMPDIR)")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
