"""A run that waits for its images names the slowest, and what helps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from PIL import Image
from program_options import load

from src.args import Config, replace
from src.data.decode import Decoder
from src.data.imagenet import create_dataset
from src.data.packed import read_manifest
from src.data.slow_images import SlowImages
from src.runs.progress import LongWait


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number in range(18):
        split = "train" if number < 16 else "val"
        path = root / split / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 16, 3), 8 * number, np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def config_of(folder: Path, **keys: Any) -> Config:
    sizes = {"image_size": 16, "num_classes": 2, "batch_size": 8, "epochs": 1, "hflip": 0.0}
    return replace(Config(), data_url=str(folder), **sizes, **keys)


@pytest.mark.parametrize("in_processes", [False, True])
def test_the_slowest_are_named_with_what_helps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, in_processes: bool
) -> None:
    decode = Decoder.decode

    def slowly(self: Decoder, data: bytes, name: str) -> np.ndarray:
        time.sleep(0.4 if name.endswith("05.png") else 0.0)
        return decode(self, data, name)

    monkeypatch.setattr(Decoder, "decode", slowly)
    config = config_of(folder, python_multiprocessing=in_processes, num_parallel_workers=1)
    dataset = create_dataset(config, training=True)
    # The first pass holds the loading of the compiled loops.
    assert len(list(dataset.batches())) == 2
    dataset.slow_images.forget()
    assert len(list(dataset.batches())) == 2
    said = dataset.slow_images.advice(config, 0.89)
    assert said.startswith("data wait 89%: steps wait for their images; slowest to read and augm")
    assert ".png (" in said
    if not in_processes:  # workers that are processes decode with the code as it is
        assert "augment: class1/05.png (0." in said.replace("train/", "")
    cores = len(os.sched_getaffinity(0))
    assert (f"--num_parallel_workers {cores}" in said) == (cores > 1)
    assert f"pack_dataset.py --data_url {folder} --output FOLDER --short_side 256, then" in said
    assert "fewer augmentations" in said


@pytest.mark.parametrize(
    ("cores", "workers", "in_processes", "cure"),
    [
        (8, 4, False, "--num_parallel_workers 8"),
        (8, 8, False, ""),
        (24, 4, False, "--python_multiprocessing --num_parallel_workers 24"),
        # So many threads wait for the interpreter's lock, not for a core.
        (24, 24, False, "--python_multiprocessing --num_parallel_workers 24"),
        (24, 8, True, "--num_parallel_workers 24"),
        (24, 24, True, ""),
    ],
)
def test_processes_are_advised_where_threads_would_wait_for_the_lock(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    workers: int,
    in_processes: bool,
    cure: str,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    keys = {"num_parallel_workers": workers, "python_multiprocessing": in_processes}
    config = config_of(folder, set="MindRecord", **keys)
    said = SlowImages(str).advice(config, 0.5)
    cures = said.partition("what helps: ")[2].partition(" (docs")[0].split("; ")
    assert cures == [*filter(None, [cure]), "fewer augmentations"]


def test_no_packing_is_advised_where_it_is_done(folder: Path) -> None:
    dataset = create_dataset(config_of(folder), training=True)
    config = config_of(folder, set="MindRecord")
    assert "pack_dataset" not in dataset.slow_images.advice(config, 0.5)


def test_large_images_are_to_be_packed_and_no_worker_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        image = Image.linear_gradient("L").resize((5000, 4000)).convert("RGB")
        image.save(tmp_path / split / "one" / "0.jpg")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(24))
    config = config_of(tmp_path, num_parallel_workers=1)
    config = replace(config, num_classes=1, batch_size=1)
    dataset = create_dataset(config, training=True)
    assert len(list(dataset.batches())) == 1
    said = dataset.slow_images.advice(config, 0.9)
    assert "their images, of 20 megapixels on average; slowest" in said
    assert "augmentations" not in said
    # 64 parts of 89,478,485 pixels, of which a JPEG of a third as many takes 5.
    more = "--python_multiprocessing --num_parallel_workers 12"
    assert said.endswith(f"--data_url FOLDER; {more} (docs/data.md)")
    enough = replace(config, num_parallel_workers=12, python_multiprocessing=True)
    assert "num_parallel_workers" not in dataset.slow_images.advice(enough, 0.9)


def test_the_advised_command_makes_what_the_recipe_reads(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "with a space"
    for name, label in (("2", "class0"), ("10", "class1")):
        shutil.copytree(folder / "train" / label, source / name)
    keys = {
        **{"exif_orientation": True, "background": None, "class_order": "natural"},
        **{"val_share": 0.3, "on_bad_image": "skip", "max_image_pixels": 500_000},
    }
    config = config_of(source, crop_pct=0.5, **keys)
    said = create_dataset(config, training=True).slow_images.advice(config, 0.5)
    command = re.search(r"python scripts/pack_dataset.py (.*), then (--set .*?);", said)
    assert command is not None
    packed = str(tmp_path / "packed")
    words = [packed if word == "FOLDER" else word for word in shlex.split(command[1])]
    assert load("scripts/pack_dataset.py").main(words) == 0
    assert command[2] == "--set MindRecord --data_url FOLDER"
    settings = read_manifest(Path(packed) / "train")["settings"]
    assert settings["short_side"] == 256
    caplog.clear()
    ours = create_dataset(config, training=False)
    theirs = create_dataset(replace(config, set="MindRecord", data_url=packed), training=False)
    assert not caplog.records
    assert theirs.class_names == ours.class_names
    for left, right in zip(ours.batches(), theirs.batches()):
        np.testing.assert_array_equal(left.image, right.image)
        np.testing.assert_array_equal(left.label, right.label)


@pytest.mark.parametrize(("image_size", "crop_pct", "side"), [(16, 0.875, 256), (384, 0.875, 439)])
def test_packed_images_are_no_smaller_than_an_evaluation_resizes_to(
    folder: Path, image_size: int, crop_pct: float, side: int
) -> None:
    dataset = create_dataset(config_of(folder), training=True)
    config = replace(config_of(folder), image_size=image_size, crop_pct=crop_pct)
    assert f"--short_side {side}, then" in dataset.slow_images.advice(config, 0.5)


def test_it_is_said_once_and_not_of_the_first_interval() -> None:
    intervals = [(0.9, 9.0), (0.4, 9.0), (0.9, 1.0), (0.9, 3.0), (0.9, 9.0)]
    wait = LongWait()
    told: List[bool] = [wait.add(*interval) for interval in intervals]
    assert told == [False, False, False, True, False]
