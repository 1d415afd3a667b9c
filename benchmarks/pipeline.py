"""Images per second of the training and evaluation pipelines, beside timm's loader.

python benchmarks/pipeline.py

Needs requirements-dev.txt. Real photographs as 500x375 JPEGs of quality 95; DeiT's recipe
(rand-m9-mstd0.5-inc1, bicubic, random erasing 0.25, Mixup 0.8, CutMix 1.0), batches of 128 at 224,
two workers. `packed` reads the same images from MindRecord, shorter side 256, quality 95. Each
loader runs in a process of its own, in turns; numbers are medians of the turns. CPU time counts all
processes of a loader, so other work on the machine disturbs it less than the wall clock.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command

BATCH_SIZE, IMAGE_SIZE, NUM_WORKERS, NUM_FILES = 128, 224, 2, 512
POLICY = "rand-m9-mstd0.5-inc1"
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


def write_images(root: Path) -> None:
    """Different cuts of the photographs, as train/ and val/ of 8 classes."""
    rng = np.random.default_rng(0)
    sources = photographs()
    for i in range(NUM_FILES):
        source = sources[i % len(sources)]
        width = int(rng.uniform(0.6, 1.0) * min(source.width, source.height * 4 / 3))
        left = int(rng.integers(source.width - width, endpoint=True))
        top = int(rng.integers(source.height - width * 3 // 4, endpoint=True))
        cut = source.crop((left, top, left + width, top + width * 3 // 4))
        path = root / "train" / str(i % 8) / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=95)
    (root / "val").symlink_to("train")


def pack_images(root: Path) -> None:
    """root/train as MindRecord, shorter side 256, in root/packed."""
    from src.data.image_folder import scan_image_folder
    from src.data.packing import PackSettings, pack_split

    for split in ("train", "val"):
        source = scan_image_folder(root, split)
        pack_split(source, root / "packed" / split, PackSettings(short_side=256), num_workers=2)


def packed_batches(root: Path, training: bool) -> Iterator[Any]:
    return our_batches(root / "packed", training, "MindRecord")


def our_batches(root: Path, training: bool, kind: str = "ImageNet") -> Iterator[Any]:
    from src.args import Config, DataConfig, ModelConfig
    from src.data.imagenet import create_dataset

    data = DataConfig(
        set=kind,
        data_url=str(root),
        batch_size=BATCH_SIZE,
        num_parallel_workers=NUM_WORKERS,
        auto_augment=POLICY,
        re_prob=0.25,
        mix_up=0.8,
        cutmix=1.0,
    )
    config = Config(model=ModelConfig(num_classes=8, image_size=IMAGE_SIZE), data=data)
    while True:
        yield from create_dataset(config, training).batches()


def timm_batches(root: Path, training: bool) -> Iterator[Any]:
    import torch

    # torchvision asks for them at import, and has them compiled only beside a CUDA build.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    # Beside Pillow 13, timm stops at the first image that is posterized to 0 bits.
    operations = timm.data.auto_augment.NAME_TO_OP
    posterize = operations["PosterizeIncreasing"]
    operations["PosterizeIncreasing"] = lambda image, bits, **keywords: posterize(
        image, max(bits, 1), **keywords
    )
    torch.set_num_threads(1)
    recipe = {"auto_augment": POLICY, "re_prob": 0.25, "re_mode": "pixel"} if training else {}
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(root / "train")),
        (3, IMAGE_SIZE, IMAGE_SIZE),
        BATCH_SIZE,
        is_training=training,
        use_prefetcher=False,
        color_jitter=None,
        interpolation="bicubic",
        num_workers=NUM_WORKERS,
        **recipe,
    )
    mixup = timm.data.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=8)
    while library is not None:
        for image, label in loader:
            yield mixup(image, label) if training else (image, label)


LOADERS: Dict[str, Callable[[Path, bool], Iterator[Any]]] = {
    "ours": our_batches,
    "packed": packed_batches,
    "timm": timm_batches,
}


def measure(name: str, root: Path, training: bool, num_batches: int) -> Dict[str, float]:
    """Seconds per image, wall and CPU of all processes, and peak memory in MB."""
    batches = LOADERS[name](root, training)
    for _ in range(2):
        next(batches)
    started, cpu = time.perf_counter(), _process_tree_seconds()
    for _ in range(num_batches):
        next(batches)
    count = num_batches * BATCH_SIZE
    return {
        "wall_us": (time.perf_counter() - started) / count * 1e6,
        "cpu_us": (_process_tree_seconds() - cpu) / count * 1e6,
        "peak_mb": _process_tree_peak_mb(),
    }


def _process_tree() -> List[Path]:
    """This process and its workers, in /proc."""
    own = Path("/proc/self").resolve()
    pending, found = [own], []
    while pending:
        path = pending.pop()
        found.append(path)
        children = (path / "task" / path.name / "children").read_text().split()
        pending += [Path("/proc") / child for child in children]
    return found


def _process_tree_seconds() -> float:
    ticks = 0
    for path in _process_tree():
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def _process_tree_peak_mb() -> float:
    total = 0
    for path in _process_tree():
        lines = (path / "status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def time_stages(root: Path) -> Dict[str, float]:
    """Microseconds of one thread per training image, in each of the STAGES."""
    from mindspore import Tensor

    from src.data.augment.mixup import Mixing, draw_mix
    from src.data.augment.random_erasing import RandomErasing
    from src.data.augment.transforms import create_train_transforms
    from src.data.image_folder import scan_image_folder
    from src.data.sampler import batch_generator, sample_generator

    folder = scan_image_folder(root, "train")
    mean = (0.485, 0.456, 0.406)
    transforms = create_train_transforms(
        IMAGE_SIZE,
        scale=(0.08, 1.0),
        ratio=(0.75, 4 / 3),
        interpolation="bicubic",
        hflip=0.5,
        auto_augment=POLICY,
        mean=mean,
    )
    erasing = RandomErasing(IMAGE_SIZE, 0.25, "pixel", 1)
    seconds = dict.fromkeys(STAGES, 0.0)
    batch = np.empty((BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    # The first images compile.
    for index in [*range(50), *range(len(folder))]:
        if index == 0:
            seconds.update(dict.fromkeys(STAGES, 0.0))
        clock = _Clock(seconds)
        rng = sample_generator(0, 0, index)
        clock.stop("generator")
        data = folder.read_bytes(index)
        clock.stop("read")
        image = folder.decoder.decode(data, "image")
        clock.stop("decode")
        for name, transform in zip(STAGES[3:6], transforms):
            image = transform(image, rng)
            clock.stop(name)
        image = erasing.write_noise(image, erasing.draw(rng), rng)
        clock.stop("erase")
        batch[index % BATCH_SIZE] = image
        clock.stop("into the batch")
        if index % BATCH_SIZE == BATCH_SIZE - 1:
            draw_mix(Mixing(0.8, 1.0), BATCH_SIZE, IMAGE_SIZE, rng=batch_generator(0, 0, index))
            clock.stop("mix of the batch")
            Tensor(batch)
            clock.stop("copy to a Tensor")
    return {name: seconds[name] / len(folder) * 1e6 for name in STAGES}


def print_stages(root: Path) -> None:
    """Where a training image's time goes."""
    stages = time_stages(root)
    print("training from the folder, one thread, CPU microseconds per image:")
    for name, microseconds in {**stages, "sum": sum(stages.values())}.items():
        print(f"  {name:18s}{microseconds:8.0f}")
    bound = 1e6 / stages["decode"]
    print(f"decoding alone bounds any loader from the folder: {bound:.0f} images/s per core")


