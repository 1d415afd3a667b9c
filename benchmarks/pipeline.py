"""Images per second of the training and evaluation pipelines, beside what users would take instead.

python benchmarks/pipeline.py

Needs requirements-dev.txt; `dali` takes part where nvidia-dali-cuda120 is installed, which runs
without a GPU. Real photographs as JPEGs of quality 95: 500x375 in batches of 128, or with `--size`
those of a telephone, 12 or 50 megapixels, in smaller batches; at 224, two workers.
`plain` is random resized crop and flip; `full` is DeiT's recipe (rand-m9-mstd0.5-inc1, bicubic,
random erasing 0.25, Mixup 0.8, CutMix 1.0). `packed` reads the same images from MindRecord, shorter
side 256, quality 95. Each loader runs in a process of its own, in turns; numbers are medians of the
turns. CPU time counts all processes of a loader, so other work on the machine disturbs it less than
the wall clock. Below each table stands what a loader computes otherwise than the recipe says.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline_loader import CHAINS, IMAGE_SIZE, LOADERS, MEAN, POLICY, missing_package

from src.errors import UserError
from src.runtime.entry import CommandParser, positive, run_command


class Photographs(NamedTuple):
    """What is written as files.

    Attributes:
        width, height: of each.
        num_images: of files, a multiple of the batch.
        batch_size: a few seconds' work.
        grain: standard deviation of the noise, which enlarged images lack.
    """

    width: int
    height: int
    num_images: int
    batch_size: int
    grain: float = 0.0


SIZES = {
    "500x375": Photographs(500, 375, 512, 128),
    "4000x3000": Photographs(4000, 3000, 32, 16, 3.0),
    "8160x6120": Photographs(8160, 6120, 8, 8, 3.0),
}
STAGES = [
    "generator",
    "read",
    "decode",
    "crop and resize",
    "flip",
    "policy",
    "erase",
    "into the batch",
    "mix of the batch",
    "copy to a Tensor",
]


def photographs() -> List[Image.Image]:
    """Real photographs from scikit-learn and scikit-image."""
    from sklearn.datasets import load_sample_images

    images = [Image.fromarray(array) for array in load_sample_images().images]
    package = importlib.util.find_spec("skimage")
    if package is not None and package.origin is not None:
        for name in ("astronaut", "chelsea", "coffee"):
            with Image.open(Path(package.origin).parent / "data" / f"{name}.png") as image:
                images.append(image.convert("RGB"))
    return images


def write_images(root: Path, wanted: Photographs = SIZES["500x375"]) -> None:
    """Different cuts of the photographs, as train/ and val/ of 8 classes."""
    rng = np.random.default_rng(0)
    sources = photographs()
    for i in range(wanted.num_images):
        source = sources[i % len(sources)]
        width = int(rng.uniform(0.6, 1.0) * min(source.width, source.height * 4 / 3))
        left = int(rng.integers(source.width - width, endpoint=True))
        top = int(rng.integers(source.height - width * 3 // 4, endpoint=True))
        cut = source.crop((left, top, left + width, top + width * 3 // 4))
        image = cut.resize((wanted.width, wanted.height), Image.Resampling.BICUBIC)
        if wanted.grain:
            image = with_grain(image, wanted.grain, rng)
        path = root / "train" / str(i % 8) / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=95)
    (root / "val").symlink_to("train")


def with_grain(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """Grey noise, which gives a large photograph about the bytes that a camera's have."""
    grain = rng.standard_normal((image.height, image.width, 1), np.float32) * deviation
    noisy = np.asarray(image) + grain
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def pack_images(root: Path) -> float:
    """Both splits as MindRecord, shorter side 256, in root/packed.

    Returns:
        Seconds of CPU time for the images of train, after those of val have loaded what it needs.
    """
    from src.data.image_folder import scan_image_folder
    from src.data.packing import PackSettings, pack_split

    seconds = 0.0
    for split in ("val", "train"):
        source = scan_image_folder(root, split)
        started = time.process_time()
        pack_split(source, root / "packed" / split, PackSettings(short_side=256), num_workers=2)
        seconds = time.process_time() - started
    return seconds


