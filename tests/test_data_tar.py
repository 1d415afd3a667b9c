"""Tar shards of webdataset's layout beside Python's tarfile, webdataset, and the same folder."""

from __future__ import annotations

import io
import logging
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
from digits_run import start, wait_for_step, words
from PIL import Image
from test_data_sources import build_config, pack
from test_engine import same_state
from test_hostile_data import refusal, with_size

import train as train_program
from src.data import tar_index, tar_shards
from src.data.classes import TrainedClasses
from src.data.decode import BadImageError, Decoder
from src.data.digits import prepare_digits
from src.data.image_folder import scan_image_folder
from src.data.imagenet import create_dataset
from src.data.sources import count_classes, open_source
from src.data.tar_members import list_members, whole_file
from src.data.tar_shards import open_tar
from src.errors import UserError

CLASSES = ("ant", "bee")
PER_SHARD = 5

Files = List[Tuple[str, bytes]]


def picture(seed: int) -> bytes:
    """A PNG of 36 x 40 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def samples(split: str, count: int) -> Files:
    """Files of samples, classes in turns."""
    start = 1000 * (split == "val")
    return [
        (f"{split}/{number:04d}.{ending}", content)
        for number in range(count)
        for ending, content in (
            ("cls", CLASSES[number % 2].encode()),
            ("json", b"{}"),
            ("png", picture(start + number)),
        )
    ]


def write_tar(path: Path, files: Files, kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(root: Path, split: str, files: Files, name: str = "pets-{}-{:04d}.tar") -> None:
    per_shard = 3 * PER_SHARD
    for number, at in enumerate(range(0, len(files), per_shard)):
        kind = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)[number % 3]
        write_tar(root / name.format(split, number), files[at : at + per_shard], kind)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, "train", samples("train", 24))
    write_shards(root, "validation", samples("val", 9))
    return root


@pytest.fixture(autouse=True)
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just been written is believed, and nothing is known of before."""
    monkeypatch.setattr(tar_index, "_TICK_NS", 0)
    tar_shards._index_once.cache_clear()


def config_of(root: Path, num_classes: int = 2, **values: Any) -> Any:
    return build_config(root, num_classes, set="WebDataset", **values)


def test_images_are_those_that_tarfile_reads(shards: Path) -> None:
    for training, split in ((True, "train"), (False, "validation")):
        source = open_source(config_of(shards), training)
        due: Dict[str, Tuple[bytes, str]] = {}
        for path in sorted(shards.glob(f"*{split}*.tar")):
            with tarfile.open(path) as archive:
                files = {i.name: archive.extractfile(i).read() for i in archive}  # type: ignore[union-attr]
            for name, content in files.items():
                if name.endswith(".png"):
                    due[f"{path}/{name}"] = content, files[name[:-3] + "cls"].decode()
        assert [source.file_name(i) for i in range(len(source))] == list(due)
        for index, (content, label) in enumerate(due.values()):
            assert source.class_names[source.labels[index]] == label
            pixels = np.asarray(Image.open(io.BytesIO(content)))
            np.testing.assert_array_equal(source.read(index), pixels)
    assert count_classes(config_of(shards)) == 2


def test_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    """Names with several dots, folders, capitals, hidden files, files out of order."""
    webdataset = pytest.importorskip("webdataset")
    files = [
        ("a.b/0001.PNG", picture(1)),
        ("a.b/0001.cls", b"7"),
        ("a.b/0001.seg.png", picture(9)),
        ("./0002.cls", b"3\n"),
        ("./0002.png", picture(2)),
        (".hidden", b"x"),
        ("noending", b"x"),
        ("0003.txt", b""),
        ("0003.cls", b"0"),
        ("0003.jpg.png", b"x"),
        ("0003.webp", picture(3)),
    ]
    path = write_tar(tmp_path / "train-0.tar", files)
    due = {}
    for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        (content,) = (sample[key] for key in ("png", "webp") if key in sample)
        due[sample["__key__"]] = int(sample["cls"]), content
    source = open_tar(tmp_path, "train", val_share=0, class_order="code_point", decoder=Decoder())
    assert source.class_names == ["0", "3", "7"]
    found = {}
    for index in range(len(source)):
        name = source.file_name(index)[len(str(path)) + 1 :]
        label = int(source.class_names[source.labels[index]])
        found[name.rpartition(".")[0]] = label, source.read_bytes(index)
    assert found == due


