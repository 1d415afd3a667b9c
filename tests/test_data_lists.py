"""Labels from a CSV or a list of text: what they say beside the same images in class folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
from digits_run import start, wait_for_step, words
from PIL import Image
from test_data_sources import build_config, pack
from test_engine import same_state

import eval as eval_program
import train as train_program
from src.args import EvalRun, parse_args, replace, to_yaml
from src.checkpoints.complete_config import complete_by_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.data.classes import TrainedClasses, classes_of, number_labels
from src.data.digits import prepare_digits
from src.data.find_images import say_once
from src.data.imagenet import create_dataset
from src.data.sources import count_classes, open_source
from src.errors import UserError
from src.trainer.metrics import EvalResult

CLASSES = ("ant", "bee", "water buffalo")
COUNTS = {"train": 8, "val": 4}

Rows = List[Tuple[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lists")
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (36, 40, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}, ä.png")
    return root


def rows_of(root: Path, split: str = "train") -> Rows:
    """(path, label) of every image, shuffled."""
    paths = [path.relative_to(root) for path in sorted((root / split).rglob("*.png"))]
    found = [(path.as_posix(), path.parent.name) for path in paths]
    return [found[at] for at in np.random.default_rng(1).permutation(len(found))]


def numbered(found: Rows) -> Rows:
    return [(path, str(CLASSES.index(label))) for path, label in found]


FORMS: Dict[str, Tuple[str, Callable[[Rows], bytes]]] = {
    "header": (
        "csv",
        lambda rows: "".join(
            ["path,label\n", *(f'"{path}",{label}\n' for path, label in rows)]
        ).encode(),
    ),
    "BOM, columns in another order": (
        "CSV",
        lambda rows: "".join(
            [
                "Label,width,Image_Path,\r\n",
                *(f'{label},40,"{path}",\r\n' for path, label in rows),
            ]
        ).encode("utf-8-sig"),
    ),
    "no header": (
        "csv",
        lambda rows: "\n".join(f' "./{path}",  {label} ' for path, label in rows).encode(),
    ),
    "semicolons": (
        "csv",
        lambda rows: "".join(
            ["id;breed\n", *(f"{path};{label}\n\n" for path, label in rows)]
        ).encode(),
    ),
    "tabs": (
        "tsv",
        lambda rows: "".join(f'"{path}"\t{label}\n' for path, label in rows).encode(),
    ),
    "text, numbers": (
        "txt",
        lambda rows: "".join(f"{path} {label}\n" for path, label in numbered(rows)).encode(),
    ),
    "text, BOM": (
        "lst",
        lambda rows: "".join(f"{path}\t{label}  \r\n\r\n" for path, label in numbered(rows)).encode(
            "utf-8-sig"
        ),
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_list_is_read_as_the_folder_it_names(form: str, folder: Path, tmp_path: Path) -> None:
    ending, write = FORMS[form]
    values = {}
    for split in COUNTS:
        path = tmp_path / f"{split}.{ending}"
        path.write_bytes(write(rows_of(folder, split)))
        values[f"{split}_list"] = str(path)
    for training in (True, False):
        due = open_source(build_config(folder, 3), training)
        found = open_source(build_config(folder, 3, **values), training)
        names = list(CLASSES) if "numbers" not in form and "text" not in form else ["0", "1", "2"]
        assert found.class_names == names
        np.testing.assert_array_equal(found.labels, due.labels)
        split = "train" if training else "val"
        assert [found.file_name(i) for i in range(len(found))] == [
            f"{split}/{due.file_name(i)}" for i in range(len(due))
        ]
        np.testing.assert_array_equal(found.read(5), due.read(5))
    assert count_classes(build_config(folder, 3, **values)) == 3


def write_csv(path: Path, found: Rows) -> str:
    path.write_text("path,label\n" + "".join(f'"{name}",{label}\n' for name, label in found))
    return str(path)


def test_batches_are_those_of_the_folder_for_every_rank_and_step(
    folder: Path, tmp_path: Path
) -> None:
    values = {
        f"{split}_list": write_csv(tmp_path / f"{split}.csv", rows_of(folder, split))
        for split in COUNTS
    }
    for training, rank, step in ((True, 0, 0), (True, 1, 2), (False, 1, 0)):
        sets = [
            create_dataset(build_config(folder, 3, **given), training, rank, 2, step)
            for given in (values, {})
        ]
        assert sets[0].images_per_class == sets[1].images_per_class
        batches = [list(dataset.batches()) for dataset in sets]
        assert len(batches[0]) == len(batches[1]) > 0
        for batch, due in zip(*batches):
            for array, expected in zip(batch, due):
                np.testing.assert_array_equal(array, expected)


def test_a_list_may_lie_beside_the_images_and_be_split(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "photos"
    root.symlink_to(folder)
    (folder / "labels.csv").unlink(missing_ok=True)
    write_csv(root / "labels.csv", rows_of(folder))
    monkeypatch.chdir(tmp_path)
    for given in ("labels.csv", "photos/labels.csv"):
        config = build_config("photos", 3, train_list=given, val_share=0.25)
        names = []
        for training in (True, False):
            source = open_source(config, training)
            names.append({source.file_name(i) for i in range(len(source))})
            assert np.bincount(source.labels).tolist() == [6 if training else 2] * 3
        assert not names[0] & names[1]
        assert names[0] | names[1] == {path for path, _ in rows_of(folder)}
    with pytest.raises(UserError, match=r"val_list null: .* give --val_list FILE, or --val_share"):
        open_source(build_config(root, 3, train_list="labels.csv"), False)
    # Who has not heard of the key is told.
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "my_train.csv").write_text("x")
    with pytest.raises(UserError, match=r"if my_train.csv has .* give --train_list my_train.csv"):
        open_source(build_config(tmp_path / "flat", 3), True)


def test_a_flat_validation_folder_beside_class_folders(folder: Path, tmp_path: Path) -> None:
    """As ImageNet is unpacked for mmpretrain: train/<class>/, val/ and val.txt with numbers."""
    (tmp_path / "train").symlink_to(folder / "train")
    (tmp_path / "val").mkdir()
    found = []
    for number, (path, label) in enumerate(numbered(rows_of(folder, "val"))):
        (tmp_path / "val" / f"{number}.png").symlink_to(folder / path)
        found.append(f"val/{number}.png {label}\n")
    (tmp_path / "val.txt").write_text("".join(found[:4]))
    config = build_config(tmp_path, 3, val_list="val.txt")
    assert count_classes(config) == 3
    assert open_source(config, True).class_names == list(CLASSES)
    source = open_source(config, False)
    assert source.class_names == list(CLASSES)
    assert sorted(source.labels) == sorted(int(line.split()[-1]) for line in found[:4])


def test_an_evaluation_counts_by_the_classes_of_the_weights(folder: Path, tmp_path: Path) -> None:
    """A list with some of them, where nothing that was trained on is at hand."""
    (tmp_path / "a.png").symlink_to(next((folder / "val" / "bee").iterdir()))
    trained = TrainedClasses("pretrained 'x'", list(CLASSES))
    config = build_config(tmp_path, 3, val_list="v.txt")
    for label in ("bee", "1"):
        (tmp_path / "v.txt").write_text(f"a.png {label}\n")
        assert open_source(config, False, trained).labels.tolist() == [1]
    (tmp_path / "v.txt").write_text("a.png 3\n")
    with pytest.raises(UserError, match=r"v.txt, line 1: label '3' is none of the 3 classes"):
        open_source(config, False, trained)


def test_labels_that_are_numbers_follow_their_values() -> None:
    assert classes_of(["10", "9", "0"], "code_point") == ["0", "9", "10"]
    assert classes_of(["b10", "b9"], "code_point") == ["b10", "b9"]
    assert classes_of(["b10", "b9"], "natural") == ["b9", "b10"]
    assert number_labels(["1", "9", "x"], ["9", "1"]) == {"1": 1, "9": 0}
    assert number_labels(["1", "2", "b", "-1"], ["b", "c"]) == {"1": 1, "b": 0}
    # Converted weights that know no names leave no doubt about numbers.
    TrainedClasses("x", None, is_converted=True).check(
        [str(number) for number in range(12)], "d", knows_order=False
    )


GOOD = "a.png,ant\nb.png,bee\n"
BAD: Dict[str, Tuple[str, bytes, str]] = {
    "missing image": (
        "csv",
        f"{GOOD}c.png,bee\nd/e.png,bee\nf.png,ant\ng.png,ant\nh.png,ant\ni.png,ant\n".encode(),
        "line 3: no image 'c.png' in data_url .* (6 lines are so: 3, 4, 5, 6 and 2 more); paths",
    ),
    "folder": ("csv", f"{GOOD}sub,bee\n".encode(), "line 3: no image 'sub'"),
    "backslash": ("csv", b"path,label\nsub\\c.png,bee\n", "line 2: no image 'sub\\\\\\\\c.png'"),
    "twice": ("csv", f"{GOOD}./a.png,bee\n".encode(), "line 3: './a.png' is in line 1 too; an"),
    "outside": ("csv", f"{GOOD}../a.png,bee\n".encode(), "line 3: '../a.png' leads out of"),
    "absolute": ("csv", f"{GOOD}/etc/passwd,bee\n".encode(), "line 3: '/etc/passwd' leads out"),
    "NUL": ("csv", f"{GOOD}a\0.png,bee\n".encode(), "line 3: "),
    "no label": ("csv", f"{GOOD}a.png,\n".encode(), "line 3: no path, or no label; write path"),
    "columns": ("csv", f"{GOOD}a.png,bee,x\n".encode(), "line 3: 3 columns, and the first line"),
    "quote": ("csv", f'{GOOD}"a".png,bee\n'.encode(), "line 3: .*; put quotes around"),
    "open quote": ("csv", f'{GOOD}"a.png,bee\n'.encode(), "line 3: .*; put quotes around"),
    "no header": ("csv", b"a.png,ant,1\n", "line 1: 3 columns without a header; name the columns"),
    "foreign header": ("csv", b"what,kind\na.png,x\n", "line 1: no header, and no image; name"),
    "one column": ("csv", b"path\na.png\n", "line 1: no header, and no image; name"),
    "not UTF-8": ("csv", f"{GOOD}\xe9.png,x".encode("latin-1"), "line 3: not UTF-8; save it as"),
    "UTF-16": ("csv", GOOD.encode("utf-16"), "line 1: UTF-16; save it as UTF-8"),
    "empty": ("csv", b"\n\n", "no images in it; write a line for each"),
    "header only": ("csv", b"path,label\n", "no images in it"),
    "text with commas": ("txt", GOOD.encode(), "line 1: no path, or no label (2 lines are so: 1"),
    "long cell": ("csv", b"path,label\n" + b"a" * 200_000 + b",x\n", "line 2: a cell of more than"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_rows_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    ending, content, due = BAD[case]
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "sub").mkdir()
    path = tmp_path / f"list.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_source(build_config(tmp_path, train_list=path.name), True)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in due.replace("\\\\", "\\").split(".*"):
        assert part in message, message


def test_labels_of_validation_are_those_of_training(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = rows_of(folder, "val")
    train = write_csv(tmp_path / "train.csv", rows_of(folder))
    other = write_csv(tmp_path / "val.csv", [*found[:2], (found[2][0], "bea"), *found[3:]])
    config = build_config(folder, 3, train_list=train, val_list=other)
    with pytest.raises(UserError, match=r"val.csv, line 4: label 'bea' is none of the 3 classes "):
        open_source(config, False)
    # Images of training among them are told, and classes without one.
    same = write_csv(tmp_path / "same.csv", [row for row in rows_of(folder) if row[1] == "bee"])
    say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        open_source(build_config(folder, 3, train_list=train, val_list=same), False)
    assert "same.csv: 8 images are in train_list too" in caplog.text
    assert "same.csv: no images of 2 classes (ant, water buffalo)" in caplog.text


def test_lists_are_for_folders_of_images(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--train_list: x is not allowed; .* with set ImageNet"):
        parse_args(["--set", "CIFAR10", "--train_list", "x", "--debug"])
    missing = r"train_list 'x': no such file in data_url .* nor from the working folder; give"
    with pytest.raises(UserError, match=missing):
        open_source(build_config(folder, 3, train_list="x"), True)


def test_packed_lists_are_read_as_they_were(folder: Path, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows_of(folder))
    lists = ["--train_list", train, "--val_share", 0.25]
    result = pack("--data_url", folder, "--output", tmp_path / "packed", *lists)
    assert result.returncode == 0, result.stderr
    for training in (True, False):
        due = open_source(build_config(folder, 3, train_list=train, val_share=0.25), training)
        found = open_source(build_config(tmp_path / "packed", 3, set="MindRecord"), training)
        assert (found.class_names, found.labels.tolist()) == (due.class_names, due.labels.tolist())
        np.testing.assert_array_equal(found.read(4), due.read(4))
    wrong = write_csv(tmp_path / "wrong.csv", [("nowhere.png", "ant")])
    lists = ["--train_list", train, "--val_list", wrong]
    result = pack("--data_url", folder, "--output", tmp_path / "none", *lists)
    assert (result.returncode, (tmp_path / "none").exists()) == (2, False)
    assert "wrong.csv, line 2: no image 'nowhere.png'" in result.stderr
    result = pack("--data_url", folder, "--output", tmp_path / "none", "--set", "MNIST", *lists)
    assert "--set MNIST: has no lists" in result.stderr


def test_images_of_training_are_not_those_of_validation(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "train").symlink_to(folder / "train")
    found = [row for row in rows_of(folder) if row[0].startswith("train/ant")]
    (tmp_path / "v.csv").write_text(f'"{found[0][0]}",{found[0][1]}\n')
    open_source(build_config(tmp_path, 3, val_list="v.csv"), False)
    assert "1 images lie in train/, which is trained on" in caplog.text
    # Without train/ nobody says what to train on.
    config = build_config(folder / "train", 3, val_list=str(tmp_path / "v.csv"), val_share=0.5)
    with pytest.raises(UserError, match="has no train/, so which images to train on is not known"):
        open_source(config, True)


def test_a_first_row_that_names_an_image_is_no_header(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    (tmp_path / "l.csv").write_text("a.png,target\nb.png,other\n")
    source = open_source(build_config(tmp_path, 2, train_list="l.csv"), True)
    assert [source.file_name(i) for i in range(len(source))] != []
    assert len(source) == 2


def completed(record: SavedRecord, *given: str) -> Any:
    return complete_by_checkpoint(parse_args(list(given)), record, path="x.ckpt").data


def test_an_evaluation_takes_the_lists_of_the_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where another folder is given that has none, nor for another kind of data."""
    trained = replace(
        parse_args(["--arch", "cct_2_3x2_32"]), data_url="/there", val_list="v.csv", num_classes=3
    )
    record = SavedRecord(arch="cct_2_3x2_32", num_classes=3, config=to_yaml(trained))
    assert completed(record).val_list == "v.csv"
    assert completed(record, "--data_url", str(tmp_path)).val_list is None
    assert completed(record, "--set", "CIFAR10").val_list is None
    assert completed(record, "--train_list", "t.csv", "--val_share", "0.1").val_list is None
    (tmp_path / "v.csv").write_text("x")
    assert completed(record, "--data_url", str(tmp_path)).val_list == "v.csv"
    # From the working folder too; and where it is missing the share is not that of a list.
    monkeypatch.chdir(tmp_path)
    for name, due in (("v.csv", ("v.csv", 0.2)), ("gone.csv", (None, 0.0))):
        shared = replace(trained, val_list=None, train_list=name, val_share=0.2)
        record = SavedRecord(arch="cct_2_3x2_32", num_classes=3, config=to_yaml(shared))
        data = completed(record, "--data_url", str(folder))
        assert (data.train_list, data.val_share) == due


