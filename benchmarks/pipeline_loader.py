"""One loader of benchmarks/pipeline.py in this process: its speed and peak memory, as JSON.

python benchmarks/pipeline_loader.py mindspore full FOLDER

FOLDER is as benchmarks/pipeline.py writes it. `dali` needs `pip install nvidia-dali-cuda120`, which
runs without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, positive, run_command

IMAGE_SIZE, NUM_WORKERS, NUM_CLASSES = 224, 2, 8
POLICY = "rand-m9-mstd0.5-inc1"
RESIZED = 256  # shorter side before the centre crop
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHAINS = {
    "plain": "training, random resized crop and flip",
    "full": "training, the full recipe",
    "eval": "evaluation",
}


def our_batches(root: Path, chain: str, batch_size: int, kind: str = "ImageNet") -> Iterator[Any]:
    """As the training loop takes them: its Tensors share the batch's memory."""
    from mindspore import Tensor

    from src.args import Config, DataConfig, ModelConfig, TrainConfig
    from src.data.imagenet import create_dataset

    recipe = {"auto_augment": POLICY, "re_prob": 0.25, "mix_up": 0.8, "cutmix": 1.0}
    data = DataConfig(
        set=kind,
        data_url=str(root),
        batch_size=batch_size,
        num_parallel_workers=NUM_WORKERS,
        **(recipe if chain == "full" else {}),
    )
    model = ModelConfig(num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)
    config = Config(model=model, data=data, train=TrainConfig(epochs=1000))
    while True:
        for batch in create_dataset(config, chain != "eval").batches():
            yield [Tensor.from_numpy(array) for array in batch if array is not None]


def packed_batches(root: Path, chain: str, batch_size: int) -> Iterator[Any]:
    return our_batches(root / "packed", chain, batch_size, "MindRecord")


def mindspore_batches(
    root: Path, chain: str, batch_size: int, *, normalised: bool
) -> Iterator[Any]:
    from mindspore import dataset
    from mindspore.dataset import transforms, vision

    cubic = vision.Inter.BICUBIC
    images = [vision.Decode(), vision.Resize(RESIZED, cubic), vision.CenterCrop(IMAGE_SIZE)]
    if chain != "eval":
        crop = vision.RandomCropDecodeResize(IMAGE_SIZE, interpolation=cubic)
        images = [crop, vision.RandomHorizontalFlip()]
    if chain == "full":
        images.append(vision.RandAugment(2, 9, interpolation=cubic))
    if normalised:
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        images += [vision.Normalize(mean, std), vision.HWC2CHW()]
    mixes = chain == "full" and normalised
    if mixes:
        images.append(vision.RandomErasing(0.25, (0.02, 1 / 3), (0.3, 1 / 0.3), "random"))
    data = dataset.ImageFolderDataset(
        str(root / ("val" if chain == "eval" else "train")),
        num_parallel_workers=NUM_WORKERS,
        shuffle=chain != "eval",
    )
    data = data.map(images, "image", num_parallel_workers=NUM_WORKERS)
    if mixes:
        data = data.map(transforms.OneHot(NUM_CLASSES), "label")
    data = data.batch(batch_size, drop_remainder=chain != "eval", num_parallel_workers=NUM_WORKERS)
    if mixes:
        layout = vision.ImageBatchFormat.NCHW
        choice = [vision.MixUpBatch(0.8), vision.CutMixBatch(layout, 1.0, 1.0)]
        mix = transforms.RandomChoice(choice)
        data = data.map(mix, ["image", "label"], num_parallel_workers=NUM_WORKERS)
    yield from data.repeat().create_tuple_iterator(num_epochs=1)


def dali_batches(root: Path, chain: str, batch_size: int) -> Iterator[Any]:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.auto_aug.rand_augment import rand_augment

    @pipeline_def(batch_size=batch_size, num_threads=NUM_WORKERS, device_id=None)
    def evaluation() -> Any:
        file, label = fn.readers.file(
            file_root=str(root / "val"), name="files", pad_last_batch=True
        )
        image = fn.decoders.image(file)
        image = fn.resize(image, resize_shorter=RESIZED, interp_type=types.INTERP_CUBIC)
        return fn.crop(image, crop=(IMAGE_SIZE, IMAGE_SIZE)), label

    @pipeline_def(
        batch_size=batch_size, num_threads=NUM_WORKERS, device_id=None, enable_conditionals=True
    )
    def training() -> Any:
        file, label = fn.readers.file(file_root=str(root / "train"), random_shuffle=True)
        image = fn.decoders.image_random_crop(
            file, random_area=(0.08, 1.0), random_aspect_ratio=(3 / 4, 4 / 3)
        )
        image = fn.resize(image, size=(IMAGE_SIZE, IMAGE_SIZE), interp_type=types.INTERP_CUBIC)
        image = fn.flip(image, horizontal=fn.random.coin_flip())
        if chain == "full":
            image = rand_augment(image, n=2, m=9, fill_value=128)
        return image, label

    pipe = evaluation() if chain == "eval" else training()
    with contextlib.redirect_stderr(io.StringIO()):  # its RandAugment has warnings for itself
        pipe.build()
    while True:
        image, label = pipe.run()
        yield image.as_array(), label.as_array()[:, 0]