def time_stages(root: Path, batch_size: int) -> Dict[str, float]:
    """Microseconds of one thread per training image, in each of the STAGES."""
    from mindspore import Tensor

    from src.data.augment.mixup import Mixing, draw_mix
    from src.data.augment.random_erasing import RandomErasing
    from src.data.augment.transforms import (
        DrawnCrop,
        RandomResizedCrop,
        create_train_transforms,
    )
    from src.data.image_folder import scan_image_folder
    from src.data.sampler import batch_generator, sample_generator

    folder = scan_image_folder(root, "train")
    random_crop, *transforms = create_train_transforms(
        IMAGE_SIZE,
        scale=(0.08, 1.0),
        ratio=(0.75, 4 / 3),
        interpolation="bicubic",
        hflip=0.5,
        auto_augment=POLICY,
        mean=MEAN,
    )
    assert isinstance(random_crop, RandomResizedCrop)
    erasing = RandomErasing(IMAGE_SIZE, 0.25, "pixel", 1)
    seconds = dict.fromkeys(STAGES, 0.0)
    batch = np.empty((batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    # The first images compile.
    for index in [*range(min(50, len(folder))), *range(len(folder))]:
        if index == 0:
            seconds.update(dict.fromkeys(STAGES, 0.0))
        clock = _Clock(seconds)
        rng = sample_generator(0, 0, index)
        clock.stop("generator")
        data = folder.read_bytes(index)
        clock.stop("read")
        crop = DrawnCrop(random_crop, rng)
        part = folder.decoder.decode_part(data, "image", crop.box_seen)
        clock.stop("decode")
        image = crop(part)
        clock.stop("crop and resize")
        for name, transform in zip(("flip", "policy"), transforms):
            image = transform(image, rng)
            clock.stop(name)
        image = erasing.write_noise(image, erasing.draw(rng), rng)
        clock.stop("erase")
        batch[index % batch_size] = image
        clock.stop("into the batch")
        if index % batch_size == batch_size - 1:
            draw_mix(Mixing(0.8, 1.0), batch_size, IMAGE_SIZE, rng=batch_generator(0, 0, index))
            clock.stop("mix of the batch")
            Tensor.from_numpy(batch)  # as training does, which copies nothing
            clock.stop("copy to a Tensor")
    return {name: seconds[name] / len(folder) * 1e6 for name in STAGES}


def print_stages(root: Path, batch_size: int) -> None:
    """Where a training image's time goes."""
    stages = time_stages(root, batch_size)
    print("training from the folder, one thread, CPU microseconds per image:")
    for name, microseconds in {**stages, "sum": sum(stages.values())}.items():
        print(f"  {name:18s}{microseconds:8.0f}")
    bound = 1e6 / stages["decode"]
    print(f"decoding alone bounds any loader from the folder: {in_digits(bound)} images/s per core")


class _Clock:
    def __init__(self, seconds: Dict[str, float]) -> None:
        self.seconds = seconds
        self.last = time.thread_time()

    def stop(self, name: str) -> None:
        now = time.thread_time()
        self.seconds[name] += now - self.last
        self.last = now


def measure(words: Sequence[str]) -> Dict[str, float]:
    """Runs benchmarks/pipeline_loader.py in a process of its own.

    Raises:
        UserError: it fails, and has said why.
    """
    program = Path(__file__).with_name("pipeline_loader.py")
    command = [sys.executable, str(program), *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise UserError(f"{shlex.join(command)}: ended with {ended.returncode}")
    result: Dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return result


def compare(root: Path, chain: str, batch_size: int, arguments: argparse.Namespace) -> None:
    """Lets the loaders take turns, and prints medians and ratios."""
    names: List[str] = arguments.loaders
    results: Dict[str, List[Dict[str, float]]] = {name: [] for name in names}
    for _ in range(arguments.turns):
        for name in names:
            sizes = ["--batch_size", str(batch_size), "--batches", str(arguments.batches)]
            results[name].append(measure([name, chain, str(root), *sizes]))
    print(f"{chain}: {CHAINS[chain]}; {arguments.turns} turns of {arguments.batches} batches")
    for line in describe(results, chain):
        print(f"  {line}")


def describe(results: Mapping[str, Sequence[Mapping[str, float]]], chain: str) -> Iterator[str]:
    """A table of medians, then what each loader computes otherwise.

    Args:
        results: by loader, what `pipeline_loader.measure` returned in each turn.
        chain: one of CHAINS.
    """
    medians = {
        name: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        for name, turns in results.items()
    }
    own = [name for name in ("ours", "packed") if name in medians]
    against = "".join(f"{name + ' is':>11s}" for name in own)
    yield f"{'images/s per core of CPU time':40s}{against}{'wall':>9s}{'peak MB':>9s}"
    for name, row in medians.items():
        rates = sorted(1e6 / turn["cpu_us"] for turn in results[name])
        low, middle, high = map(in_digits, (rates[0], 1e6 / row["cpu_us"], rates[-1]))
        span = f"{middle:>5s} ({low} to {high})"
        ratios = "".join(f"{row['cpu_us'] / medians[side]['cpu_us']:10.2f}x" for side in own)
        wall = in_digits(1e6 / row["wall_us"])
        yield f"{name:21s}{span:19s}{ratios}{wall:>9s}{row['peak_mb']:9.0f}"
    for name in medians:
        yield f"{name}: {LOADERS[name].differs(chain)}"


def in_digits(rate: float) -> str:
    """Three at least."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def run(arguments: argparse.Namespace) -> None:
    """Compares the loaders.

    Raises:
        UserError: one that was asked for is not installed.
    """
    packages = {name: missing_package(name) for name in arguments.loaders or LOADERS}
    for name, package in packages.items():
        if package and arguments.loaders:
            raise UserError(f"--loaders {name}: pip install {package}, or leave it out")
        if package:
            print(f"{name} is left out; for it, pip install {package}")
    arguments.loaders = [name for name, package in packages.items() if not package]
    with tempfile.TemporaryDirectory() as folder:
        root, wanted = Path(folder), SIZES[arguments.size]
        write_images(root, wanted)
        num_bytes = sum(path.stat().st_size for path in (root / "train").rglob("*.jpg"))
        megabytes = num_bytes / wanted.num_images / 1e6
        print(f"{wanted.num_images} files of {arguments.size}, {megabytes:.2f} MB")
        seconds = pack_images(root)
        print(f"packing: {in_digits(wanted.num_images / seconds)} images/s per core of CPU time")
        print_stages(root, wanted.batch_size)
        for chain in arguments.chains:
            compare(root, chain, wanted.batch_size, arguments)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/pipeline.py", __doc__ or "")
    parser.add_argument(
        "--loaders", nargs="+", choices=LOADERS, help="those that take turns (default: installed)"
    )
    parser.add_argument(
        "--chains", nargs="+", choices=CHAINS, default=list(CHAINS), help="default: all"
    )
    parser.add_argument("--size", choices=SIZES, default="500x375", help="of the photographs")
    parser.add_argument("--batches", type=positive, default=8, help="measured in each turn")
    parser.add_argument("--turns", type=positive, default=5, help="turns of each loader")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
