"""What reads files in `hostile_files.py`: programs, each with the file that is hostile."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Tuple

import hostile_attacks as attacks
import lite
import numpy as np
from hostile_attacks import EVERYWHERE, TEXT, Attack, picture
from imagenet_archives import write_archives

RECIPE = """\
arch: cct_2_3x2_32
drop_path_rate: 0.0
set: ImageNet
data_url: data
batch_size: 4
epochs: 1
num_parallel_workers: 2
save_every: 1
"""
CLASSES = ("cat", "dog", "owl")
CONVERT = "scripts/convert_weights.py --arch cct_2_3x2_32 --num_classes 3 --output out/a.ckpt"
PREDICT = "predict.py --pretrained net.ckpt --output csv --output_file out/a.csv"
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12.tar.gz"
PREPARE = (
    f"scripts/prepare_imagenet.py --train imagenet/{TRAIN} --val imagenet/{VAL} "
    f"--devkit imagenet/{KIT} --output out/data --allow_partial"
)


@dataclass(frozen=True)
class Reader:
    """A program that reads a file.

    Attributes:
        name: in the table.
        file: the hostile one, below the place.
        command: words; `out/` is a new folder.
        own: attacks of its format.
        but: those of EVERYWHERE that leave it a good file.
        needs: what must be made before: `nothing` beside `prepare_files`, `a run`, `Lite`.
    """

    name: str
    file: str
    command: str
    own: Dict[str, Attack] = field(default_factory=dict)
    but: Collection[str] = ()
    needs: str = "a run"

    def attacks(self) -> Dict[str, Attack]:
        """Name -> what is done to the file."""
        everywhere = {name: attack for name, attack in EVERYWHERE.items() if name not in self.but}
        return {**everywhere, **self.own}


# Without a checksum pixels and weights are what they are, and so is a name.
BITS = {"a bit in the middle", "a bit at the end", "16 zeros in the middle"}
# What stands behind the mark of an archive's end is not read.
TAR = {"twice", "60 GB, sparse", "without its last byte", *BITS}
READERS: Tuple[Reader, ...] = (
    Reader(
        "checkpoint",
        "net.ckpt",
        "export.py --pretrained net.ckpt --output out/a.mindir",
        attacks.CHECKPOINT,
    ),
    Reader(
        "checkpoint, resumed",
        "run/last.ckpt",
        "train.py --config recipe.yaml --train_url out --resume run/last.ckpt",
        attacks.CHECKPOINT,
    ),
    Reader(
        ".safetensors",
        "net.safetensors",
        f"{CONVERT} --input net.safetensors",
        attacks.SAFETENSORS,
        BITS,
    ),
    Reader(".npz", "net.npz", f"{CONVERT} --input net.npz", attacks.NPZ),
    Reader(".pth", "net.pth", f"{CONVERT} --input net.pth", attacks.TORCH),
    Reader(
        "PNG",
        "one.png",
        f"{PREDICT} --input one.png",
        attacks.IMAGES,
        {"twice", "without its last byte", "a bit at the end"},
    ),
    Reader(
        "JPEG",
        "one.jpg",
        f"{PREDICT} --input one.jpg",
        attacks.IMAGES,
        {"twice", *BITS, "without its last byte"},
    ),
    Reader(
        "recipe",
        "recipe.yaml",
        "train.py --config recipe.yaml --train_url out --print_config",
        attacks.RECIPE,
        {*TEXT, "its first half", "empty"},
        needs="nothing",
    ),
    Reader(
        "base of a recipe",
        "recipe.yaml",
        "train.py --config derived.yaml --train_url out --print_config",
        attacks.RECIPE,
        {*TEXT, "its first half", "empty"},
        needs="nothing",
    ),
    Reader(
        "rank table",
        "table.json",
        "scripts/rank_table.py validate table.json",
        attacks.RANK_TABLE,
        TEXT,
        needs="nothing",
    ),
    Reader(
        "label.json",
        "inputs/label.json",
        "postprocess.py --result_dir results "
        "--dataset_name imagenet --label_file inputs/label.json",
        attacks.LABELS,
        TEXT,
    ),
    Reader(
        "results",
        "results/000000_0.bin",
        "postprocess.py --result_dir results "
        "--dataset_name imagenet --label_file inputs/label.json",
        attacks.RESULTS,
        {"a bit at the start", *BITS, "zeros of its size", "noise of its size"},
    ),
    Reader(
        "class names",
        "names.txt",
        f"{PREDICT} --input one.png --labels names.txt",
        attacks.NAMES,
        TEXT,
    ),
    Reader(
        "packed: manifest",
        "packed/val/manifest.json",
        "preprocess.py --config recipe.yaml --set MindRecord --data_url packed "
        "--result_path out/inputs",
        attacks.MANIFEST,
        TEXT,
    ),
    Reader(
        "packed: index",
        "packed/val/00000.index.npz",
        "preprocess.py --config recipe.yaml --set MindRecord --data_url packed "
        "--result_path out/inputs",
        attacks.INDEX,
        {"a bit at the end"},
    ),
    Reader(
        "packed: images",
        "packed/val/00000.mindrecord",
        "preprocess.py --config recipe.yaml --set MindRecord --data_url packed "
        "--result_path out/inputs",
        {},
        # They meet MindRecord's own pages, which are not read.
        {"a bit at the start", *BITS},
    ),
    Reader(
        "CIFAR-10",
        "cifar/cifar-10-batches-bin/test_batch.bin",
        "preprocess.py --config recipe.yaml --dataset_name cifar10 --data_path cifar "
        "--result_path out/inputs",
        attacks.CIFAR,
        {*BITS, "a bit at the start", "zeros of its size"},
    ),
    Reader(
        "IDX",
        "fashion/t10k-images-idx3-ubyte",
        "preprocess.py --config recipe.yaml --dataset_name fashion_mnist --data_path fashion "
        "--result_path out/inputs",
        attacks.IDX,
        BITS,
    ),
    Reader(
        "ImageNet: training",
        f"imagenet/{TRAIN}",
        PREPARE,
        {},
        TAR,
        needs="nothing",
    ),
    Reader(
        "ImageNet: validation",
        f"imagenet/{VAL}",
        PREPARE,
        {},
        TAR,
        needs="nothing",
    ),
    Reader("ImageNet: devkit", f"imagenet/{KIT}", PREPARE, {}, {"twice"}, needs="nothing"),
    Reader(
        "exported network",
        "net.mindir",
        f"{PREDICT.replace('net.ckpt', 'net.mindir')} --input one.png",
    ),
    Reader(
        "record of an export",
        "net.mindir.json",
        f"{PREDICT.replace('net.ckpt', 'net.mindir')} --input one.png",
        attacks.EXPORT_RECORD,
        TEXT,
    ),
    Reader(
        "images.csv",
        "report/images.csv",
        "scripts/compare_reports.py report other",
        attacks.IMAGES_CSV,
        TEXT,
    ),
    Reader(
        "metrics.csv",
        "run/metrics.csv",
        "scripts/plot_runs.py run --output out/a.png",
        attacks.METRICS_CSV,
        TEXT,
    ),
    # On MindSpore Lite 2.0; `lite.py` says where that is.
    Reader(
        "manifest.tsv, C++",
        "inputs/manifest.tsv",
        "./infer --device_target=CPU --mindir_path=net20.mindir --input0_path=inputs "
        "--output_path=out/results --time_path=out/times",
        attacks.TSV,
        TEXT - {"without its last byte"},
        needs="Lite",
    ),
)


def import_everything() -> None:
    """What the programs import, so that each fork has it."""
    import src.data.dataset
    import src.report.evaluation_file
    import src.serving.export
    import src.serving.input_files
    import src.serving.predictor
    import src.trainer.run

    assert src


def prepare_files(place: Path) -> None:
    """Data, recipes and tables."""
    for split in ("train", "val"):
        for name in CLASSES:
            folder = place / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                (folder / f"{index}.png").write_bytes(picture("PNG", (32, 32)))
    (place / "one.png").write_bytes(picture("PNG", (64, 64)))
    (place / "one.jpg").write_bytes(picture("JPEG", (64, 64)))
    (place / "names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "derived.yaml").write_text("base: recipe.yaml\nlog_interval: 1\n")
    (place / "table.json").write_text(json.dumps(rank_table()))
    write_archives(place / "imagenet")
    (place / "out").mkdir()


def prepare_run(place: Path, run: Callable[[List[str]], Any]) -> None:
    """A run of one epoch, and what programs make of it."""
    for command in (
        "train.py --config recipe.yaml --train_url run",
        "scripts/convert_weights.py --arch cct_2_3x2_32 --input run/best.ckpt --to torch "
        "--output net.safetensors",
        "eval.py --pretrained run/best.ckpt --data_url data --train_url out --report report",
        "export.py --pretrained run/best.ckpt --output net.mindir",
        "scripts/pack_dataset.py --data_url data --output packed",
        "preprocess.py --for_mindir net.mindir --dataset_name imagenet --data_path data "
        "--result_path inputs",
    ):
        outcome = run(command.split())
        assert outcome.code == 0, f"{command}: {outcome.said}"
    (place / "net.ckpt").write_bytes((place / "run" / "best.ckpt").read_bytes())
    rng = np.random.default_rng(0)
    _cifar(place / "cifar" / "cifar-10-batches-bin", rng)
    _idx(place / "fashion", rng)
    _others(place, rng)


def prepare_lite(place: Path) -> None:
    """The C++ program and a network that it takes; skips where they cannot be had."""
    weights, exported = str(place / "run" / "best.ckpt"), str(place / "net20.mindir")
    lite.export_with_ms20(["--pretrained", weights, "--output", exported])
    (place / "infer").symlink_to(lite.program())


def rank_table() -> Dict[str, Any]:
    devices = [
        {"device_id": str(i), "device_ip": f"192.168.0.{i + 1}", "rank_id": str(i)} for i in (0, 1)
    ]
    server = {"server_id": "10.0.0.1", "device": devices, "host_nic_ip": "reserve"}
    return {"version": "1.0", "server_count": "1", "server_list": [server], "status": "completed"}


def _cifar(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    rows = rng.integers(0, 256, (10_000, 3073), np.uint8)
    rows[:, 0] %= 10
    (folder / "test_batch.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))


def _idx(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    images = rng.integers(0, 256, (300, 28, 28), np.uint8)
    header = struct.pack(">4I", 2051, *images.shape)
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + images.tobytes())
    labels = np.arange(300, dtype=np.uint8) % 10
    header = struct.pack(">2I", 2049, len(labels))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def _others(place: Path, rng: np.random.Generator) -> None:
    import torch
    from safetensors.numpy import load_file

    arrays = load_file(place / "net.safetensors")
    np.savez(place / "net.npz", **arrays)
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, place / "net.pth")
    labels = json.loads((place / "inputs" / "label.json").read_text())
    (place / "results").mkdir()
    size, classes = labels["batch_size"], labels["num_classes"]
    for number in range(-(-len(labels["labels"]) // size)):
        scores = rng.normal(size=(size, classes)).astype("<f4")
        (place / "results" / f"{number:06d}_0.bin").write_bytes(scores.tobytes())
    (place / "other").mkdir()
    (place / "other" / "images.csv").write_bytes((place / "report" / "images.csv").read_bytes())