def timm_batches(root: Path, chain: str, batch_size: int) -> Iterator[Any]:
    import torch

    # torchvision asks for them at import, and has them compiled only beside a CUDA build.
    library = torch.library.Library("torchvision", "FRAGMENT")
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
    recipe = {"auto_augment": POLICY, "re_prob": 0.25, "re_mode": "pixel"}
    loader = timm.data.create_loader(
        timm.data.ImageDataset(str(root / ("val" if chain == "eval" else "train"))),
        (3, IMAGE_SIZE, IMAGE_SIZE),
        batch_size,
        is_training=chain != "eval",
        use_prefetcher=False,
        color_jitter=None,
        interpolation="bicubic",
        num_workers=NUM_WORKERS,
        **(recipe if chain == "full" else {}),
    )
    mixup = timm.data.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=NUM_CLASSES)
    while library is not None:
        for image, label in loader:
            yield mixup(image, label) if chain == "full" else (image, label)


class Loader(NamedTuple):
    """One side of the comparison.

    Attributes:
        batches: (folder, chain, batch size) -> batches without end; image and label come first.
        everywhere: what it delivers or computes otherwise than the recipe says, in all chains.
        crops: the same of the random crop.
        full: the same of the rest of the full recipe.
    """

    batches: Callable[[Path, str, int], Iterator[Any]]
    everywhere: str
    crops: str = ""
    full: str = ""

    def differs(self, chain: str) -> str:
        """All that holds in that chain."""
        parts = [self.everywhere, "" if chain == "eval" else self.crops]
        return "; ".join(filter(None, [*parts, self.full if chain == "full" else ""]))


_CROPS_FIRST = "decodes the crop alone"
_OTHER_POLICY = "RandAugment of other operations and magnitudes"
LOADERS: Dict[str, Loader] = {
    "ours": Loader(our_batches, "uint8; normalised on the device", full="mixed on the device"),
    "packed": Loader(packed_batches, "as ours, of images packed with a shorter side of 256"),
    "mindspore": Loader(
        functools.partial(mindspore_batches, normalised=False),
        "uint8; no antialiasing",
        _CROPS_FIRST,
        f"{_OTHER_POLICY}; no erasing, no mixing",
    ),
    "mindspore_normalised": Loader(
        functools.partial(mindspore_batches, normalised=True),
        "float32; no antialiasing",
        _CROPS_FIRST,
        f"{_OTHER_POLICY}",
    ),
    "dali": Loader(dali_batches, "uint8", _CROPS_FIRST, f"{_OTHER_POLICY}; no erasing, no mixing"),
    "timm": Loader(timm_batches, "float32"),
}


# What a loader needs beside requirements.txt: module, and package for pip.
_NEEDS = {"dali": ("nvidia.dali", "nvidia-dali-cuda120"), "timm": ("timm", "timm")}


def missing_package(name: str) -> str:
    """What pip has to install for a loader; empty: nothing."""
    module, package = _NEEDS.get(name, ("json", ""))
    try:
        return "" if importlib.util.find_spec(module) else package
    except ModuleNotFoundError:  # that of the package it is in
        return package


def measure(batches: Iterator[Any], batch_size: int, num_batches: int) -> Dict[str, float]:
    """Microseconds per image, wall and CPU of all processes, and peak memory in MB."""
    for _ in range(2):
        next(batches)
    started, cpu = time.perf_counter(), _process_tree_seconds()
    for _ in range(num_batches):
        next(batches)
    count = num_batches * batch_size
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
    ticks = 0  # of a hundredth of a second, too coarse for what few packed images take
    for path in _process_tree()[1:]:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / 100


def _process_tree_peak_mb() -> float:
    total = 0
    for path in _process_tree():
        lines = (path / "status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def run(arguments: argparse.Namespace) -> None:
    """Measures, and prints a line of JSON."""
    size = arguments.batch_size
    batches = LOADERS[arguments.loader].batches(arguments.folder, arguments.chain, size)
    print(json.dumps(measure(batches, size, arguments.batches)), flush=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("benchmarks/pipeline_loader.py", __doc__ or "")
    parser.add_argument("loader", choices=LOADERS, help="that is measured")
    parser.add_argument("chain", choices=CHAINS, help="what it does to an image")
    parser.add_argument("folder", type=Path, help="of its images")
    parser.add_argument("--batch_size", type=positive, default=128, help="images")
    parser.add_argument("--batches", type=positive, default=8, help="that are measured")
    return run_command(run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
