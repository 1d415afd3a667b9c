"""The digits that ship with the repository, against scikit-learn's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from src.args import parse_args
from src.data import digits
from src.data.digits import prepare_digits
from src.data.imagenet import create_dataset
from src.errors import UserError
from src.run_length import run_length

REPOSITORY = Path(__file__).parents[1]


def files_of(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("parent") / "deeper" / "digits"
    prepare_digits(root)
    return root


def test_file_equals_that_of_scikit_learn():
    theirs = load_digits()
    with np.load(REPOSITORY / "src" / "data" / "digits.npz") as ours:
        assert set(ours) == {"image", "label"}
        np.testing.assert_array_equal(ours["image"], theirs.images)
        np.testing.assert_array_equal(ours["label"], theirs.target)


def test_folder_holds_every_digit_in_its_split_and_class(root):
    theirs = load_digits()
    assert len(list(root.glob("train/*/*.png"))) == 1437
    assert len(list(root.glob("val/*/*.png"))) == 360
    for index, (values, label) in enumerate(zip(theirs.images, theirs.target)):
        split = "val" if index % 5 == 0 else "train"
        grey = Image.fromarray(np.round(values * 255 / 16).astype(np.uint8))
        with Image.open(root / split / str(label) / f"{index:04d}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(image, grey.resize((32, 32), Image.Resampling.BICUBIC))


def test_second_use_changes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    prepare_digits(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_nothing_else_is_left_behind_and_others_may_read(root):
    assert [path.name for path in root.parent.iterdir()] == ["digits"]
    assert root.stat().st_mode & 0o777 == root.parent.stat().st_mode & 0o777


def test_processes_at_once_all_end_well(root, tmp_path):
    program = "import sys, pathlib; from src.data.digits import prepare_digits as prepare\n"
    program += "input(); prepare(pathlib.Path(sys.argv[1]))"
    target = tmp_path / "digits"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(target)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    theirs = {path.relative_to(root): content for path, content in files_of(root).items()}
    assert {p.relative_to(target): content for p, content in files_of(target).items()} == theirs


def test_the_slower_process_takes_the_folder_of_the_faster(root, tmp_path, monkeypatch):
    target = tmp_path / "digits"
    write = digits._write_folder

    def overtaken(folder):
        monkeypatch.setattr(digits, "_write_folder", write)
        prepare_digits(target)
        (target / "sign").touch()
        write(folder)

    monkeypatch.setattr(digits, "_write_folder", overtaken)
    prepare_digits(target)
    assert (target / "sign").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_interruption_leaves_no_folder(tmp_path, monkeypatch):
    target = tmp_path / "digits"
    saved = []

    def full_disk(image, path):
        saved.append(path)
        assert not target.exists()
        if len(saved) == 100:
            raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space left on device; choose another folder"):
        prepare_digits(target)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    prepare_digits(target)
    assert len(files_of(target)) == 1797


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "train" / "0").mkdir(parents=True)
    (tmp_path / "train" / "0" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds something else than Digits"):
        prepare_digits(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["train", "0", "mine.png"]
    with pytest.raises(UserError, match="holds something else than Digits"):
        prepare_digits(tmp_path / "train" / "0" / "mine.png")


def test_empty_folder_is_filled(tmp_path):
    prepare_digits(tmp_path)
    assert len(files_of(tmp_path)) == 1797


def test_missing_images_are_noticed(tmp_path):
    target = tmp_path / "digits"
    prepare_digits(target)
    next(target.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="1796 of 1797 images; move the folder away"):
        prepare_digits(target)


def config_of(root, *words):
    sizes = ["--num_classes=10", "--image_size=32", "--batch_size=360"]
    return parse_args(["--set", "Digits", "--data_url", str(root), *sizes, *words])


@pytest.mark.parametrize(("training", "num_samples"), [(True, 1437), (False, 360)])
def test_dataset_of_digits(root, training, num_samples):
    dataset = create_dataset(config_of(root), training)
    assert dataset.num_samples == num_samples
    assert dataset.class_names == list("0123456789")
    batch = next(dataset.batches())
    assert batch.image.shape == (360, 32, 32, 3)
    if not training:
        counts = np.bincount(load_digits().target[::5])
        np.testing.assert_array_equal(np.bincount(batch.label), counts)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("repeats", ["1", "3"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_has_as_many_samples_as_its_length_says(root, world_size, repeats, accumulation):
    schedule = ["--epochs", "2", "--cooldown_epochs", "1", "--warmup_length", "1"]
    schedule += ["--warmup_mode", "prefix", "--accumulation_step", str(accumulation)]
    config = config_of(root, *schedule, "--batch_size=31", "--repeated_aug", repeats)
    dataset = create_dataset(config, True, 0, world_size)
    length = run_length(config, 1437, world_size=world_size)
    # Repeated augmentation counts as timm's sampler does: 1437 images are 5 groups of 256.
    images = {"1": 1437, "3": 1280}[repeats]
    assert length == (4, images // (31 * accumulation * world_size))
    assert dataset.steps_per_epoch == length.steps_per_epoch
    keys = list(dataset.keys())
    assert len(keys) == length.num_steps * 31 * accumulation
    assert [keys[0].epoch, keys[-1].epoch] == [0, 3]


def test_a_run_inside_the_digits_damages_nothing(tmp_path: Path) -> None:
    prepare_digits(tmp_path / "digits")
    run = tmp_path / "digits" / "outputs" / "cct_2_3x2_32"
    run.mkdir(parents=True)
    (run / "curves.png").touch()
    prepare_digits(tmp_path / "digits")
