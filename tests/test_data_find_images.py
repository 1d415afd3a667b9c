"""Which files of a data set are found, beside torchvision and timm; splits; what is left out."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from src.data import folder_index
from src.data.decode import Decoder
from src.data.find_images import describe_skipped, find_images, say_once
from src.data.image_folder import list_classes, scan_image_folder
from src.data.image_formats import readable_extensions
from src.data.sources import open_unpacked
from src.errors import UserError

CLIP_ART = Path(os.environ.get("OPENCLIPART", "/usr/share/openclipart"))


def write(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(path, kind)


KINDS = {
    "a.png": "PNG",
    "B.JPG": "JPEG",
    "c.jpeg": "JPEG",
    "d.bmp": "BMP",
    "e.webp": "WEBP",
    "f.TIF": "TIFF",
    "g.tiff": "TIFF",
    "h.ppm": "PPM",
    "i.pgm": "PPM",
    "tabby/1.png": "PNG",
    "tabby/old/2.jpg": "JPEG",
}
OURS_ALONE = {"j.jfif": "JPEG", "k.gif": "GIF", "tabby/l.jp2": "JPEG2000", "m.tga": "TGA"}


@pytest.fixture
def data(tmp_path):
    """Classes ant and bee in train/ and val/, with everything that a scan may meet."""
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            for file, kind in KINDS.items():
                write(tmp_path / "data" / split / name / file, kind)
    ant = tmp_path / "data" / "train" / "ant"
    write(tmp_path / "elsewhere" / "3.png")
    (ant / "linked").symlink_to(tmp_path / "elsewhere")
    (ant / "link.png").symlink_to("a.png")
    return tmp_path / "data"


def names_of(images):
    return [images.file_name(i) for i in range(len(images))]


def test_the_files_of_torchvision(data):
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(str(data / "train"))
    ours = scan_image_folder(data, "train")
    expected = {(os.path.relpath(path, data / "train"), label) for path, label in theirs.samples}
    assert set(zip(names_of(ours), ours.labels.tolist())) == expected
    assert len(ours) == len(theirs.samples) == 2 * len(KINDS) + 2
    assert ours.class_names == theirs.classes
    for i in range(len(ours)):
        assert ours.read(i).shape == (4, 4, 3)


def test_the_files_of_timm(data):
    from timm.data.readers.reader_image_folder import find_images_and_targets

    # timm calls a class by the innermost folder.
    shutil.rmtree(data / "train" / "ant" / "tabby")
    shutil.rmtree(data / "train" / "bee" / "tabby")
    (data / "train" / "ant" / "linked").unlink()
    types = [".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
    theirs, _ = find_images_and_targets(str(data / "train"), types=types)
    expected = {os.path.relpath(path, data / "train") for path, _ in theirs}
    assert set(names_of(scan_image_folder(data, "train"))) == expected


def test_what_pillow_reads_beyond_them(data):
    for file, kind in OURS_ALONE.items():
        write(data / "train" / "ant" / file, kind)
    ours = scan_image_folder(data, "train")
    assert {f"ant/{file}" for file in OURS_ALONE} <= set(names_of(ours))
    for i in range(len(ours)):
        assert ours.read(i).shape == (4, 4, 3)
    # Neither what starts another program nor what is no picture.
    assert not readable_extensions() & {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".txt"}


def test_predict_finds_the_same(data, caplog):
    from src.report import image_files

    (data / "train" / "ant" / "photo.heic").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        root, names = image_files.find_images(str(data / "train"))
    assert root == data / "train"
    assert names == sorted(names_of(scan_image_folder(data, "train")))
    assert "1 file is not a picture that can be read: 1 .heic; convert HEIC" in caplog.text


def add_what_is_left_out(folder):
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (folder / name).write_bytes(b"x")
    write(folder / "._a.png")
    write(folder / ".cache" / "a.png")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "link to a pipe.png").symlink_to("pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")


LEFT_OUT = {
    ".heic": 2,
    ".txt": 1,
    "file without an ending": 1,
    "hidden image": 1,
    "hidden folder": 1,
    "dead link": 2,
    "link to a folder it is in": 1,
    "pipe, socket or device": 3,
}


def test_what_is_left_out_is_counted_and_said(data, caplog):
    ant = data / "train" / "ant"
    add_what_is_left_out(ant)
    write(data / "train" / "loose.png")
    found = find_images(str(ant))
    assert found.skipped == LEFT_OUT
    with caplog.at_level(logging.INFO):
        images = names_of(scan_image_folder(data, "train"))
    assert found.names == [name[4:] for name in images if name.startswith("ant/")]
    kinds, said = caplog.messages
    # 11 files a class, and two links.
    assert kinds == (
        f"{data / 'train'}: 24 images: 6 .png, 4 .jpg, 2 .bmp, 2 .jpeg, 2 .pgm, 2 .ppm, 2 .tif, "
        "2 .tiff and 1 more"
    )
    assert said.startswith(
        f"{data / 'train'}: 13 files are not pictures that can be read: 3 pipes,"
    )
    assert "1 image in no class folder" in said
    # From the index it is the same.
    say_once.cache_clear()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        scan_image_folder(data, "train")
    assert caplog.messages == [kinds, said]


def test_the_line_names_kinds_by_number():
    counts = Counter({".heic": 6, ".txt": 4, "dead link": 2, "hidden folder": 0})
    assert describe_skipped(counts) == (
        "12 files are not pictures that can be read: 6 .heic, 4 .txt, 2 dead links; convert HEIC "
        "to JPEG"
    )
    assert describe_skipped(Counter()) == describe_skipped({".txt": 0}) == ""
    everything = describe_skipped(dict.fromkeys(LEFT_OUT, 2))
    for words in ("links to a folder it is in", "pipes, sockets or devices", "hidden images"):
        assert f"2 {words}" in everything


def test_links_that_lead_to_each_other_end(tmp_path):
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert find_images(str(tmp_path / "a")).names == ["1.png", "b/2.png"]


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    write(tmp_path / "ant" / "1.png")
    write(tmp_path / "ant" / "locked" / "2.png")
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    # The tests may run as root, who can read everything.
    monkeypatch.setattr(os, "scandir", scandir)
    found = find_images(str(tmp_path / "ant"))
    assert (found.names, found.skipped) == (["1.png"], {"unreadable folder": 1})
    with pytest.raises(PermissionError):
        find_images(str(tmp_path / "ant" / "locked"))


def test_index_sees_folders_below_a_class(data, monkeypatch):
    monkeypatch.setattr(folder_index, "_TICK_NS", 0)
    time.sleep(0.02)
    before = names_of(scan_image_folder(data, "train"))
    assert names_of(scan_image_folder(data, "train")) == before
    write(data / "train" / "bee" / "tabby" / "old" / "new.png")
    assert set(names_of(scan_image_folder(data, "train"))) - set(before) == {
        "bee/tabby/old/new.png"
    }
    shutil.rmtree(data / "train" / "bee" / "tabby")
    time.sleep(0.02)
    assert len(scan_image_folder(data, "train")) == len(before) - 2
    # A link that comes back to life leaves no trace in the times of its folder.
    (data / "train" / "bee" / "late.png").symlink_to(data / "late.png")
    time.sleep(0.02)
    assert "bee/late.png" not in names_of(scan_image_folder(data, "train"))
    write(data / "late.png")
    assert "bee/late.png" in names_of(scan_image_folder(data, "train"))


def test_index_of_an_older_search_is_not_used(data, monkeypatch):
    monkeypatch.setattr(folder_index, "_TICK_NS", 0)
    time.sleep(0.02)
    monkeypatch.setattr(folder_index, "readable_extensions", lambda: frozenset({".png"}))
    scan_image_folder(data, "train")
    searched = []
    real = folder_index.find_images
    monkeypatch.setattr(
        folder_index, "find_images", lambda folder: (searched.append(folder), real(folder))[1]
    )
    scan_image_folder(data, "train")
    assert not searched
    monkeypatch.setattr(folder_index, "readable_extensions", readable_extensions)
    scan_image_folder(data, "train")
    assert len(searched) == 2


def split_data(root, *names):
    for name in names:
        for label in ("ant", "bee"):
            write(root / name / label / f"{name[:2]}.png")
    return root


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Test"),
        ("training", "validation"),
        ("TRAIN", "Valid"),
        ("train", "eval"),
        ("train", "test"),
    ],
)
def test_splits_have_the_names_that_users_give(tmp_path, train, val):
    split_data(tmp_path, train, val)
    assert list_classes(tmp_path) == ["ant", "bee"]
    for split, name in (("train", train), ("val", val)):
        images = scan_image_folder(tmp_path, split)
        assert images.folder == tmp_path / name
        assert names_of(images) == [f"{label}/{name[:2]}.png" for label in ("ant", "bee")]


def test_val_comes_before_test(tmp_path):
    split_data(tmp_path, "train", "test", "val")
    assert scan_image_folder(tmp_path, "val").folder == tmp_path / "val"


@pytest.mark.parametrize("names", [("train", "Train", "val"), ("train", "val", "valid")])
def test_two_folders_for_a_split_are_refused(tmp_path, names):
    split_data(tmp_path, *names)
    with pytest.raises(UserError, match=r"may each be the folder to .*; rename or move") as caught:
        scan_image_folder(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_a_class_called_train(tmp_path):
    for name in ("bus", "train", "Test"):
        for i in range(4):
            write(tmp_path / name / f"{i}.png")
    images = scan_image_folder(tmp_path, "train", val_share=0.25)
    assert images.class_names == list_classes(tmp_path) == ["Test", "bus", "train"]
    assert len(images) == 9
    with pytest.raises(UserError, match=r"3 class folders aside .*--val_share 0.1"):
        scan_image_folder(tmp_path, "train")
    # With folders in it nobody can tell.
    write(tmp_path / "train" / "steam" / "1.png")
    with pytest.raises(UserError, match=r"train/ may be a split or a class, beside bus with"):
        scan_image_folder(tmp_path, "train", val_share=0.25)


def test_splits_without_class_folders(tmp_path):
    write(tmp_path / "train" / "1.png")
    write(tmp_path / "val" / "1.png")
    with pytest.raises(UserError, match=r"train: no class folders; put the images of each class"):
        scan_image_folder(tmp_path, "train")


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("part-0.tfrecord", "it holds TFRecord, which is not read; unpack the images"),
        ("train.tfrecord-00000-of-00009", "TFRecord"),
        ("train/n01440764.tar", "a tar archive"),
        ("data.mdb", "an LMDB database"),
        ("train/0000.parquet", "Parquet"),
        ("x.mindrecord", "MindRecord that pack_dataset.py did not write"),
        ("cifar-10-python.tar.gz", "--set CIFAR10"),
        ("cifar-100-binary/train.bin", "--set CIFAR100"),
        (
            "train-images-idx3-ubyte.gz",
            "it holds IDX files; give --set MNIST or --set FashionMNIST",
        ),
        ("t10k-labels.idx1-ubyte", "give --set MNIST or --set FashionMNIST"),
        ("raw/train-labels-idx1-ubyte", "give --set MNIST or --set FashionMNIST"),
        ("MNIST/raw/train-images-idx3-ubyte", "it holds IDX files; give --set MNIST"),
        ("FashionMNIST/raw/train-images-idx3-ubyte.gz", "IDX files; give --set FashionMNIST"),
        ("x/train-images-idx3-ubyte", "in x/ it holds IDX files; give --set MNIST or --set Fash"),
        ("train/train-images-idx3-ubyte", "in train/ it holds IDX files; give --set MNIST or --"),
    ],
)
def test_data_in_other_forms_is_recognised(tmp_path, file, advice):
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        scan_image_folder(tmp_path, "train")
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", ["", "raw"])
def test_the_folder_of_torchvision_says_which_set_it_is(tmp_path, inside):
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"x")
    for root in (tmp_path / "FashionMNIST" / inside, tmp_path):
        for share in (0.0, 0.1):
            with pytest.raises(UserError, match=r"it holds IDX files; give --set FashionMNIST$"):
                scan_image_folder(root, "train", val_share=share)


@pytest.mark.parametrize(
    ("file", "name", "advice"),
    [
        ("MNIST/raw/train-images-idx3-ubyte", "FashionMNIST", "IDX files; give --set MNIST"),
        ("train-images-idx3-ubyte", "CIFAR10", "give --set MNIST or --set FashionMNIST"),
        ("cifar-10-python.tar.gz", "CIFAR100", "it holds CIFAR's archive; give --set CIFAR10"),
        ("cifar-10-python.tar.gz", "MNIST", "it holds CIFAR's archive; give --set CIFAR10"),
        ("val/manifest.json", "FashionMNIST", "by pack_dataset.py; give --set MindRecord"),
        ("train/ant/0.png", "CIFAR10", "it holds folders of images; give --set ImageNet"),
        # Not itself, where only a part of it is there.
        ("train-labels-idx1-ubyte", "FashionMNIST", "give their folder as --data_url"),
        ("cifar-10-batches-py/test_batch", "CIFAR10", "put cifar-10-python.tar.gz or "),
    ],
)
def test_a_folder_of_another_set_is_told_its_set(tmp_path, file, name, advice):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        open_unpacked(
            name, tmp_path, "train", val_share=0, class_order="natural", decoder=Decoder()
        )
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_packed_folder_is_recognised(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for name in ("manifest.json", "00000.mindrecord"):
            (tmp_path / split / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"pack_dataset.py; give --set MindRecord$"):
        scan_image_folder(tmp_path, "train")
    with pytest.raises(UserError, match=rf"--set MindRecord --data_url {tmp_path}$"):
        scan_image_folder(tmp_path / "train", "train")


def test_one_folder_too_high_is_told(tmp_path):
    split_data(tmp_path / "flowers", "train", "val")
    with pytest.raises(UserError, match=rf"give --data_url {tmp_path / 'flowers'}$"):
        scan_image_folder(tmp_path, "train")


@pytest.mark.parametrize("inside", [("train", "val"), ("ant", "bee")])
def test_a_lone_folder_around_the_data_is_no_class(tmp_path, inside):
    for name in inside:
        write(tmp_path / "unpacked" / "photographs" / name / "x" / "0.png")
    advice = rf"give --data_url {tmp_path / 'unpacked' / 'photographs'}$"
    with pytest.raises(UserError, match=advice):
        scan_image_folder(tmp_path, "train", val_share=0.2)


def test_a_lone_class_may_have_its_images_in_a_folder(tmp_path):
    for name in ("0.png", "1.png"):
        write(tmp_path / "ant" / "2026" / name)
    assert scan_image_folder(tmp_path, "train", val_share=0.5).class_names == ["ant"]
