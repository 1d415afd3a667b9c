"""CIFAR archives, packed data sets, folders without splits, and the index of folders."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import os
import pickle
import shutil
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photographs import load_photographs
from PIL import Image
from test_data_idx import write_idx

from src.args import Config, DataConfig, ModelConfig, TrainConfig, parse_args
from src.data import cifar, folder_index
from src.data import packed as packed_images
from src.data.cifar import load_arrays, open_cifar
from src.data.decode import Decoder
from src.data.image_folder import scan_image_folder
from src.data.imagenet import create_dataset
from src.data.packed import open_packed, read_manifest
from src.data.sources import open_source
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ROWS = 20


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(cifar, "ROWS_PER_BATCH", ROWS)


def cifar_rows(name, split):
    """What a split must hold: (N, 3072) uint8 and labels."""
    rng = np.random.default_rng((len(name), len(split)))
    count = ROWS * (5 if split == "train" else 1)
    classes = cifar.NUM_CLASSES[name]
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, classes, count)


def write_cifar(folder, name, is_pickled):
    """The files of one archive as its authors' page describes them."""
    layout = next(x for x in cifar.LAYOUTS[name] if x.is_pickled == is_pickled)
    target = folder / layout.folder
    target.mkdir()
    for split, files in layout.files.items():
        pixels, labels = cifar_rows(name, split)
        start = 0
        for file_name, factor in files:
            part = slice(start, start + factor * ROWS)
            start = part.stop
            if is_pickled:
                # As Python 2 wrote them: byte strings for keys.
                content = {b"data": pixels[part], layout.keys[0].encode(): labels[part].tolist()}
                (target / file_name).write_bytes(pickle.dumps(content, protocol=2))
            else:
                coarse = [np.full((len(labels[part]), 1), 99, np.uint8)] * (layout.label_bytes - 1)
                fine = labels[part, None].astype(np.uint8)
                rows = np.concatenate([*coarse, fine, pixels[part]], axis=1)
                (target / file_name).write_bytes(rows.tobytes())
    names = [f"class_{i}" for i in range(cifar.NUM_CLASSES[name])]
    if is_pickled:
        meta = pickle.dumps({layout.keys[1].encode(): [n.encode() for n in names]}, protocol=2)
        (target / layout.meta).write_bytes(meta)
    else:
        (target / layout.meta).write_text("\n".join(names) + "\n\n")
    return layout


def as_archive(folder, layout, suffix):
    path = folder / f"{layout.archive}{suffix}"
    with tarfile.open(path, "w:gz" if suffix else "w") as archive:
        archive.add(folder / layout.folder, layout.folder)
    for file in (folder / layout.folder).iterdir():
        file.unlink()
    (folder / layout.folder).rmdir()
    return path


@pytest.mark.parametrize("form", ["folder", "inside", ".gz", ""])
@pytest.mark.parametrize("is_pickled", [True, False])
@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_is_read_as_written(tmp_path, small_batches, name, is_pickled, form):
    layout = write_cifar(tmp_path, name, is_pickled)
    if form in (".gz", ""):
        as_archive(tmp_path, layout, form)
    root = tmp_path / layout.folder if form == "inside" else tmp_path
    for split in ("train", "val"):
        pixels, labels = cifar_rows(name, split)
        images = open_cifar(root, name, split)
        assert len(images) == len(pixels)
        np.testing.assert_array_equal(images.labels, labels)
        assert images.class_names[9] == "class_9"
        for index in (0, 7, len(pixels) - 1):
            # 1024 red values row by row, then green, then blue.
            image = images.read(index)
            np.testing.assert_array_equal(image[3, 5], pixels[index, [101, 1125, 2149]])
            np.testing.assert_array_equal(image.transpose(2, 0, 1).reshape(-1), pixels[index])


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Bomb()}, protocol=2),
        pickle.dumps({b"data": Bomb()}),
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
)
def test_no_code_of_a_pickle_runs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no pickle of arrays: it asks for") as caught:
        load_arrays(content, "data_batch_1")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_numpy_1_and_2_are_admitted():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for protocol in (2, 4):
        data = pickle.dumps({"data": array, "labels": [1, 2]}, protocol=protocol)
        # Where NumPy 2 keeps the same function.
        renamed = data.replace(b"cnumpy.core.multiarray", b"cnumpy._core.multiarray")
        for text in (data, renamed):
            np.testing.assert_array_equal(load_arrays(text, "x")["data"], array)


