"""Parts of JPEGs beside Pillow's whole images: pixels, damage, and machines without the decoder."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from src.args import Config, replace
from src.data import jpeg_parts
from src.data.augment.parts import CropBox, Part
from src.data.decode import BadImageError, Decoder
from src.data.imagenet import create_dataset
from src.data.jpeg_parts import find_libraries, read_part
from src.runtime.native_library import find_compiler

LIBRARIES = find_libraries()


def has_header() -> bool:
    command = [*(find_compiler(os.environ) or ["false"]), "-E", "-x", "c++", "-"]
    source = "#include <cstdio>\n#include <jpeglib.h>"
    return subprocess.run(command, input=source, text=True, capture_output=True).returncode == 0


NEEDS_LIBRARIES = pytest.mark.skipif(
    not has_header(), reason="no compiler, or no header of libjpeg-turbo (apt: libjpeg-dev)"
)
PHOTOGRAPH = Image.fromarray(load_sample_images().images[0])


def jpeg(width: int, height: int, **options: Any) -> bytes:
    file = io.BytesIO()
    PHOTOGRAPH.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", **options)
    return file.getvalue()


def pillows(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def draw_box(height: int, width: int, rng: np.random.Generator) -> CropBox:
    top, left = int(rng.integers(height)), int(rng.integers(width))
    high, wide = rng.integers(1, height - top, endpoint=True), rng.integers(1, width - left + 1)
    return top, left, int(high), int(wide)


def assert_part(part: Optional[Part], whole: np.ndarray, box: CropBox) -> None:
    assert part is not None
    assert part.size == whole.shape[:2]
    top, left, high, wide = box
    found = part.pixels[top - part.top :, left - part.left :][:high, :wide]
    np.testing.assert_array_equal(found, whole[top : top + high, left : left + wide])


def check(data: bytes, rng: np.random.Generator, boxes: int = 4) -> None:
    whole = pillows(data)
    assert LIBRARIES is not None
    for _ in range(boxes):
        box = draw_box(*whole.shape[:2], rng)
        assert_part(read_part(LIBRARIES, data, whole.shape[:2], box), whole, box)


@NEEDS_LIBRARIES
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_parts_have_the_pixels_of_the_whole(subsampling: int) -> None:
    rng = np.random.default_rng(subsampling)
    for _ in range(25):
        width, height = rng.integers(1, 200, 2)
        options: Dict[str, Any] = {"quality": int(rng.choice([5, 75, 95, 100]))}
        if rng.random() < 0.3:
            options["restart_marker_blocks"] = int(rng.integers(1, 9))
        check(jpeg(width, height, subsampling=subsampling, **options), rng)


@NEEDS_LIBRARIES
@pytest.mark.parametrize("subsampling", ["440", "411", "Gray"])
def test_other_samplings_of_colours(subsampling: str) -> None:
    rng = np.random.default_rng(0)
    mode, colours = ("L", "GRAY") if subsampling == "Gray" else ("RGB", "RGB")
    for _ in range(10):
        width, height = rng.integers(1, 150, 2)
        pixels = np.array(PHOTOGRAPH.resize((width, height)).convert(mode))
        pixels = pixels.reshape(height, width, -1)
        check(simplejpeg.encode_jpeg(pixels, 90, colours, subsampling), rng)


@NEEDS_LIBRARIES
def test_several_scans_and_other_colours_are_left_to_the_whole() -> None:
    assert LIBRARIES is not None
    for data in (
        jpeg(90, 70, progressive=True),
        jpeg(90, 70)[:300],
        b"\xff\xd8\xff",
        b"",
        b"x" * 99,
    ):
        assert read_part(LIBRARIES, data, (70, 90), (10, 10, 20, 20)) is None
    cmyk = io.BytesIO()
    PHOTOGRAPH.resize((90, 70)).convert("CMYK").save(cmyk, "JPEG")
    assert read_part(LIBRARIES, cmyk.getvalue(), (70, 90), (10, 10, 20, 20)) is None
    for box in ((60, 0, 20, 20), (0, 80, 20, 20), (0, 0, 0, 5), (-1, 0, 5, 5)):
        assert read_part(LIBRARIES, jpeg(90, 70), (70, 90), box) is None


def verdict(read: Any) -> Any:
    try:
        return read()
    except BadImageError as error:
        return str(error)


@NEEDS_LIBRARIES
def test_damage_anywhere_has_the_verdict_of_the_whole() -> None:
    decoder, rng = Decoder(), np.random.default_rng(0)
    good = jpeg(70, 60, quality=90)
    damaged = [good[:size] for size in rng.integers(2, len(good), 60)]
    damaged += [good[:-2], good + b"more", good[:-2] + b"\xff\xd8" + good[2:]]
    for _ in range(200):
        content = bytearray(good)
        content[rng.integers(2, len(good))] = rng.integers(256)
        damaged.append(bytes(content))
    kinds = set()
    for data in damaged:
        box = draw_box(60, 70, rng)
        whole = verdict(lambda data=data: decoder.decode(data, "x"))
        part = verdict(lambda data=data, box=box: decoder.decode_part(data, "x", lambda *_: box))
        if isinstance(whole, str):
            assert part == whole
        elif whole.shape == (60, 70, 3):
            assert_part(part, whole, box)
        kinds.add((type(whole), type(part)))
    assert len(kinds) == 2


def recipe(root: Path) -> Config:
    changes = {"num_classes": 2, "image_size": 32, "batch_size": 4, "auto_augment": "rand-m9"}
    return replace(Config(), data_url=str(root), num_parallel_workers=2, **changes)


@NEEDS_LIBRARIES
@pytest.mark.parametrize("training", [True, False])
def test_batches_are_the_same_without(
    training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for index in range(8):
        path = tmp_path / ("train", "val")[index // 4] / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(*rng.integers(40, 200, 2), subsampling=int(rng.integers(3))))
    read: Dict[bool, Any] = {}
    calls = []
    monkeypatch.setattr(
        "src.data.decode.read_part", lambda *args: calls.append(1) or read_part(*args)
    )
    for has_parts in (True, False):
        if not has_parts:
            monkeypatch.setattr(jpeg_parts, "_pillows_decoder", lambda: 1 / 0)
            monkeypatch.setattr("src.data.sources.Decoder", whole_decoder)
        read[has_parts] = list(create_dataset(recipe(tmp_path), training).batches())
    assert len(calls) >= 3
    for one, other in zip(read[True], read[False]):
        np.testing.assert_array_equal(one.image, other.image)


def whole_decoder(*args: Any, **more: Any) -> Decoder:
    return dataclasses.replace(Decoder(*args, **more), parts=None)


def test_a_flat_part_is_no_flat_image(tmp_path: Path) -> None:
    """The sky above, and something below it."""
    from src.data.augment.transforms import RandomResizedCrop
    from src.data.image_folder import scan_image_folder
    from src.data.rows import Shape
    from src.data.sampler import Key
    from src.data.samples import TrainSample

    image = np.full((96, 96, 3), 200, np.uint8)
    image[80:] = np.random.default_rng(0).integers(0, 256, (16, 96, 3), np.uint8)
    for name, pixels in (("sky", image), ("nothing", image[:64])):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.jpg", quality=95)
    (tmp_path / "val").symlink_to("train")
    source = scan_image_folder(tmp_path, "train")
    sample = TrainSample(
        source, [RandomResizedCrop(8, (0.01, 0.02), (1, 1), "bicubic")], None, 0, False
    )
    rows = Shape(1, 8, 0).split(np.empty(Shape(1, 8, 0).num_bytes, np.uint8))
    found: Dict[str, int] = {"sky": 0, "nothing": 0}
    for epoch in range(12):
        for index, name in enumerate(source.class_names):
            bad = sample(Key(epoch, index, 0), 0, rows.image[0], rows.label, rows.boxes[0])
            found[name] += bad is not None and bad.is_flat
    assert found == {"sky": 0, "nothing": 12}


def test_without_a_compiler_images_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "none")
    find_libraries.cache_clear()
    try:
        decoder = Decoder()
        assert decoder.parts is None
        part = decoder.decode_part(jpeg(50, 40), "x", lambda *_: (1, 2, 3, 4))
        assert (part.pixels.shape, part.size, part.top) == ((40, 50, 3), (40, 50), 0)
    finally:
        find_libraries.cache_clear()