def test_a_file_of_scores_says_which_list_they_are_of(tmp_path: Path) -> None:
    """Two lists of a folder are two files of scores, not one that says nothing of it."""
    result = EvalResult(50.0, 100.0, 1.0, 4)
    for val_list in (None, "a.csv", "b.csv", "a.csv"):
        config = parse_args(["--pretrained", "x.ckpt", "--train_url", str(tmp_path)], EvalRun)
        eval_program._write_file(replace(config, val_list=val_list), result)
    found = [json.loads(path.read_text()).get("val_list") for path in sorted(tmp_path.iterdir())]
    assert found == [None, "a.csv", "b.csv"]


@pytest.mark.slow  # the batches above are equal from any step on
def test_a_killed_run_goes_on_as_one_of_class_folders(tmp_path: Path) -> None:
    """Bit for bit: a list names the images in the order of the folders."""
    digits = tmp_path / "digits"
    prepare_digits(digits)
    for split in COUNTS:
        write_csv(tmp_path / f"{split}.csv", rows_of(digits, split))
    lists = [f"--{split}_list={tmp_path / split}.csv" for split in COUNTS]
    lists += ["--set", "ImageNet", "--save_steps", "4"]
    assert train_program.main(words(digits, tmp_path / "straight")) == 0
    arguments = words(digits, tmp_path / "run", *lists, "--resume", "auto")
    process = start(arguments)
    wait_for_step(process, tmp_path / "run", 6)
    process.kill()
    process.communicate()
    assert train_program.main(arguments) == 0
    same_state(tmp_path / "run", tmp_path / "straight")