CIFAR_DAMAGE = {
    "short": (lambda data: data[:-1], "no multiple of 3073"),
    "one image less": (lambda data: data[:-3073], "19 images and 19 labels instead of 20"),
    "label": (lambda data: b"\x0a" + data[1:], "a label outside 0..9"),
    "empty": (lambda data: b"", "0 images"),
}


@pytest.mark.parametrize("damage", CIFAR_DAMAGE)
def test_damaged_cifar_is_refused(tmp_path, small_batches, damage):
    layout = write_cifar(tmp_path, "CIFAR10", is_pickled=False)
    change, message = CIFAR_DAMAGE[damage]
    path = tmp_path / layout.folder / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        open_cifar(tmp_path, "CIFAR10", "train")
    assert "data_batch_3.bin" in str(caught.value)
    path.unlink()
    with pytest.raises(UserError, match=r"data_batch_3.bin.*download the archive again"):
        open_cifar(tmp_path, "CIFAR10", "train")


def test_truncated_archive_is_refused(tmp_path, small_batches):
    path = as_archive(tmp_path, write_cifar(tmp_path, "CIFAR10", is_pickled=True), ".gz")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: damaged"):
        open_cifar(tmp_path, "CIFAR10", "train")
    with pytest.raises(UserError, match=r"no CIFAR100 there; .* give --set CIFAR10$"):
        open_cifar(tmp_path, "CIFAR100", "train")
    path.unlink()
    with pytest.raises(UserError, match=r"no CIFAR100 there; put cifar-100-python\.tar\.gz"):
        open_cifar(tmp_path, "CIFAR100", "train")