def as_folder(root: Path, split: str, files: Files) -> None:
    by_name = dict(files)
    for name, content in files:
        if name.endswith(".png"):
            label = by_name[name[:-3] + "cls"].decode()
            path = root / split / label / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def sorted_by_class(files: Files) -> Files:
    """Samples in the order in which a folder of them is read."""
    by_name = dict(files)
    names = sorted({name.rpartition(".")[0] for name in by_name})
    names.sort(key=lambda name: by_name[f"{name}.cls"])
    return [(f"{n}.{e}", by_name[f"{n}.{e}"]) for n in names for e in ("cls", "json", "png")]


def test_batches_are_those_of_a_folder_for_every_rank_and_step(tmp_path: Path) -> None:
    tars, folder = tmp_path / "tars", tmp_path / "folder"
    for split, count in (("train", 24), ("val", 9)):
        files = samples(split, count)
        as_folder(folder, split, files)
        write_shards(tars / split, split, sorted_by_class(files))
    for training, rank, step in ((True, 0, 0), (True, 1, 2), (False, 1, 0)):
        sets = [
            create_dataset(config, training, rank, 2, step)
            for config in (config_of(tars), build_config(folder))
        ]
        assert sets[0].images_per_class == sets[1].images_per_class
        batches = [list(dataset.batches()) for dataset in sets]
        assert len(batches[0]) == len(batches[1]) > 0
        for batch, due in zip(*batches):
            for array, expected in zip(batch, due):
                np.testing.assert_array_equal(array, expected)


def test_archives_without_a_split_are_shared(tmp_path: Path) -> None:
    write_shards(tmp_path, "part", samples("train", 24))
    with pytest.raises(UserError, match=r"no archive is called by its split.* --val_share 0.1"):
        open_source(config_of(tmp_path), True)
    names = []
    for training in (True, False):
        source = open_source(config_of(tmp_path, val_share=0.25), training)
        names.append({source.file_name(i) for i in range(len(source))})
        assert np.bincount(source.labels).tolist() == [9 if training else 3] * 2
        pixels = [source.read(i).tobytes() for i in range(len(source))]
        assert len(set(pixels)) == len(source)
    assert not names[0] & names[1]


def test_the_share_of_an_archive_does_not_depend_on_the_others(tmp_path: Path) -> None:
    def drawn() -> List[str]:
        tar_shards._index_once.cache_clear()
        source = open_source(config_of(tmp_path, val_share=0.25), False)
        return [source.file_name(i) for i in range(len(source))]

    write_shards(tmp_path, "part", samples("train", 24))
    before = drawn()
    write_shards(tmp_path, "a", samples("a", 24), name="first-{}-{:04d}.tar")
    assert [name for name in drawn() if "first" not in name] != []
    kept = set(before) & set(drawn())
    assert len(kept) >= len(before) // 2  # the share is of each class, and there are more images


def test_a_name_that_may_be_of_both_splits_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-test-split.tar", samples("train", 4))
    with pytest.raises(UserError, match=r"train-test-split\.tar'? may be of train or of val"):
        open_source(config_of(tmp_path), True)


def test_the_index_holds_both_splits_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, "train", samples("train", 12))
    write_shards(tmp_path, "val", samples("val", 9))
    for training in (True, False):
        open_source(config_of(tmp_path), training)
    tar_shards._index_once.cache_clear()
    monkeypatch.setattr(tar_index, "_read_shard", None)  # not called
    for training in (True, False):
        assert len(open_source(config_of(tmp_path), training)) == (12 if training else 9)


def test_the_index_is_built_once_and_notices_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, "train", samples("train", 12))
    read: List[str] = []
    real = tar_index._read_shard

    def record(path: Path, *more: Any) -> Any:
        read.append(path.name)
        return real(path, *more)

    monkeypatch.setattr(tar_index, "_read_shard", record)

    def open_again() -> List[str]:
        tar_shards._index_once.cache_clear()
        time.sleep(0.02)
        read.clear()
        source = open_source(config_of(tmp_path), True)
        assert [source.read(i).shape for i in range(len(source))] == [(36, 40, 3)] * len(source)
        return list(read)

    assert open_again() == [f"pets-train-{number:04d}.tar" for number in range(3)]
    assert open_again() == []
    assert (tmp_path / ".tar_index.npz").is_file()
    write_tar(tmp_path / "pets-train-0001.tar", samples("train", 4)[3:])
    assert open_again() == ["pets-train-0001.tar"]
    (tmp_path / "pets-train-0000.tar").unlink()
    assert open_again() == []
    # What has just been written may change again unseen.
    monkeypatch.setattr(tar_index, "_TICK_NS", 10**12)
    (tmp_path / ".tar_index.npz").unlink()
    assert len(open_again()) == len(open_again()) == 2