class _Clock:
    def __init__(self, seconds: Dict[str, float]) -> None:
        self.seconds = seconds
        self.last = time.thread_time()

    def stop(self, name: str) -> None:
        now = time.thread_time()
        self.seconds[name] += now - self.last
        self.last = now


def run_in_process(arguments: List[str]) -> Dict[str, float]:
    command = [sys.executable, __file__, *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: Dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def compare(root: Path, training: bool, turns: int, num_batches: int) -> None:
    """Alternates the loaders, and prints medians and ratios."""
    split = "train" if training else "val"
    results: Dict[str, List[Dict[str, float]]] = {name: [] for name in LOADERS}
    for _ in range(turns):
        for name in LOADERS:
            words = [name, str(root), split, "--batches", str(num_batches)]
            results[name].append(run_in_process(words))
    print(f"{split}, {NUM_WORKERS} workers, medians of {turns} turns of {num_batches} batches:")
    medians = {
        name: {key: statistics.median(turn[key] for turn in rows) for key in rows[0]}
        for name, rows in results.items()
    }
    for name, row in medians.items():
        print(
            f"  {name:6s}{1e6 / row['cpu_us']:8.0f} images/s per core of CPU time"
            f"{1e6 / row['wall_us']:8.0f} images/s wall{row['peak_mb']:8.0f} MB peak"
        )
    for name in ("ours", "packed"):
        for key in ("cpu_us", "wall_us"):
            ratio = medians["timm"][key] / medians[name][key]
            print(f"  timm / {name}, {key[:-3]}: {ratio:.2f}")


def run(arguments: argparse.Namespace) -> None:
    """Compares the loaders, or measures one."""
    if arguments.loader:
        is_training = arguments.split == "train"
        numbers = measure(arguments.loader, arguments.root, is_training, arguments.batches)
        print(json.dumps(numbers), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root)
        pack_images(root)
        print_stages(root)
        for is_training in (True, False):
            compare(root, is_training, arguments.turns, arguments.batches)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/pipeline.py", __doc__ or "")
    parser.add_argument(
        "loader", nargs="?", choices=LOADERS, help="measure this one only, in this process"
    )
    parser.add_argument("root", nargs="?", type=Path, help="folder of its images")
    parser.add_argument("split", nargs="?", default="train", help="train or val")
    parser.add_argument("--batches", type=positive, default=8, help="measured in each turn")
    parser.add_argument("--turns", type=positive, default=5, help="turns of each loader")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