@pytest.mark.parametrize("data_set", ["cifar10", "cifar100"])
@pytest.mark.parametrize("variant", ["", "sine_"])
def test_the_recipes_of_cifar_load_their_data(tmp_path, small_batches, data_set, variant):
    write_cifar(tmp_path, data_set.upper(), is_pickled=True)
    recipe = ROOT / "src" / "configs" / f"cct_7_3x1_32_{variant}{data_set}.yaml"
    words = ["--config", str(recipe), "--data_url", str(tmp_path), "--batch_size", "10"]
    config = parse_args([*words, "--num_parallel_workers", "1"])
    for training, count in ((True, 100), (False, 20)):
        dataset = create_dataset(config, training)
        assert (dataset.num_samples, dataset.num_classes) == (count, config.model.num_classes)
        batch = next(dataset.batches())
        assert batch.image.shape == (10, 32, 32, 3)
    # Evaluation at crop_pct 1 changes no pixel.
    pixels, labels = cifar_rows(data_set.upper(), "val")
    np.testing.assert_array_equal(batch.image.transpose(0, 3, 1, 2).reshape(10, -1), pixels[:10])
    np.testing.assert_array_equal(batch.label, labels[:10])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    sources = load_photographs()
    for split, count in (("train", 12), ("val", 5)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                width, height = (int(side) for side in rng.integers(40, 160, size=2))
                image = sources[i % len(sources)].resize((width, height))
                extension = "jpg" if i % 3 else "png"
                image.save(root / split / name / f"{i:03d}.{extension}")
    return root


def build_config(root, num_classes=2, **values):
    return Config(
        model=ModelConfig(num_classes=num_classes, image_size=32),
        data=DataConfig(
            **{
                "data_url": str(root),
                "batch_size": 4,
                "auto_augment": "rand-m9-mstd0.5-inc1",
                "re_prob": 0.5,
                **values,
            }
        ),
        train=TrainConfig(epochs=1, seed=5),
    )


def pack(*words):
    """Runs scripts/pack_dataset.py in this process: loading the framework takes seconds."""
    path = ROOT / "scripts" / "pack_dataset.py"
    spec = importlib.util.spec_from_file_location("pack_dataset", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = program.main([str(word) for word in words])
    return SimpleNamespace(returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue())


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("packs") / "packed"
    result = pack("--data_url", folder, "--output", root, "--images_per_shard", 10)
    assert result.returncode == 0, result.stderr
    assert f"{root / 'train'}: 24 of 24 images in 3 shards, 2 classes" in result.stdout
    return root


def test_packed_images_train_as_those_of_the_folder(folder, packed):
    for training in (True, False):
        ours = create_dataset(build_config(packed, set="MindRecord"), training)
        theirs = create_dataset(build_config(folder), training)
        assert ours.class_names == theirs.class_names
        for batch, other in zip(ours.batches(), theirs.batches()):
            for array, expected in zip(batch, other):
                np.testing.assert_array_equal(array, expected)


def test_packed_images_are_what_mindspore_reads(folder, packed):
    import mindspore.dataset as ds

    source = scan_image_folder(folder, "train")
    files = sorted(str(path) for path in (packed / "train").glob("*.mindrecord"))
    rows = ds.MindDataset(files, shuffle=False).create_dict_iterator(
        num_epochs=1, output_numpy=True
    )
    found = {int(row["index"]): (int(row["label"]), row["image"].tobytes()) for row in rows}
    assert found == {i: (int(source.labels[i]), source.read_bytes(i)) for i in range(len(source))}


def test_packing_goes_on_where_it_stopped(folder, packed, tmp_path):
    words = ("--data_url", folder, "--output", tmp_path / "out", "--images_per_shard", 10)
    assert pack(*words).returncode == 0
    train = tmp_path / "out" / "train"
    kept = (train / "00000.mindrecord").stat().st_mtime_ns
    # As if it had been killed while it wrote the second shard.
    (train / "manifest.json").unlink()
    (train / "00001.json").unlink()
    (train / "unfinished").mkdir()
    (train / "unfinished" / "00001.mindrecord").write_bytes(b"half")
    with pytest.raises(UserError, match=r"write it, or finish it, with scripts/pack_dataset.py"):
        open_packed(train, Decoder())
    assert pack(*words).returncode == 0
    assert (train / "00000.mindrecord").stat().st_mtime_ns == kept
    assert not (train / "unfinished").exists()
    ours, theirs = (open_packed(path, Decoder()) for path in (train, packed / "train"))
    assert [ours.read_bytes(i) for i in range(24)] == [theirs.read_bytes(i) for i in range(24)]
    other = pack(*words, "--short_side", 64)
    assert other.returncode == 2
    assert "other images or settings (short_side)" in other.stderr


def test_another_folder_with_these_names_is_not_taken_for_packed(folder, tmp_path):
    words = ("--output", tmp_path / "out")
    assert pack("--data_url", folder, *words).returncode == 0
    shutil.copytree(folder, tmp_path / "others")
    other = pack("--data_url", tmp_path / "others", *words)
    assert other.returncode == 2
    assert "other images or settings (source)" in other.stderr
    # Plans of before do not say.
    path = tmp_path / "out" / "train" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in plan.items() if key != "source"}))
    assert "(source)" not in pack("--data_url", folder, *words).stderr


def test_damaged_packs_are_noticed(folder, tmp_path):
    root = tmp_path / "out"
    assert pack("--data_url", folder, "--output", root).returncode == 0
    assert "all as packed" in pack("--verify", root).stdout
    images = open_packed(root / "train", Decoder())
    shard = root / "train" / "00000.mindrecord"
    with open(shard, "r+b") as file:
        file.seek(int(images.offsets[5]) + 40)
        file.write(b"XX")
    with pytest.raises(UserError, match=r"00000.mindrecord, image 5: its checksum differs"):
        open_packed(root / "train", Decoder()).read(5)
    result = pack("--verify", root)
    assert (result.returncode, "SHA-256 differs" in result.stderr) == (2, True)
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(UserError, match=r"bytes instead of \d+; copy"):
        open_packed(root / "train", Decoder())


