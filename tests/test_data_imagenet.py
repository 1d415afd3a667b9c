"""Batches from image folders: reproducibility, sharding, evaluation, errors."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import shutil
import time

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from src.args import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from src.data.augment.mixup import Mixing, draw_mix
from src.data.imagenet import create_dataset
from src.data.sampler import batch_generator
from src.errors import UserError

CLASSES = {"ant": (9, 4), "bee": (7, 3), "Cat": (7, 3)}
NUM_TRAIN, NUM_VAL = 23, 10
FORMATS = [("RGB", "JPEG"), ("L", "png"), ("CMYK", "jpg"), ("P", "PNG"), ("RGBA", "webp")]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    rng = np.random.default_rng(0)
    for split, position in (("train", 0), ("val", 1)):
        for name, counts in CLASSES.items():
            class_folder = root / split / name
            class_folder.mkdir(parents=True)
            for i in range(counts[position]):
                width, height = (int(side) for side in rng.integers(40, 160, size=2))
                mode, extension = FORMATS[int(rng.integers(len(FORMATS)))]
                image = photographs[i % 2].resize((width, height)).convert(mode)
                image.save(class_folder / f"{int(rng.integers(10**6)):06d}.{extension}")
            (class_folder / "notes.txt").touch()
            (class_folder / "._000000.JPEG").touch()
        (root / split / ".cache").mkdir()
    return root


def build_config(root, **values):
    defaults = {
        "data_url": str(root),
        "batch_size": 4,
        "num_parallel_workers": 2,
        "mix_up": 0.8,
        "cutmix": 1.0,
        "mixup_mode": "elem",
        "interpolation": "random",
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "re_prob": 0.5,
        "re_count": 2,
    }
    return Config(
        model=ModelConfig(num_classes=3, image_size=32),
        data=DataConfig(**{**defaults, **values}),
        optim=OptimConfig(cooldown_epochs=1),
        train=TrainConfig(epochs=2, seed=5),
    )


def read(root, training=True, rank=0, world_size=1, start_step=0, **values):
    dataset = create_dataset(build_config(root, **values), training, rank, world_size, start_step)
    return list(dataset.batches())


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        for array, expected in zip(batch, other):
            np.testing.assert_array_equal(array, expected)


def test_training_yields_the_whole_run(folder):
    dataset = create_dataset(build_config(folder), training=True)
    assert (dataset.steps_per_epoch, dataset.num_samples, dataset.num_classes) == (5, 23, 3)
    assert dataset.class_names == ["Cat", "ant", "bee"]
    batches = list(dataset.batches())
    assert len(batches) == 3 * 5
    for batch in batches:
        assert (batch.image.shape, batch.image.dtype) == ((4, 32, 32, 3), np.uint8)
        assert (batch.label.shape, batch.label.dtype) == ((4,), np.int32)
        assert (batch.mix.shape, batch.mix.dtype) == ((4, 5 + 2 * 7), np.float32)
    images = {image.tobytes() for batch in batches for image in batch.image}
    # Every view of every image is another one.
    assert len(images) == 3 * 5 * 4


def test_workers_do_not_change_a_byte(folder):
    one, two = (read(folder, num_parallel_workers=workers) for workers in (1, 2))
    assert_same(one, two)


def test_seed_changes_order_and_views(folder):
    config = build_config(folder)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=6))
    first, second = (next(create_dataset(c, training=True).batches()) for c in (config, other))
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.mix, second.mix)


@pytest.mark.parametrize("start_step", [1, 5, 7, 14, 15])
def test_start_step_skips_batches(folder, start_step):
    assert_same(read(folder, start_step=start_step), read(folder)[start_step:])


def test_skipped_batches_are_not_decoded(folder, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(folder, root)
    last = read(root)[-1]
    for path in (root / "train").glob("*/*.*"):
        path.write_bytes(b"damaged")
    with pytest.raises(UserError):
        read(root)
    assert create_dataset(build_config(root), training=True, start_step=15).steps_per_epoch == 5
    assert read(root, start_step=15) == []
    assert last.image.any()


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_one(folder, world_size):
    ranks = [read(folder, rank=r, world_size=world_size, batch_size=2) for r in range(world_size)]
    whole = read(folder, batch_size=2 * world_size)
    assert len(whole) == len(ranks[0])
    for rank, batches in enumerate(ranks):
        for mine, all_ranks in zip(batches, whole):
            np.testing.assert_array_equal(mine.image, all_ranks.image[rank::world_size])
            np.testing.assert_array_equal(mine.label, all_ranks.label[rank::world_size])
    mixes = {batch.mix.tobytes() for batches in ranks for batch in batches}
    assert len(mixes) == world_size * len(whole)


def test_mix_is_that_of_its_batch_number(folder):
    for rank in range(2):
        batches = read(folder, rank=rank, world_size=2, batch_size=2, start_step=3)
        for step, batch in enumerate(batches, start=3):
            epoch, position = divmod(step, 5)
            rng = batch_generator(5, epoch, 2 * position + rank)
            expected = draw_mix(Mixing(0.8, 1.0, mixup_mode="elem"), 2, 32, rng=rng)
            np.testing.assert_array_equal(batch.mix[:, :5], expected)


def evaluation_oracle(root):
    """torchvision's ImageFolder and timm's transform."""
    # Here, because the other tests also run where there is no torch (beside MindSpore 2.0.0).
    from torch_oracle import timm, torchvision

    # Its is_valid_file takes the place of the extensions, and leaves hidden files out.
    samples = torchvision.datasets.ImageFolder(
        str(root / "val"),
        is_valid_file=lambda path: (
            not os.path.basename(path).startswith(".") and not path.endswith(".txt")
        ),
        allow_empty=True,
    ).samples
    # torchvision counts the hidden folder as a class, before the others.
    transform = timm.data.create_transform(
        32, interpolation="bicubic", crop_pct=0.875, normalize=False
    )
    images = [transform(Image.open(path).convert("RGB")).numpy() for path, _ in samples]
    return np.stack(images).transpose(0, 2, 3, 1), np.array([label - 1 for _, label in samples])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once(folder, world_size):
    images, labels = evaluation_oracle(folder)
    assert len(labels) == NUM_VAL
    counts = set()
    for rank in range(world_size):
        dataset = create_dataset(build_config(folder), False, rank, world_size)
        assert dataset.num_samples == NUM_VAL
        for _ in range(2):
            batches = list(dataset.batches())
            assert len(batches) == dataset.steps_per_epoch
            assert all(batch.mix is None and batch.image.shape[0] == 4 for batch in batches)
            label = np.concatenate([batch.label for batch in batches])
            image = np.concatenate([batch.image for batch in batches])
            mine = np.arange(rank, NUM_VAL, world_size)
            np.testing.assert_array_equal(label[: len(mine)], labels[mine])
            np.testing.assert_array_equal(image[: len(mine)], images[mine])
            assert (label[len(mine) :] == -1).all()
        counts.add(len(batches))
    assert len(counts) == 1


def test_global_state_is_left_alone(folder):
    ds.config.set_prefetch_size(11)
    before = random.getstate(), np.random.get_state(), ds.config.get_seed()
    read(folder)
    assert (random.getstate(), ds.config.get_seed()) == (before[0], before[2])
    np.testing.assert_equal(np.random.get_state(), before[1])
    assert ds.config.get_prefetch_size() == 11
    ds.config.set_prefetch_size(16)


def test_workers_are_clamped_to_the_cores(folder, caplog):
    with caplog.at_level(logging.INFO, logger="src.data.dataset"):
        batches = read(folder, num_parallel_workers=1_000)
    assert_same(batches, read(folder))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"num_parallel_workers 1000: using {len(os.sched_getaffinity(0))}, the number of cores"
    ]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux does")
def test_iteration_that_is_given_up_leaves_no_threads(folder):
    before = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        batches = create_dataset(build_config(folder), training=True).batches()
        assert next(batches).image.any()
        batches.close()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > before + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(os.listdir("/proc/self/task")) <= before + 2


@pytest.fixture
def broken(folder, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(folder, root)
    return root


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "gone"])
def test_damaged_image_is_named(broken, training, workers, damage):
    split = broken / ("train" if training else "val")
    path = next(p for p in sorted(split.glob("ant/*.*")) if p.suffix != ".txt" and p.stem[0] != ".")
    content = path.read_bytes()
    config = build_config(broken, num_parallel_workers=workers)
    dataset = create_dataset(config, training)
    contents = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(contents[damage])
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            list(dataset.batches())
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    # Mended: the same dataset reads on.
    path.write_bytes(content)
    assert len(list(dataset.batches())) == (15 if training else dataset.steps_per_epoch)


def test_error_of_the_program_keeps_its_type(folder, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    dataset = create_dataset(build_config(folder), training=True)
    monkeypatch.setattr("src.data.augment.transforms.resized_crop", fail)
    with pytest.raises(ZeroDivisionError):
        list(dataset.batches())


def empty_class(root):
    for path in (root / "train" / "bee").glob("*.*"):
        if path.suffix != ".txt":
            path.unlink()


def other_classes(root):
    (root / "val" / "bee").rename(root / "val" / "wasp")
    for i in range(7):
        (root / "train" / f"z{i}").mkdir()


FOLDER_ERRORS = {
    "no data_url": (shutil.rmtree, r"data_url '.*images': no such folder; give one that has train"),
    "no train": (lambda root: shutil.rmtree(root / "train"), r"images/train: no such folder"),
    "no val": (lambda root: shutil.rmtree(root / "val"), r"images/val: no such folder"),
    "no classes": (
        lambda root: [shutil.rmtree(root / "train" / name) for name in CLASSES],
        r"images/train: no class folders",
    ),
    "empty class": (empty_class, r"train/bee: no images \(1 file .*1 .txt\); add some"),
    "other classes": (
        other_classes,
        r"only in train/: bee, z0, z1, z2, z3 and 3 more; only in val/: wasp",
    ),
    "class count": (
        lambda root: [shutil.rmtree(root / split / "bee") for split in ("train", "val")],
        r"num_classes 3: .* has 2 classes; set num_classes: 2",
    ),
}


@pytest.mark.parametrize("name", FOLDER_ERRORS)
def test_folder_errors(broken, name):
    damage, message = FOLDER_ERRORS[name]
    damage(broken)
    with pytest.raises(UserError, match=message) as caught:
        create_dataset(build_config(broken), training=True)
    assert "\n" not in str(caught.value)


def test_batch_larger_than_the_training_set(folder):
    with pytest.raises(UserError, match=r"batch_size 24 .*; set batch_size to 23 or less"):
        create_dataset(build_config(folder, batch_size=24), training=True)
    assert len(read(folder, training=False, batch_size=24)) == 1


def test_policies_are_refused_before_the_first_batch(folder):
    message = "auto_augment 'rand-m9-msdt0.5': unknown key 'msdt' (did you mean 'mstd'?)"
    with pytest.raises(UserError) as caught:
        create_dataset(build_config(folder, auto_augment="rand-m9-msdt0.5"), training=True)
    assert str(caught.value) == message
    # Evaluation does not read it.
    assert len(read(folder, training=False, auto_augment="rand-m9-msdt0.5")) == 3


def test_erased_boxes_come_with_their_image(folder):
    erased, whole = read(folder, re_prob=1.0), read(folder, re_prob=0.0)
    for batch, other in zip(erased, whole):
        assert other.mix.shape == (4, 5)
        np.testing.assert_array_equal(batch.mix[:, :5], other.mix)
        boxes = batch.mix[:, 5:].reshape(4, 2, 7)
        for image, unchanged, rows in zip(batch.image, other.image, boxes):
            expected = unchanged.copy()
            for x0, y0, x1, y1 in rows[:, :4].astype(int):
                expected[y0:y1, x0:x1] = image[y0:y1, x0:x1]
            np.testing.assert_array_equal(image, expected)
    assert all(batch.mix[:, 5:].any(axis=1).all() for batch in erased)


def test_split_keeps_the_first_images_whole(folder):
    values = {"re_prob": 1.0, "re_mode": "pixel"}
    splits = (read(folder, re_split=2, **values), read(folder, **values), read(folder, re_prob=0.0))
    for batch, erased, whole in zip(*splits):
        assert not batch.mix[:2, 5:].any()
        assert batch.mix[2:, 5:].any(axis=1).all()
        np.testing.assert_array_equal(batch.image[:2], whole.image[:2])
        np.testing.assert_array_equal(batch.image[2:], erased.image[2:])


def test_repeats_are_augmented_each_in_its_own_way(folder):
    batches = read(folder, repeated_aug=3, re_prob=0.0)
    assert len(batches) == 15
    for batch in batches[:5]:
        assert len({image.tobytes() for image in batch.image}) == 4
    labels = np.concatenate([batch.label for batch in batches[:5]])
    assert (labels[0:18:3] == labels[2:18:3]).all()
    ranks = [read(folder, rank=r, world_size=2, batch_size=2, repeated_aug=3) for r in (0, 1)]
    for mine, whole in zip(ranks[1], batches):
        np.testing.assert_array_equal(mine.label, whole.label[1::2])


def test_mixing_stops_at_its_epoch(folder):
    batches = read(folder, mixup_off_epoch=1, re_prob=0.0)
    for step, (batch, other) in enumerate(zip(batches, read(folder, re_prob=0.0))):
        if step < 5:
            np.testing.assert_array_equal(batch.mix, other.mix)
        else:
            np.testing.assert_array_equal(batch.mix, [(1, 0, 0, 0, 0)] * 4)
        np.testing.assert_array_equal(batch.image, other.image)


@pytest.mark.parametrize(
    ("values", "is_on"),
    [
        ({"auto_augment": None}, True),
        ({}, False),
        ({"force_color_jitter": True}, True),
        ({"auto_augment": "3a"}, True),
    ],
)
def test_jitter_follows_the_rule_of_timm(folder, caplog, values, is_on):
    with caplog.at_level(logging.INFO, logger="src.data.transforms_factory"):
        jittered = read(folder, color_jitter=[0.4, 0.4, 0.4], **values)
    plain = read(folder, **values)
    same = [np.array_equal(a.image, b.image) for a, b in zip(jittered, plain)]
    assert not any(same) if is_on else all(same)
    assert ("force_color_jitter: True turns it on" in caplog.text) != is_on


def test_grey_and_blur_and_flip_reach_the_images(folder):
    for batch in read(folder, auto_augment=None, re_prob=0.0, grayscale_prob=1.0):
        np.testing.assert_array_equal(batch.image[..., 0], batch.image[..., 2])
    plain, blurred, upside_down = (
        read(folder, auto_augment=None, re_prob=0.0, hflip=0.0, **values)[0].image
        for values in ({}, {"gaussian_blur_prob": 1.0}, {"vflip": 1.0})
    )
    roughness = [np.abs(np.diff(images.astype(int), axis=1)).mean() for images in (plain, blurred)]
    assert roughness[1] < roughness[0]
    np.testing.assert_array_equal(upside_down, plain[:, ::-1])


def test_squashed_evaluation_keeps_the_whole_image(folder):
    squashed = read(folder, training=False, crop_mode="squash", crop_pct=1.0)
    centred = read(folder, training=False, crop_pct=1.0)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(squashed, centred))
