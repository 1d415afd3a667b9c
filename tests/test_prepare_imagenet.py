"""ImageNet from its archives: equal to torchvision's, killed anywhere, damaged, hostile."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Callable, Dict, List

import numpy as np
import pytest
from imagenet_archives import (
    DEVKIT,
    ODD,
    SYNSETS,
    WORDS,
    Archives,
    devkit_files,
    devkit_of,
    meta_mat,
    tar_of,
    train_images,
    val_images,
    write_archives,
)
from PIL import Image
from scipy.io import loadmat, savemat

from scripts import prepare_imagenet
from src.data import archive_extraction, devkit, imagenet_archives
from src.data.decode import Decoder
from src.data.image_folder import scan_image_folder
from src.data.matlab_table import read_table
from src.data.packed import open_packed
from src.report.class_names import class_names, read_labels

ROOT = Path(__file__).resolve().parent.parent
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    return write_archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def own(made: Archives, tmp_path: Path) -> Archives:
    """Archives that a test may change."""
    folder = tmp_path / "archives"
    shutil.copytree(made.folder, folder)
    return made._replace(folder=folder)


def prepare(archives: Archives, output: Path, *more: str) -> int:
    return prepare_imagenet.main(
        [*archives.words, "--output", str(output), "--allow_partial", *more]
    )


def files_in(output: Path) -> Dict[str, bytes]:
    """Of the splits, hidden ones too."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for split in ("train", "val")
        for path in (output / split).rglob("*")
        if path.is_file()
    }