def test_a_shard_stays_open_while_it_is_read(folder, tmp_path, monkeypatch):
    root = tmp_path / "out"
    assert pack("--data_url", folder, "--output", root).returncode == 0
    # Of two threads that open a shard at once, the file of one is in no cache.
    monkeypatch.setattr(packed_images, "_open", packed_images._open.__wrapped__)
    assert open_packed(root / "train", Decoder()).read(0).ndim == 3


def test_packing_shrinks_and_leaves_out(folder, tmp_path):
    root = tmp_path / "in"
    shutil.copytree(folder, root)
    (root / "train" / "ant" / "003.png").write_bytes(b"no image")
    words = ("--data_url", root, "--output", tmp_path / "out", "--short_side", 48)
    refused = pack(*words)
    assert refused.returncode == 2
    assert "003.png: not a readable image" in refused.stderr
    assert not (tmp_path / "out" / "train" / "manifest.json").exists()
    again = ("--data_url", root, "--output", tmp_path / "skip", "--short_side", 48)
    result = pack(*again, "--on_bad_image", "skip")
    assert (result.returncode, "left out: " in result.stderr) == (0, True)
    manifest = read_manifest(tmp_path / "skip" / "train")
    assert (manifest["images"], manifest["source_images"]) == (23, 24)
    images = open_packed(tmp_path / "skip" / "train", Decoder())
    source = scan_image_folder(root, "train")
    shapes = [images.read(i).shape[:2] for i in range(23)]
    assert max(min(shape) for shape in shapes) == 48
    # The fourth is missing; Pillow's resize is the oracle, JPEG at 95 the difference.
    height, width = shapes[0]
    with Image.open(source.folder / source.file_name(0)) as image:
        if min(image.size) > 48:
            expected = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            difference = np.abs(images.read(0).astype(int) - np.asarray(expected, int))
            assert difference.mean() < 4


def test_shrunk_images_are_filled_and_turned_as_packing_says(tmp_path, caplog):
    clear = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "val"):
        (tmp_path / "in" / split / "ant").mkdir(parents=True)
        clear.save(tmp_path / "in" / split / "ant" / "0.png", exif=exif)
    words = ("--data_url", tmp_path / "in", "--short_side", 40)
    turned = ("--background", "0,200,0", "--exif_orientation")
    for name, options, colour, shape in (
        ("plain", (), (255, 255, 255), (40, 60, 3)),
        ("turned", turned, (0, 200, 0), (60, 40, 3)),
        ("dropped", ("--background", "null"), (0, 0, 0), (40, 60, 3)),
    ):
        result = pack(*words, "--output", tmp_path / name, *options)
        assert result.returncode == 0, result.stderr
        pixels = open_packed(tmp_path / name / "train", Decoder()).read(0)
        assert pixels.shape == shape
        assert np.abs(pixels.astype(int) - colour).max() <= 1
    with caplog.at_level("WARNING"):
        caplog.clear()
        open_packed(tmp_path / "plain" / "train", Decoder())
        assert not caplog.messages
        open_packed(tmp_path / "turned" / "train", Decoder(background=(0, 200, 0)))
    (said,) = caplog.messages
    assert "packed with exif_orientation True, not False; if some" in said
    with pytest.raises(SystemExit):
        pack(*words, "--output", tmp_path / "x", "--background", "1,2")


def test_folder_without_splits_needs_a_share(folder):
    with pytest.raises(UserError, match=r"neither train/ nor val/.* --val_share 0.1") as caught:
        scan_image_folder(folder / "train", "train")
    assert "\n" not in str(caught.value)


