"""A run that waits for its images names the slowest, and what helps."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from PIL import Image

from src.args import Config, replace
from src.data.decode import Decoder
from src.data.imagenet import create_dataset
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
    assert f"pack_dataset.py --data_url {folder} --output FOLDER --short_side 256" in said


def test_no_packing_is_advised_where_it_is_done(folder: Path) -> None:
    dataset = create_dataset(config_of(folder), training=True)
    config = config_of(folder, set="MindRecord")
    assert "pack_dataset" not in dataset.slow_images.advice(config, 0.5)


def test_it_is_said_once_and_not_of_the_first_interval() -> None:
    intervals = [(0.9, 9.0), (0.4, 9.0), (0.9, 1.0), (0.9, 3.0), (0.9, 9.0)]
    wait = LongWait()
    told: List[bool] = [wait.add(*interval) for interval in intervals]
    assert told == [False, False, False, True, False]