def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", samples("train", 12))
    due = open_source(config_of(tmp_path), True)
    cache = tmp_path / ".tar_index.npz"
    with np.load(cache) as loaded:
        good = dict(loaded)
    bad: Dict[str, Any] = {
        "offsets": good["offsets"] - good["offsets"].max(),
        "lengths": good["lengths"] * 0,
        "counts": good["counts"] + 1,
        "stamps": good["stamps"][:, :2],
        "names": good["names"][:-30],
        "labels": good["labels"].astype(np.int64),
        "format": np.int64(0),
        "extensions": good["extensions"][1:],
    }
    for name, column in bad.items():
        np.savez(cache, **{**good, name: column})
        tar_shards._index_once.cache_clear()
        found = open_source(config_of(tmp_path), True)
        for field in ("offsets", "lengths", "labels", "names", "ends"):
            np.testing.assert_array_equal(getattr(found, field), getattr(due, field), name)
    cache.write_bytes(b"x")
    tar_shards._index_once.cache_clear()
    assert len(open_source(config_of(tmp_path), True)) == 12


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path) -> None:
    write_shards(tmp_path, "train", samples("train", 4))
    source = open_source(config_of(tmp_path), True)
    (path,) = tmp_path.glob("*.tar")
    data = path.read_bytes()
    path.write_bytes(data + bytes(512))
    with pytest.raises(BadImageError, match="has changed since its index was read; start again"):
        source.read(0)
    path.unlink()
    with pytest.raises(BadImageError, match="No such file"):
        source.read(0)