def test_share_is_disjoint_whole_and_stable(folder, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(40):
            (tmp_path / name / f"{i}.jpg").write_bytes(b"x")
    splits = {}
    for split in ("train", "val"):
        images = scan_image_folder(tmp_path, split, val_share=0.25)
        splits[split] = {images.file_name(i) for i in range(len(images))}
    assert not splits["train"] & splits["val"]
    assert len(splits["train"] | splits["val"]) == 80
    assert len(splits["val"]) == 20
    # An image more moves no other one from train to val.
    (tmp_path / "ant" / "new.jpg").write_bytes(b"x")
    later = scan_image_folder(tmp_path, "val", val_share=0.25)
    names = {later.file_name(i) for i in range(len(later))}
    assert len(names ^ splits["val"]) <= 1
    config = build_config(folder / "train", val_share=0.25)
    assert create_dataset(config, training=True).num_samples == 18
    assert create_dataset(config, training=False).num_samples == 6


def count_listings(monkeypatch):
    listed = []
    real = folder_index.find_images

    def record(folder):
        listed.append(os.path.basename(folder))
        return real(folder)

    monkeypatch.setattr(folder_index, "find_images", record)
    return listed


def test_index_notices_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "_TICK_NS", 0)
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "ä0.jpg").write_bytes(b"x")
    listed = count_listings(monkeypatch)

    def scan():
        listed.clear()
        images = scan_image_folder(tmp_path, "train")
        return [images.file_name(i) for i in range(len(images))], sorted(listed)

    time.sleep(0.02)
    assert scan() == (["ant/ä0.jpg", "bee/ä0.jpg"], ["ant", "bee"])
    assert scan() == (["ant/ä0.jpg", "bee/ä0.jpg"], [])
    (tmp_path / "train" / "bee" / "1.jpg").write_bytes(b"x")
    time.sleep(0.02)
    assert scan() == (["ant/ä0.jpg", "bee/1.jpg", "bee/ä0.jpg"], ["bee"])
    (tmp_path / "train" / "bee" / "1.jpg").rename(tmp_path / "train" / "bee" / "2.jpg")
    time.sleep(0.02)
    assert scan() == (["ant/ä0.jpg", "bee/2.jpg", "bee/ä0.jpg"], ["bee"])
    (tmp_path / "train" / "bee" / "2.jpg").unlink()
    time.sleep(0.02)
    assert scan()[1] == ["bee"]
    for split in ("train", "val"):
        (tmp_path / split / "ant").rename(tmp_path / split / "cat")
    assert scan() == (["bee/ä0.jpg", "cat/ä0.jpg"], ["cat"])
    # A cache that was cut short, or is something else, is no cache.
    path = tmp_path / "train" / ".image_index.npz"
    for content in (path.read_bytes()[:100], b"", b"text"):
        path.write_bytes(content)
        assert scan() == (["bee/ä0.jpg", "cat/ä0.jpg"], ["bee", "cat"])
    # Neither is one whose arrays do not belong together.
    with np.load(path) as file:
        arrays = dict(file)
    for name in ("lengths", "counts", "names", "stamps", "search"):
        np.savez(path, **{**arrays, name: arrays[name][:-1]})
        assert scan() == (["bee/ä0.jpg", "cat/ä0.jpg"], ["bee", "cat"])


def test_folder_that_has_just_changed_is_listed_again(tmp_path, monkeypatch):
    for split in ("train", "val"):
        (tmp_path / split / "ant").mkdir(parents=True)
        (tmp_path / split / "ant" / "0.jpg").write_bytes(b"x")
    listed = count_listings(monkeypatch)
    scan_image_folder(tmp_path, "train")
    scan_image_folder(tmp_path, "train")
    assert listed == ["ant", "ant"]


def test_memory_per_indexed_image(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "n01440764").mkdir(parents=True)
    for i in range(1000):
        (tmp_path / "train" / "n01440764" / f"n01440764_{i:05d}.JPEG").touch()
    (tmp_path / "val" / "n01440764" / "0.JPEG").touch()
    images = scan_image_folder(tmp_path, "train")
    size = len(images.names) + images.ends.nbytes + images.labels.nbytes
    assert size / len(images) < 40
    assert io.BytesIO(pickle.dumps(images)).getbuffer().nbytes / len(images) < 45


