"""Damaged and unusual images, what is done about them; kinds and numbers of workers."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib

import numpy as np
import pytest
from photographs import encoded, load_photographs
from PIL import Image

from src.args import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from src.data import dataset
from src.data.decode import BadImageError, Decoder
from src.data.image_folder import scan_image_folder
from src.data.imagenet import create_dataset
from src.errors import UserError

NUM_TRAIN = 240


@pytest.fixture(scope="module")
def photograph():
    return load_photographs()[0].resize((90, 61))


JPEGS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "low quality": {"quality": 5},
    "restarts": {"restart_marker_blocks": 3},
}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_have_the_pixels_of_pillow(photograph, name, mode):
    data = encoded(photograph.convert(mode), "JPEG", **JPEGS[name])
    pixels = Decoder().decode(data, "x")
    assert (pixels.dtype, pixels.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(pixels, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_become_rgb_as_in_pillow(photograph, mode):
    data = encoded(photograph.convert(mode), "PNG")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(Decoder().decode(data, "x"), expected)


def test_sixteen_bits_keep_the_upper_eight(photograph):
    grey = np.asarray(photograph.convert("L")).astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        pixels = Decoder().decode(encoded(Image.fromarray(grey), kind), "x")
        np.testing.assert_array_equal(pixels, np.repeat((grey >> 8)[:, :, None], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turns_only_when_asked(photograph, orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph, kind, exif=exif)
    plain = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(Decoder().decode(data, "x"), plain.convert("RGB"))
    turned = ImageOps.exif_transpose(plain).convert("RGB")
    np.testing.assert_array_equal(Decoder(turns=True).decode(data, "x"), turned)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 40)])
def test_extreme_sizes(photograph, size):
    for kind in ("JPEG", "PNG"):
        pixels = Decoder().decode(encoded(photograph.resize(size), kind), "x")
        assert pixels.shape == (size[1], size[0], 3)


def test_wrong_extension_does_not_matter(photograph):
    data = encoded(photograph, "PNG")
    np.testing.assert_array_equal(Decoder().decode(data, "photo.jpg"), photograph)


def png_bomb(width, height):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_unpacked(photograph):
    with pytest.raises(BadImageError, match=r"100000x100000|bomb"):
        Decoder().decode(png_bomb(100_000, 100_000), "x")
    for kind in ("JPEG", "PNG"):
        data = encoded(photograph, kind)
        assert Decoder(max_pixels=90 * 61).decode(data, "x").shape == (61, 90, 3)
        with pytest.raises(BadImageError, match="90x61 pixels, more than max_image_pixels 5489"):
            Decoder(max_pixels=90 * 61 - 1).decode(data, "x")


def test_no_damage_goes_unnoticed(photograph):
    for kind in ("JPEG", "PNG"):
        data = encoded(photograph, kind)
        for length in range(0, len(data) - 20, 97):
            with pytest.raises(BadImageError) as caught:
                Decoder().decode(data[:length], "some/name")
            assert str(caught.value).startswith("some/name: ")
            assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path, photograph):
    for split, count in (("train", NUM_TRAIN), ("val", 200)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
        for i in range(count):
            image = photograph.rotate(i)
            image.save(tmp_path / split / ("ant", "bee")[i % 2] / f"{i:03d}.jpg")
    return tmp_path


def build_config(root, **values):
    defaults = {"batch_size": 24, "auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.5}
    return Config(
        model=ModelConfig(num_classes=2, image_size=32),
        data=DataConfig(data_url=str(root), num_parallel_workers=2, **{**defaults, **values}),
        optim=OptimConfig(),
        train=TrainConfig(epochs=2, seed=3),
    )


def damage(root, split, numbers):
    for number in numbers:
        path = root / split / ("ant", "bee")[number % 2] / f"{number:03d}.jpg"
        path.write_bytes(path.read_bytes()[:300])


def test_raise_names_the_file_and_the_ways_out(folder):
    damage(folder, "train", [7])
    with pytest.raises(UserError, match=r"bee/007\.jpg: .*; replace or delete the file, or set on"):
        list(create_dataset(build_config(folder), training=True).batches())


@pytest.mark.parametrize("in_processes", [False, True])
def test_skip_takes_the_next_of_the_epoch_and_lists_it(folder, caplog, in_processes):
    from src.data.sampler import epoch_order

    whole = list(create_dataset(build_config(folder), training=True).batches())
    damage(folder, "train", [7, 100])
    config = build_config(folder, on_bad_image="skip", python_multiprocessing=in_processes)
    with caplog.at_level(logging.WARNING):
        batches = list(create_dataset(config, training=True).batches())
    names = [f"{'ant' if i < 120 else 'bee'}/{2 * (i % 120) + i // 120:03d}" for i in range(240)]
    bad = {names.index("bee/007"), names.index("ant/100")}
    for epoch in range(2):
        order = epoch_order(NUM_TRAIN, seed=3, epoch=epoch).tolist()
        images = np.concatenate([b.image for b in batches[10 * epoch : 10 * epoch + 10]])
        expected = np.concatenate([b.image for b in whole[10 * epoch : 10 * epoch + 10]])
        for position, index in enumerate(order):
            taken = position if index not in bad else (position + 1) % NUM_TRAIN
            while order[taken] in bad:
                taken = (taken + 1) % NUM_TRAIN
            np.testing.assert_array_equal(images[position], expected[taken])
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1: 2 of 240 images could not be read and were skipped: ")
    assert "bee/007.jpg" in lines[1]
    assert "ant/100.jpg" in lines[1]


def test_skip_leaves_images_out_of_an_evaluation(folder, caplog):
    damage(folder, "val", [4, 5])
    config = build_config(folder, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        labels = np.concatenate([b.label for b in create_dataset(config, training=False).batches()])
    assert np.bincount(labels + 1).tolist() == [2 + 16, 99, 99]
    assert "2 of 216 images could not be read and were skipped" in caplog.text


@pytest.mark.parametrize("training", [True, False])
def test_too_many_are_all_listed_in_one_pass(folder, training, caplog):
    split, total = ("train", 240) if training else ("val", 200)
    damage(folder, split, range(1, 60, 2))
    (folder / split / "ant" / "link.jpg").symlink_to("gone.jpg")
    config = build_config(folder, on_bad_image="skip")
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught:
        list(create_dataset(config, training).batches())
    said = str(caught.value)
    assert f"30 of {total} images cannot be read, all listed above, more than max_bad" in said
    listed = {r.getMessage().split("/")[-1][:7] for r in caplog.records[1:]}
    assert listed == {f"{i:03d}.jpg" for i in range(1, 60, 2)}
    # The remedy is one.
    share = float(said.split("max_bad_share: ")[1])
    allowed = build_config(folder, on_bad_image="skip", max_bad_share=share)
    list(create_dataset(allowed, training).batches())
    too_few = build_config(folder, on_bad_image="skip", max_bad_share=29 / 240)
    with pytest.raises(UserError, match="cannot be read"):
        list(create_dataset(too_few, training).batches())


def test_a_link_that_died_is_called_so(folder):
    images = scan_image_folder(folder, "train")
    (folder / "train" / "ant" / "000.jpg").unlink()
    (folder / "train" / "ant" / "000.jpg").symlink_to("gone.jpg")
    with pytest.raises(BadImageError, match=r"ant/000.jpg: dead link to gone.jpg"):
        images.read(0)


@pytest.mark.parametrize(("target", "said"), [("pipe", "a named pipe"), ("/dev/zero", "a device")])
def test_what_became_something_else_after_the_search_is_a_bad_image(folder, target, said, caplog):
    os.mkfifo(folder / "pipe")
    images = scan_image_folder(folder, "train")
    listed = create_dataset(build_config(folder, on_bad_image="skip"), True)
    path = folder / "train" / "ant" / "000.jpg"
    path.unlink()
    path.symlink_to(folder / target)
    with pytest.raises(BadImageError, match=rf"ant/000.jpg: {said}, no regular file"):
        images.read(0)
    with caplog.at_level(logging.WARNING):
        list(listed.batches())
    assert f"ant/000.jpg: {said}, no regular file" in caplog.text


@pytest.mark.parametrize("training", [True, False])
def test_images_of_one_colour_are_counted_once(folder, training, caplog):
    split = "train" if training else "val"
    for name in ("000", "002", "004"):
        Image.new("RGB", (90, 61), (9, 9, 9)).save(folder / split / "ant" / f"{name}.jpg")
    # Nearly flat is not flat.
    dotted = Image.new("RGB", (90, 61), (9, 9, 9))
    dotted.putpixel((50, 33), (10, 9, 9))
    dotted.save(folder / split / "bee" / "001.jpg", "PNG")
    dataset = create_dataset(build_config(folder), training)
    with caplog.at_level(logging.WARNING):
        list(dataset.batches())
    lines = [r.getMessage() for r in caplog.records]
    total = 240 if training else 216
    assert [line.split(" (")[0] for line in lines] == [f"3 of {total} images have one colour only"]
    assert "ant/002.jpg" in lines[0]


def read(root, monkeypatch, workers, **values):
    # As many workers as asked for, whatever the machine has.
    monkeypatch.setattr(dataset.os, "sched_getaffinity", lambda _: range(8))
    config = build_config(root, mix_up=0.8, cutmix=1.0, mixup_mode="elem", **values)
    config = changed(config, num_parallel_workers=workers)
    return list(create_dataset(config, training=True).batches())


def changed(config, **values):
    from src.args import replace

    return replace(config, **values)


def test_kind_and_number_of_workers_change_no_byte(folder, monkeypatch):
    one = read(folder, monkeypatch, 1)
    runs = [
        read(folder, monkeypatch, workers, python_multiprocessing=in_processes)
        for workers, in_processes in ((2, False), (4, False), (1, True), (2, True), (4, True))
    ]
    for other in runs:
        assert len(other) == len(one) == 20
        for batch, expected in zip(other, one):
            for array, array_of_one in zip(batch, expected):
                np.testing.assert_array_equal(array, array_of_one)


def test_one_epoch_alone_is_that_of_the_whole_run(folder):
    config = changed(build_config(folder, mix_up=0.8), epochs=8)
    whole = list(create_dataset(config, training=True).batches())
    alone = create_dataset(config, training=True, start_step=7 * 10).batches()
    for batch, expected in zip(alone, whole[70:]):
        for array, other in zip(batch, expected):
            np.testing.assert_array_equal(array, other)
    assert len(whole) == 80


def test_process_workers_leave_no_shared_memory(folder):
    from pathlib import Path

    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("shared memory is not visible here")
    before = set(memory.iterdir())
    batches = create_dataset(
        build_config(folder, python_multiprocessing=True), training=True
    ).batches()
    assert next(batches).image.any()
    batches.close()
    assert set(memory.iterdir()) <= before
