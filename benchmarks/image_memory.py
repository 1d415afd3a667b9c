"""What decoding takes: bytes and seconds by format, and many workers with a large image each.

python benchmarks/image_memory.py

Each format is decoded in a process of its own; its peak is counted from what the process holds with
the file's bytes in memory. Then workers, threads and processes, fill batches from PNGs and JPEGs of
`--bomb_side` pixels a side whose files are small: the peak counts all processes.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command

NUM_BOMBS = 4


def _alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(image.convert("L"))
    return image


Change = Callable[[Image.Image], Image.Image]
# (change of an RGB image, format, options)
FORMATS: Dict[str, Tuple[Change, str, Dict[str, object]]] = {
    "JPEG": (Image.Image.copy, "JPEG", {}),
    "JPEG progressive 4:4:4": (Image.Image.copy, "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG progressive CMYK": (lambda i: i.convert("CMYK"), "JPEG", {"progressive": True}),
    "PNG": (Image.Image.copy, "PNG", {"compress_level": 1}),
    "PNG alpha": (_alpha, "PNG", {"compress_level": 1}),
    "PNG palette": (lambda i: i.quantize(64), "PNG", {"compress_level": 1, "transparency": 3}),
    "TIFF LZW": (Image.Image.copy, "TIFF", {"compression": "tiff_lzw"}),
    "BMP": (Image.Image.copy, "BMP", {}),
    "GIF": (lambda i: i.quantize(64), "GIF", {}),
    "WebP alpha": (_alpha, "WEBP", {"method": 0}),
    "AVIF alpha": (_alpha, "AVIF", {"speed": 10}),
    "JPEG 2000 alpha": (_alpha, "JPEG2000", {}),
}


def held(pid: int | str = "self", what: str = "VmRSS") -> int:
    """Bytes of memory of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def decode_format(name: str, side: int) -> None:
    """Prints a line about one format."""
    from src.data.decode import LARGEST_MAX_PIXELS, Decoder

    change, kind, options = FORMATS[name]
    noise = np.random.default_rng(0).integers(0, 255, (side // 40, side // 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    change(Image.fromarray(noise).resize((side, side))).save(file, kind, **options)
    data = bytes(file.getbuffer())
    del file
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed is not counted when it is used again
    Path("/proc/self/clear_refs").write_text("5")
    before, began = held(), time.process_time()
    Decoder(LARGEST_MAX_PIXELS).decode(data, name)
    seconds = time.process_time() - began
    taken = (held(what="VmHWM") - before) / side**2
    print(f"{name:24} {len(data) / 1e6:6.1f} MB {taken:5.1f} bytes a pixel {seconds:6.2f} s")


def fill_batches(root: Path, workers: int, in_processes: bool) -> None:
    """Prints the peak of a process and its workers that read the bombs."""
    from src.data.augment.transforms import ResizeCenterCrop
    from src.data.image_folder import scan_image_folder
    from src.data.rows import Shape
    from src.data.sampler import Key
    from src.data.samples import EvalSample
    from src.data.workers import batches_of

    source = scan_image_folder(root, "val")
    fill = EvalSample(source, ResizeCenterCrop(224, 0.875, "bicubic"), False)
    peaks = [0]
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    before, began = held(), time.monotonic()
    count = 8 * workers  # which a worker takes at a time
    keys = (Key(0, index % len(source), 0) for index in range(count))
    for _ in batches_of(
        fill,
        keys,
        Shape(count, 224, 0),
        num_workers=workers,
        in_processes=in_processes,
        file_name=source.file_name,
    ):
        pass
    kind = "processes" if in_processes else "threads"
    print(
        f"{workers} {kind}, {count} images of {root.name}: {(peaks[0] - before) / 1e9:.2f} GB more "
        f"at the peak, {time.monotonic() - began:.1f} s"
    )


def _watch(peaks: list[int]) -> None:
    while True:
        children = Path("/proc/self/task").glob("*/children")
        pids = [pid for path in children for pid in path.read_text().split()]
        peaks[0] = max(peaks[0], held() + sum(map(held, pids)))
        time.sleep(0.005)


def write_bombs(root: Path, side: int) -> None:
    """Black images, a hundredth of their pixels in size or less, of the format `root` names."""
    (root / "val" / "black").mkdir(parents=True)
    first = root / "val" / "black" / f"0.{root.name}"
    Image.new("RGB", (side, side)).save(first)
    for number in range(1, NUM_BOMBS):
        os.link(first, first.with_name(f"{number}.{root.name}"))


def work(arguments: argparse.Namespace) -> None:
    """Each measurement in a process of its own."""
    for target, given in _measurements(arguments):
        process = multiprocessing.get_context("spawn").Process(target=target, args=given)
        process.start()
        process.join()


def _measurements(arguments: argparse.Namespace) -> Iterator[Tuple[Callable, Tuple]]:
    for name in FORMATS:
        yield decode_format, (name, arguments.side)
    with tempfile.TemporaryDirectory() as folder:
        for kind, in_processes in itertools.product(("png", "jpg"), (False, True)):
            root = Path(folder) / kind
            if not root.exists():
                write_bombs(root, arguments.bomb_side)
            yield fill_batches, (root, arguments.workers, in_processes)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("image_memory.py", __doc__ or "")
    parser.add_argument("--side", type=positive, default=5000, help="of each format's image")
    parser.add_argument("--bomb_side", type=positive, default=4000, help="of the workers' images")
    parser.add_argument("--workers", type=positive, default=16, help="threads, then processes")
    return run_command(work, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