def test_listing_is_the_same_with_names_of_every_length(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_index, "_TICK_NS", 0)
    expected = []
    for label, count in enumerate((3, 1, 40)):
        for split in ("train", "val"):
            (tmp_path / split / f"class {label}").mkdir(parents=True)
            for i in range(count):
                (tmp_path / split / f"class {label}" / f"{'é' * (i + 1)}.png").touch()
        expected += sorted(f"class {label}/{'é' * (i + 1)}.png" for i in range(count))
    time.sleep(0.02)
    for _ in range(3):
        images = scan_image_folder(tmp_path, "train")
        assert [images.file_name(i) for i in range(len(images))] == expected
        assert images.labels.tolist() == [0] * 3 + [1] + [2] * 40
        # From the second on: one class is listed again, two come from the cache.
        os.utime(tmp_path / "train" / "class 1")


def write_set(name, root, monkeypatch):
    if name == "CIFAR10":
        monkeypatch.setattr(cifar, "ROWS_PER_BATCH", ROWS)
        write_cifar(root, name, is_pickled=True)
    elif name != "Digits":
        write_idx(root)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("CIFAR10", (100, 20)),
        ("FashionMNIST", (50, 20)),
        pytest.param("Digits", (1437, 360), marks=pytest.mark.slow),
    ],
)
def test_packed_arrays_are_and_train_as_the_set_itself(name, counts, tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    write_set(name, root, monkeypatch)
    words = ("--set", name, "--data_url", root, "--output", tmp_path / "out")
    result = pack(*words, "--images_per_shard", max(counts) // 2 + 5)
    assert result.returncode == 0, result.stderr
    assert pack("--verify", tmp_path / "out").returncode == 0
    for split, count in zip(("train", "val"), counts):
        ours = open_packed(tmp_path / "out" / split, Decoder())
        config = DataConfig(set=name, data_url=str(root))
        theirs = open_source(
            Config(model=ModelConfig(num_classes=10), data=config), split == "train"
        )
        assert ours.class_names == theirs.class_names
        assert len(ours) == len(theirs) == count
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        for index in range(count):
            np.testing.assert_array_equal(ours.read(index), theirs.read(index))
            assert Image.open(io.BytesIO(ours.read_bytes(index))).format == "PNG"
        batches = [
            create_dataset(build_config(path, set=kind, num_classes=10), split == "train").batches()
            for path, kind in ((tmp_path / "out", "MindRecord"), (root, name))
        ]
        for arrays in itertools.islice(zip(*batches), 8):
            for array, expected in zip(*arrays):
                np.testing.assert_array_equal(array, expected)


def test_packing_arrays_goes_on_with_the_same_set_only(tmp_path):
    write_idx(tmp_path / "data")
    words = (
        "--data_url",
        tmp_path / "data",
        "--output",
        tmp_path / "out",
        "--images_per_shard",
        20,
    )
    assert pack("--set", "MNIST", *words).returncode == 0
    train = tmp_path / "out" / "train"
    kept = (train / "00001.mindrecord").stat().st_mtime_ns
    (train / "00000.json").unlink()
    (train / "manifest.json").unlink()
    assert pack("--set", "MNIST", *words).returncode == 0
    assert (train / "00001.mindrecord").stat().st_mtime_ns == kept
    assert "all as packed" in pack("--verify", tmp_path / "out").stdout
    other = pack("--set", "FashionMNIST", *words)
    assert (other.returncode, "other images or settings (set)" in other.stderr) == (2, True)


def test_an_order_of_folders_says_nothing_of_sets_that_number_their_classes(tmp_path):
    write_idx(tmp_path / "data")
    words = ("--set", "FashionMNIST", "--data_url", tmp_path / "data")
    assert pack(*words, "--output", tmp_path / "out").returncode == 0
    for order in ("natural", "code_point"):
        words = ["--set", "MindRecord", "--data_url", str(tmp_path / "out"), "--num_classes", "10"]
        source = open_source(parse_args([*words, "--class_order", order]), True)
        assert source.class_names[0] == "T-shirt/top"