def header(name: str, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def archive(files: Files, before: bytes = b"", after: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as written:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            written.addfile(info, io.BytesIO(content))
        end = written.offset
    return before + file.getvalue()[:end] + after + bytes(1024)


GOOD = [("0.cls", b"ant"), ("0.png", picture(0))]
SPARSE = tarfile.GNUTYPE_SPARSE
HOSTILE: Dict[str, Tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "empty file"),
    "no archive": (lambda: b"x" * 5000, "copy or download the archive again"),
    "cut in a header": (lambda: archive(GOOD)[:300], "copy or download the archive again"),
    "cut in an image": (lambda: archive(GOOD)[:2000], "truncated: it ends inside '0.png'"),
    "no end": (lambda: archive(GOOD)[: -1024 - 512], "truncated"),
    "size of 4 GiB": (
        lambda: archive(GOOD, after=with_size(header("1.png"), b"%011o\0" % 2**32)),
        "truncated: it ends inside '1.png'",
    ),
    "negative size": (
        lambda: archive(GOOD, after=with_size(header("1.png"), b"\xff" * 12)),
        "'1.png' has -1 bytes",
    ),
    "long name of a gigabyte": (
        lambda: archive(GOOD, after=with_size(header("x", type=b"L"), b"%011o\0" % 2**30)),
        "a header of 1,073,741",
    ),
    "link": (
        lambda: archive(GOOD, after=header("1.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "'1.png' is a link; only files such as 00042.jpg and 00042.cls are allowed",
    ),
    "hard link": (
        lambda: archive(GOOD, after=header("1.png", type=tarfile.LNKTYPE, linkname="0.png")),
        "'1.png' is a link",
    ),
    "device": (lambda: archive(GOOD, after=header("1.png", type=tarfile.CHRTYPE)), "is a device"),
    "pipe": (lambda: archive(GOOD, after=header("1.png", type=tarfile.FIFOTYPE)), "a named pipe"),
    "sparse": (lambda: archive(GOOD, after=header("1.png", type=SPARSE)), "no regular file"),
    "name twice": (lambda: archive([*GOOD, GOOD[1]]), "'0.png' is in it twice"),
    "two images": (lambda: archive([*GOOD, ("0.jpg", b"x")]), "sample '0': two images, '0.png'"),
    "no label": (lambda: archive([*GOOD, ("1.png", b"x")]), "sample '1': no .cls with its label"),
    "no image": (lambda: archive([*GOOD, ("1.cls", b"x")]), "sample '1': no image; a sample is"),
    "empty image": (lambda: archive([("0.cls", b"a"), ("0.png", b"")]), "an image of 0 bytes"),
    "empty label": (lambda: archive([("0.cls", b""), GOOD[1]]), "0 bytes (1 to 256)"),
    "blank label": (lambda: archive([("0.cls", b" \n"), GOOD[1]]), "neither a number nor a name"),
    "binary label": (lambda: archive([("0.cls", b"\xff\0"), GOOD[1]]), "neither a number nor"),
    "label of a book": (lambda: archive([("0.cls", b"a" * 999), GOOD[1]]), "999 bytes (1 to 256)"),
    "no samples": (lambda: archive([("README", b"x")]), "no samples"),
}


@pytest.mark.parametrize("attack", list(HOSTILE))
@pytest.mark.usefixtures("little_time_and_memory")
def test_archives_that_lie_are_refused_in_one_line(attack: str, tmp_path: Path) -> None:
    make, said = HOSTILE[attack]
    path = tmp_path / "train-0.tar"
    path.write_bytes(make())
    message = refusal(lambda: open_source(config_of(tmp_path), True))
    assert str(path) in message
    assert said in message
    assert not (tmp_path / ".tar_index.npz").exists()


def test_memory_per_member(tmp_path: Path) -> None:
    """tarfile keeps what it knows of every member, which is three times as much."""
    path = write_tar(tmp_path / "0.tar", [(f"{n:07d}.json", b"") for n in range(4000)])
    tracemalloc.start()
    with path.open("rb") as file:
        found = list_members(file, whole_file(file), tar_index._ANY_FILE, "x")
    used = tracemalloc.get_traced_memory()[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 4000
    assert peak - used < 4000 * 100


def test_folders_in_an_archive_are_passed_by(tmp_path: Path) -> None:
    """As `tar -c folder` writes them."""
    folders = header("images/", type=tarfile.DIRTYPE)
    files = [(f"images/{name}", content) for name, content in GOOD]
    (tmp_path / "train.tar").write_bytes(archive(files, before=folders))
    assert len(open_source(config_of(tmp_path, 1), True)) == 1


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give one with tar archives"):
        open_source(config_of(tmp_path / "none"), True)
    with pytest.raises(UserError, match=r"no tar archives of the split train; call them train-0"):
        open_source(config_of(tmp_path), True)
    (tmp_path / "train-0.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"train; unpack train-0.tar.gz to .tar"):
        open_source(config_of(tmp_path), True)
    with pytest.raises(UserError, match=r"a tar archive; if it is .* give --set WebDataset"):
        open_source(build_config(shards), True)
    (tmp_path / "val-0.tar").write_bytes(archive(GOOD))
    with pytest.raises(UserError, match="no tar archives of the split train"):
        open_source(config_of(tmp_path), True)
    # An evaluation needs no other split.
    trained = TrainedClasses("pretrained 'x'", ["bee", "ant"])
    assert open_source(config_of(tmp_path), False, trained).labels.tolist() == [1]
    trained = TrainedClasses("pretrained 'x'", ["bee", "cow"])
    with pytest.raises(UserError, match=r"'0.png': label 'ant' is none of the 2 classes \(bee, "):
        open_source(config_of(tmp_path), False, trained)


def test_packed_archives_are_read_as_they_were(shards: Path, tmp_path: Path) -> None:
    given = ["--set", "WebDataset", "--data_url", shards]
    result = pack(*given, "--output", tmp_path / "packed")
    assert result.returncode == 0, result.stderr
    for training in (True, False):
        due = open_source(config_of(shards), training)
        found = open_source(build_config(tmp_path / "packed", set="MindRecord"), training)
        assert (found.class_names, found.labels.tolist()) == (due.class_names, due.labels.tolist())
        assert found.read_bytes(3) == due.read_bytes(3)  # type: ignore[attr-defined]


def test_other_files_are_counted_in_the_log(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shards / ".tar_index.npz").unlink(missing_ok=True)
    with caplog.at_level(logging.INFO):
        open_source(config_of(shards), True)
    assert f"{shards}: 24 samples indexed" in caplog.text
    assert "files beside images and labels: 24 .json" in caplog.text


@pytest.mark.slow  # the batches above are equal from any step on
def test_a_killed_run_goes_on_as_one_of_class_folders(tmp_path: Path) -> None:
    """Bit for bit, where the archives have the order of the folders."""
    digits, tars = tmp_path / "digits", tmp_path / "tars"
    prepare_digits(digits)
    for split in ("train", "val"):
        source = scan_image_folder(digits, split)
        files = [
            (f"{index:05d}.{ending}", content)
            for index in range(len(source))
            for ending, content in (
                ("cls", source.class_names[source.labels[index]].encode()),
                ("png", source.read_bytes(index)),
            )
        ]
        write_tar(tars / split / "0.tar", files[:500])
        write_tar(tars / split / "1.tar", files[500:])
    assert train_program.main(words(digits, tmp_path / "straight")) == 0
    given = ["--set", "WebDataset", "--save_steps", "4", "--resume", "auto"]
    arguments = words(tars, tmp_path / "run", *given)
    process = start(arguments)
    wait_for_step(process, tmp_path / "run", 6)
    process.kill()
    process.communicate()
    assert train_program.main(arguments) == 0
    same_state(tmp_path / "run", tmp_path / "straight")