def refusal(archives: Archives, output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error; what is written is whole classes only."""
    assert prepare(archives, output) == 2
    # A progress bar ends where the error is written.
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    check_whole_classes(archives, output)
    return said[0]


def check_whole_classes(archives: Archives, output: Path) -> None:
    """Every class that is there is whole; hidden folders hold what is unfinished."""
    for split in ("train", "val"):
        there = output / split
        for folder in there.iterdir() if there.is_dir() else ():
            if folder.name[0] != ".":
                start = f"{split}/{folder.name}/"
                due = {name: data for name, data in archives.due.items() if name.startswith(start)}
                found = {start + path.name: path.read_bytes() for path in folder.iterdir()}
                assert found == due


# --- what comes out -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(made: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("imagenet")
    assert prepare(made, output) == 0
    return output


def test_the_folders_are_those_that_torchvision_makes(
    made: Archives, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import imagenet

    for name in (TRAIN, VAL, KIT):
        shutil.copy(made.folder / name, tmp_path)
    sums = {
        split: (name, hashlib.md5((tmp_path / name).read_bytes()).hexdigest())
        for split, name in (("train", TRAIN), ("val", VAL), ("devkit", KIT))
    }
    assert {split: md5 for split, (_, md5) in imagenet.ARCHIVE_META.items()} == (
        imagenet_archives.MD5
    )
    monkeypatch.setattr(imagenet, "ARCHIVE_META", sums)
    parsed = {split: imagenet.ImageNet(str(tmp_path), split) for split in ("train", "val")}
    assert files_in(folders) == files_in(tmp_path) == made.due
    for split, theirs in parsed.items():
        ours = scan_image_folder(folders, split)
        assert ours.class_names == theirs.wnids
        assert ours.labels.tolist() == theirs.targets
    assert read_labels(folders / "synset_words.txt") == [", ".join(c) for c in theirs.classes]


def test_the_command_again_finds_all_done(
    made: Archives, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_extraction, "_write", None)
    assert prepare(made, folders) == 0
    assert sorted(os.listdir(folders)) == ["synset_words.txt", "train", "val"]


def test_words_of_ten_of_the_synsets_without_a_file() -> None:
    names = class_names(10, of_weights=sorted(SYNSETS))
    assert names[:3] == ["grey whale", "Australian terrier", "English setter"]


@pytest.mark.parametrize("name", ODD)
def test_the_odd_ones_are_kept_and_decoded(name: str, folders: Path) -> None:
    path = folders / "train" / "n02105855" / name
    assert path.read_bytes() == ODD[name]
    with Image.open(io.BytesIO(ODD[name])) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(Decoder().read(str(path)), expected)


def test_packed_as_the_folders_are(made: Archives, folders: Path, tmp_path: Path) -> None:
    assert prepare(made, tmp_path, "--pack", "--images_per_shard", "64") == 0
    for split in ("train", "val"):
        images = scan_image_folder(folders, split)
        packed = open_packed(tmp_path / split, Decoder())
        assert packed.class_names == images.class_names == sorted(SYNSETS)
        assert packed.labels.tolist() == images.labels.tolist()
        for index in range(len(images)):
            assert packed.read_bytes(index) == images.read_bytes(index)
    assert len(list((tmp_path / "train").glob("*.mindrecord"))) == 3
    words = (tmp_path / "synset_words.txt").read_text()
    assert words == (folders / "synset_words.txt").read_text()


def test_packed_smaller(made: Archives, tmp_path: Path) -> None:
    assert prepare(made, tmp_path, "--pack", "--short_side", "10") == 0
    packed = open_packed(tmp_path / "train", Decoder())
    assert {packed.read(index).shape for index in range(len(packed))} == {(10, 12, 3)}


def test_parts_of_the_set(own: Archives, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class that one archive lacks is left out of both, since the labels are the folders'."""
    inner = {f"{name}.tar": tar_of(images) for name, images in train_images().items()}
    inner.pop("n02417914.tar")
    (own.folder / TRAIN).write_bytes(tar_of(inner))
    assert prepare(own, tmp_path / "o") == 0
    assert files_in(tmp_path / "o") == {n: d for n, d in own.due.items() if "n02417914" not in n}
    lines = (tmp_path / "o" / "synset_words.txt").read_text().splitlines()
    assert lines == [f"{name} {WORDS[name]}" for name in sorted(SYNSETS) if name != "n02417914"]


def test_counts_and_sums(
    made: Archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = [*made.words, "--output", str(tmp_path)]

    def refused() -> str:
        assert prepare_imagenet.main(words) == 2
        return str(capsys.readouterr().err.splitlines()[-1])

    assert "devkit: 10 classes, not 1,000; give ILSVRC2012_devkit_t12.tar.gz, or --al" in refused()
    for module in (devkit, imagenet_archives):
        monkeypatch.setattr(module, "NUM_CLASSES", 10)
    assert "devkit: 50 labels of validation, not 50,000; " in refused()
    monkeypatch.setattr(devkit, "NUM_VAL_IMAGES", 50)
    assert f"{VAL}: 50 images, not 50,000; give --allow_partial" in refused()
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(imagenet_archives, "_NUM_IMAGES", {"train": 1_281_167, "val": 50})
    assert f"{TRAIN}: 150 images, not 1,281,167; give --allow_partial" in refused()
    monkeypatch.setattr(imagenet_archives, "_NUM_IMAGES", {"train": 150, "val": 50})
    assert prepare_imagenet.main(words) == 0
    capsys.readouterr()
    words.append("--check_md5")
    assert "not 1d675b47d978889d74fa0da5fadfb00e; download it again, or leave out " in refused()
    sums = zip(("train", "val", "devkit"), words[1::2])
    found = {split: hashlib.md5(Path(file).read_bytes()).hexdigest() for split, file in sums}
    monkeypatch.setattr(imagenet_archives, "MD5", found)
    assert prepare_imagenet.main(words) == 0


# --- ended in the middle --------------------------------------------------------------------------

# Sends itself a signal with the nth call of a function.
DRIVER = """
import os, sys, time
from src.data import archive_extraction, imagenet_preparation
from scripts import prepare_imagenet

module = {"_write": archive_extraction, "write_whole": imagenet_preparation}[sys.argv[1]]
left, number, before = int(sys.argv[2]), int(sys.argv[3]), getattr(module, sys.argv[1])

def counted(path, data):
    global left
    left -= 1
    if left == 0:
        with open(path, "wb") as half:
            half.write(data[: len(data) // 2])
        os.kill(os.getpid(), number)
        for _ in range(1000):  # another thread hands SIGINT on, maybe just before a sleep begins
            time.sleep(0.01)
    before(path, data)

setattr(module, sys.argv[1], counted)
sys.exit(prepare_imagenet.main(sys.argv[4:]))
"""
PHASES = {"train": ("_write", 40), "val": ("_write", 173), "finishing": ("write_whole", 1)}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("phase", PHASES)
def test_killed_and_started_again(
    phase: str, number: signal.Signals, made: Archives, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    call, count = PHASES[phase]
    words = [*made.words, "--output", str(output), "--allow_partial"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, call, str(count), str(int(number)), *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    check_whole_classes(made, output)
    if number == signal.SIGKILL:
        assert done.returncode == -number
    else:
        assert done.returncode == 128 + number
        said = done.stderr.splitlines()[-1]
        assert said.startswith("error: interrupted by signal 2")
        whole = {"train": "2 of 10", "val": "4 of 10", "finishing": ""}[phase]
        assert whole in said
        assert ("the same command goes on" in said) == bool(whole)
        assert not list(output.rglob(".unfinished"))
    assert prepare(made, output) == 0
    assert files_in(output) == made.due
    assert (
        sorted(path.name for path in output.iterdir() if path.name[0] != ".")
        == [*("synset_words.txt", "train", "val")]
        or phase == "finishing"
    )
    assert len((output / "synset_words.txt").read_text().splitlines()) == 10


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_packing_killed_and_started_again(
    number: signal.Signals, made: Archives, folders: Path, tmp_path: Path
) -> None:
    words = [*made.words, "--output", str(tmp_path), "--allow_partial", "--pack"]
    words += ["--images_per_shard", "20"]
    command = [sys.executable, str(ROOT / "scripts" / "prepare_imagenet.py"), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "train" / "00002.json").exists():
            assert process.poll() is None
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode in (-number, 128 + number)
    assert number == signal.SIGKILL or "shards are whole in" in said.splitlines()[-1]
    assert prepare_imagenet.main(words) == 0
    packed, images = open_packed(tmp_path / "train", Decoder()), scan_image_folder(folders, "train")
    for index in range(len(images)):
        assert packed.read_bytes(index) == images.read_bytes(index)


# --- damaged and hostile --------------------------------------------------------------------------


def inner_archives(change: Callable[[bytes], bytes]) -> bytes:
    """The archive of archives, the fourth of them changed."""
    inner = {f"{name}.tar": tar_of(images) for name, images in sorted(train_images().items())}
    name = list(inner)[3]
    return tar_of({**inner, name: change(inner[name])})


DAMAGED: Dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "inner cut in an image": (
        TRAIN,
        lambda _: inner_archives(lambda data: data[:5700]),
        "n02102040.tar: truncated: it ends inside 'n02102040_[0-9]+.JPEG'; copy or down",
    ),
    "inner cut between images": (
        TRAIN,
        lambda _: inner_archives(lambda data: data[: 4 * 1536]),
        "n02102040.tar: truncated or damaged at byte [0-9,]+; copy or",
    ),
    "inner empty": (
        TRAIN,
        lambda _: inner_archives(lambda data: bytes(10240)),
        "n02102040.tar: it holds no images; copy or",
    ),
    "inner is no archive": (
        TRAIN,
        lambda _: inner_archives(lambda data: b"<html>" * 1000),
        "n02102040.tar: .*; copy or download the archive again",
    ),
    "a header in the middle": (
        TRAIN,
        lambda _: inner_archives(lambda data: with_last_name_changed(data)),
        "n02102040.tar: truncated or damaged at byte ",
    ),
    "outer cut": (TRAIN, lambda data: data[: len(data) // 2], "truncated: it ends inside 'n0"),
    "val cut": (VAL, lambda data: data[: len(data) // 2], "val.tar: truncated"),
    "val empty": (VAL, lambda _: b"", "val.tar: empty file"),
    "val without its end": (VAL, lambda data: data.rstrip(b"\0"), "val.tar: "),
    "train is val": (TRAIN, lambda _: tar_of(val_images()[0]), "does not belong there; only f"),
    "an image that has no label": (
        VAL,
        lambda _: tar_of({"ILSVRC2012_val_00000051.JPEG": b"x"}),
        "00000051.JPEG has no label among the 50 of the devkit",
    ),
    "an empty image": (
        VAL,
        lambda _: tar_of({"ILSVRC2012_val_00000001.JPEG": b""}),
        "has 0 bytes; allowed: 1 to ",
    ),
    "a class that is none": (
        TRAIN,
        lambda _: tar_of({"n00000001.tar": tar_of({"n00000001_1.JPEG": b"x"})}),
        "n00000001 are no classes of the devkit",
    ),
    "a negative size": (
        VAL,
        lambda data: with_size(data, b"\xff" * 11 + b"\x80"),
        "val.tar: ",
    ),
    "an endless PAX record": (VAL, lambda data: pax_of_size(), "val.tar: a header of [0-9,]+ byt"),
}


def with_last_name_changed(data: bytes) -> bytes:
    head, name, tail = data.rpartition(b"n02102040_")
    return head + name.upper() + tail


def with_size(data: bytes, size: bytes) -> bytes:
    """An archive whose first header claims a size."""
    info = tarfile.TarInfo.frombuf(data[:512], "utf-8", "strict")
    info.size = -1024 if size[:1] == b"\xff" else 1
    return info.tobuf(tarfile.GNU_FORMAT) + data[512:]


def pax_of_size() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    return info.tobuf() + bytes(10240)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive(
    case: str, own: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change, message = DAMAGED[case]
    path = own.folder / name
    good = path.read_bytes()
    path.write_bytes(change(good))
    said = refusal(own, tmp_path / "out", capsys)
    assert re.search(message, said), said
    # With the whole archive the same command goes on.
    path.write_bytes(good)
    assert prepare(own, tmp_path / "out") == 0
    assert files_in(tmp_path / "out") == own.due


def one_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"data"))
    return file.getvalue()


# With {} for the name that would be right.
HOSTILE: Dict[str, tuple[str, bytes, str]] = {
    "parent": ("../{}", tarfile.REGTYPE, "does not belong there"),
    "absolute": ("/tmp/{}", tarfile.REGTYPE, "does not belong there"),
    "folder before it": ("a/{}", tarfile.REGTYPE, "does not belong there"),
    "line end": ("{}\n", tarfile.REGTYPE, "does not belong there"),
    "other": ("evil.sh", tarfile.REGTYPE, "does not belong there"),
    "symbolic link": ("{}", tarfile.SYMTYPE, "is a link"),
    "hard link": ("{}", tarfile.LNKTYPE, "is a link"),
    "device": ("{}", tarfile.CHRTYPE, "is a device"),
    "pipe": ("{}", tarfile.FIFOTYPE, "is a named pipe"),
    "folder": ("{}", tarfile.DIRTYPE, "is a folder"),
}


@pytest.mark.parametrize("place", ["outer", "inner", "val"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member(
    case: str, place: str, own: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern, kind, message = HOSTILE[case]
    right = {"outer": "n02066245.tar", "inner": "n02066245_1.JPEG"}.get(
        place, "ILSVRC2012_val_00000001.JPEG"
    )
    hostile = one_member(pattern.format(right), kind, link="/etc/passwd")
    if place == "inner":
        hostile = tar_of({"n02066245.tar": hostile})
    (own.folder / (VAL if place == "val" else TRAIN)).write_bytes(hostile)
    output = tmp_path / "a" / "b"
    said = refusal(own, output, capsys)
    assert message in said
    assert "only files such as" in said
    assert sorted(os.listdir(tmp_path)) in (["a", "archives"], ["archives"])
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("place", ["outer", "inner", "val"])
def test_a_name_twice(
    place: str, own: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {"outer": "n02066245.tar", "inner": "n02066245_1.JPEG"}.get(
        place, "ILSVRC2012_val_00000001.JPEG"
    )
    half = one_member(name)[:1024]
    twice = half + half + bytes(1024)
    if place == "inner":
        twice = tar_of({"n02066245.tar": twice})
    (own.folder / (VAL if place == "val" else TRAIN)).write_bytes(twice)
    assert f"'{name}' is in it twice" in refusal(own, tmp_path / "out", capsys)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_table_as_scipy_reads_it(compressed: bool) -> None:
    table = loadmat(io.BytesIO(meta_mat()), squeeze_me=True)["synsets"]
    file = io.BytesIO()
    savemat(file, {"other": np.eye(3), "synsets": table}, do_compression=compressed)
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    rows = read_table(file.getvalue(), "synsets", fields, 2**20)
    assert rows == [{name: row[name] for name in fields} for row in table]
    with pytest.raises(ValueError, match="it ends too early"):
        read_table(file.getvalue()[:-4], "synsets", fields, 2**20)
    # scipy ends with a segmentation fault at some of these.
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(file.getvalue())
        for place in rng.integers(128, len(changed), 3):
            changed[place] = rng.integers(256)
        with contextlib.suppress(ValueError):
            read_table(bytes(changed), "synsets", fields, 2**20)


META, TRUTH = f"{DEVKIT}/meta.mat", f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
LABELS = devkit_files()[TRUTH]
DEVKITS: Dict[str, tuple[Callable[[], bytes], str]] = {
    "no meta": (lambda: with_files({META: None}), "it holds no ILSVRC2012_devkit_t12/data/meta.m"),
    "no labels": (lambda: with_files({TRUTH: None}), "holds no .*/ILSVRC2012_validation_ground_tr"),
    "meta is a text": (lambda: with_files({META: b"synsets"}), "meta.mat: "),
    "meta is cut": (lambda: with_files({META: meta_mat()[: len(meta_mat()) // 2]}), "meta.mat: "),
    "no table": (lambda: with_files({META: meta_mat({})[:128]}), "it holds no table `synsets`"),
    "a number is missing": (
        lambda: with_files({META: meta_mat(ILSVRC2012_ID=11.0)}),
        "the numbers of its 10 classes are not 1 to 10",
    ),
    "a number twice": (lambda: with_files({META: meta_mat(ILSVRC2012_ID=2.0)}), "have the number"),
    "half a number": (
        lambda: with_files({META: meta_mat(ILSVRC2012_ID=1.5)}),
        "in place of a whole number",
    ),
    "a text as number": (lambda: with_files({META: meta_mat(ILSVRC2012_ID="one")}), "meta.mat: "),
    "a synset twice": (lambda: with_files({META: meta_mat(WNID=SYNSETS[1])}), "the same synset"),
    "a synset that is a path": (
        lambda: with_files({META: meta_mat(WNID="../n0211")}),
        "'../n0211' is no synset",
    ),
    "words for a terminal": (lambda: with_files({META: meta_mat(words="\x1b[2J")}), "is no name"),
    "a label too many": (lambda: with_files({TRUTH: b"11\n" + LABELS}), "line 1: '11'; allowed: 1"),
    "label 0": (lambda: with_files({TRUTH: LABELS + b"0\n"}), "line 51: '0'; allowed: 1 to 10"),
    "a label in words": (lambda: with_files({TRUTH: b"fox\n" + LABELS}), "line 1: 'fox'; allowed"),
    "labels are cut": (lambda: with_files({TRUTH: LABELS[:20]}), "has no label among the "),
    "not packed": (lambda: gzip.decompress(devkit_of(devkit_files())), "expected ILSVRC2012_devki"),
    "cut": (lambda: devkit_of(devkit_files())[:-200], "expected ILSVRC2012_devkit_t12.tar.gz"),
    "a bomb": (lambda: gzip.compress(bytes(2**26 + 1), 1), "unpacks to more than 67,108,864 by"),
    "a bomb inside": (
        lambda: with_files({META: meta_mat(gloss=np.zeros(3_000_000))}),
        "meta.mat: it unpacks to more than 16,777,216 bytes",
    ),
    "a link": (lambda: gzip.compress(one_member(META, tarfile.SYMTYPE, "/x")), "no regular file"),
}


def with_files(changed: Dict[str, object]) -> bytes:
    files = {**devkit_files(), **changed}
    return devkit_of({name: data for name, data in files.items() if isinstance(data, bytes)})


@pytest.mark.parametrize("case", DEVKITS)
def test_a_devkit_that_is_none(
    case: str, own: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = DEVKITS[case]
    (own.folder / KIT).write_bytes(make())
    said = refusal(own, tmp_path / "out", capsys)
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


# --- the output -----------------------------------------------------------------------------------


@pytest.fixture(name="small_disk")
def smaller_disk(small_disk: Path) -> Path:
    subprocess.run(["mount", "-o", "remount,size=400k", str(small_disk)], check=True)
    return small_disk


def test_no_room(made: Archives, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_disk / "other").write_bytes(bytes(200_000))
    assert "GB are needed; make room, or give an --output on" in refusal(made, small_disk, capsys)
    assert os.listdir(small_disk / "train" if (small_disk / "train").exists() else small_disk) == [
        "other"
    ]


def test_a_full_disk(
    made: Archives,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process fills it meanwhile."""
    monkeypatch.setattr("src.data.imagenet_preparation.check_room", lambda *_: None)
    said = refusal(made, small_disk, capsys)
    assert "No space left on device; make room; " in said
    assert "of 10 classes are whole in" in said
    assert 0 < len(files_in(small_disk)) < 150
    assert not list(small_disk.rglob(".unfinished"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert prepare(made, small_disk) == 0
    assert files_in(small_disk) == made.due


@pytest.mark.parametrize("size", ["100k", "150k"])
def test_a_full_disk_while_packing(
    size: str,
    made: Archives,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("src.data.imagenet_preparation.check_room", lambda *_: None)
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    words = ("--pack", "--images_per_shard", "40")
    assert prepare(made, small_disk, *words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "No space left on device; make room; 0 of 4 shards are whole in " in said[0]
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert prepare(made, small_disk, *words) == 0
    assert len(open_packed(small_disk / "train", Decoder())) == 150


def test_what_is_there_already_stays(
    made: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "train" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert prepare(made, tmp_path) == 2
    assert "holds 'mine.txt', which is no class of the archive" in capsys.readouterr().err
    mine.unlink()
    assert prepare(made, tmp_path) == 0
    changed = next((tmp_path / "val").rglob("*.JPEG"))
    changed.write_bytes(b"")
    capsys.readouterr()
    assert prepare(made, tmp_path) == 2
    assert f"{changed}: 0 bytes there, " in capsys.readouterr().err
    shutil.rmtree(changed.parent)
    assert prepare(made, tmp_path) == 0
    assert files_in(tmp_path) == made.due


def test_one_at_a_time(made: Archives, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with archive_extraction.sole_preparer(tmp_path):
        assert prepare(made, tmp_path) == 2
    assert f"another process prepares there: process {os.getpid()} of" in capsys.readouterr().err
    assert prepare(made, tmp_path) == 0


def test_options_of_packing_without_it(made: Archives, tmp_path: Path) -> None:
    words: List[str] = [*made.words, "--output", str(tmp_path)]
    assert prepare_imagenet.main(words[4:]) == 2  # neither --train nor --val
    for more in (["--short_side", "256"], ["--background", "null"], ["--exif_orientation"]):
        assert prepare_imagenet.main([*words, *more]) == 2
