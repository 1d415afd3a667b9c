"""Weights and data agree: the classes, what they are called, their order, and the images."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
from digits_run import failure, rows
from mindspore import Parameter
from PIL import Image

import eval as eval_program
import train as train_program
from scripts import average_checkpoints, convert_weights, pack_dataset
from src.args import parse_args, replace
from src.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from src.checkpoints.pretrained import start_from_weights
from src.checkpoints.saved_record import SavedRecord
from src.data.classes import TrainedClasses, describe_difference, natural_key, sort_classes
from src.data.image_folder import scan_image_folder
from src.data.imagenet import create_dataset
from src.errors import UserError
from src.models.registry import create_model
from src.trainer.build import build_network
from src.trainer.open_checkpoint import open_checkpoint
from src.trainer.resuming import check_same_data, check_same_recipe
from src.trainer.run import start_from_pretrained

ARCH = "cct_2_3x2_32"
RECIPE = """\
arch: cct_2_3x2_32
image_size: 16
drop_path_rate: 0.0
model_args: {num_layers: 1, n_conv_layers: 1, attention_dropout: 0.0}
batch_size: 8
num_parallel_workers: 2
crop_pct: 1.0
base_lr: 0.01
min_lr: 0.0
warmup_length: 0
epochs: 3
log_interval: 1
"""
NAMES = ["1", "10", "2"]


def pictures(folder: Path, names: List[str], *, count: int = 8) -> Path:
    """`count` grey pictures of each class in train/ and val/, of another brightness each."""
    for split in ("train", "val"):
        for position, name in enumerate(names):
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                grey = np.full((16, 16, 3), 30 + 60 * position + index, np.uint8)
                Image.fromarray(grey).save(place / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, its data and a run of three epochs of three steps."""
    root = tmp_path_factory.mktemp("classes")
    (root / "tiny.yaml").write_text(RECIPE)
    pictures(root / "data", NAMES)
    assert train_program.main(run_words(root)) == 0
    return root


def run_words(root: Path, *more: str, data: str = "data", run: str = "run") -> List[str]:
    paths = ["--data_url", str(root / data), "--train_url", str(root / run)]
    return ["--config", str(root / "tiny.yaml"), *paths, *more]


def eval_words(root: Path, data: str, *more: str) -> List[str]:
    weights = ["--pretrained", str(root / "run" / "last.ckpt")]
    return [*weights, "--data_url", str(root / data), "--train_url", str(root / "scores"), *more]


def renamed(root: Path, target: str, names: Dict[str, str]) -> str:
    """A copy of the data with other names of classes; where it is below `root`."""
    shutil.copytree(root / "data", root / target, dirs_exist_ok=True)
    for split in ("train", "val"):
        for before, now in names.items():
            (root / target / split / before).rename(root / target / split / now)
    return target


# --- order ----------------------------------------------------------------------------------------


FOLDERS = [
    "10",
    "2",
    "1",
    "class9",
    "class10",
    "Zebra",
    "apple",
    "x007",
    "x8",
    "n2_b10",
    "n2_b9",
    "é2",
]


def test_natural_order_is_timms(tmp_path: Path) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from timm.utils.misc import natural_key as timms

    pictures(tmp_path, FOLDERS, count=1)
    assert [natural_key(name) for name in FOLDERS] == [timms(name) for name in FOLDERS]
    for split in ("train", "val"):
        ours = scan_image_folder(tmp_path, split, class_order="natural")
        theirs = ReaderImageFolder(str(tmp_path / split))
        assert dict(zip(ours.class_names, range(12))) == theirs.class_to_idx
        files = {ours.file_name(index): int(ours.labels[index]) for index in range(len(ours))}
        assert files == {f"{Path(p).parent.name}/{Path(p).name}": k for p, k in theirs.samples}


def test_code_point_order_is_torchvisions(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    pictures(tmp_path, FOLDERS, count=1)
    ours = scan_image_folder(tmp_path, "train")
    assert ours.class_names == ImageFolder(str(tmp_path / "train")).classes


def test_a_recipe_chooses_the_order_and_labels_follow(tmp_path: Path) -> None:
    pictures(tmp_path, NAMES, count=2)
    words = ["--data_url", str(tmp_path), "--num_classes", "3", "--image_size", "16"]
    for order, names in (("code_point", ["1", "10", "2"]), ("natural", ["1", "2", "10"])):
        given = parse_args([*words, "--batch_size", "6", "--class_order", order])
        dataset = create_dataset(given, training=False)
        assert dataset.class_names == names
        batch = next(dataset.batches())
        grey = batch.image[:, 8, 8, 0].astype(int)
        expected = [30 + 60 * NAMES.index(names[label]) for label in batch.label]
        assert (abs(grey - expected) <= 2).all()


def test_names_that_only_case_tells_apart_have_a_fixed_order() -> None:
    assert sort_classes(["b", "A1", "a01", "a1"], "natural") == ["A1", "a01", "a1", "b"]
    # timm's key fails on these, whose digits are no decimals.
    assert sort_classes(["x2", "²", "1"], "natural") == ["1", "x2", "²"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (["a", "b"], ["a", "b"], None),
        (
            ["1", "2", "10"],
            ["1", "10", "2"],
            "the same 3 in another order; 2 label(s) differ: 1 is",
        ),
        (["a", "b"], ["a", "c"], "1 of its 2 are missing in the data (b); 1 of the data's 2 are"),
        (["a", "b"], ["a", "b", "c"], "1 of the data's 3 are added (c)"),
        (
            ["a", "b", "c"],
            ["a", "c"],
            "1 of its 3 are missing in the data (b); 1 label(s) differ: 1",
        ),
    ],
)
def test_differences_are_named(there: List[str], here: List[str], said: Optional[str]) -> None:
    found = describe_difference(there, here)
    assert found == said if said is None else found is not None and found.startswith(said)


def test_eval_refuses_other_names_and_takes_the_same(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    other = renamed(root, "renamed", {"1": "01", "2": "02", "10": "00ten"})
    message = failure(capsys, eval_program, eval_words(root, other))
    assert "pretrained" in message
    assert "3 of its 3 are missing in the data (1, 10, 2)" in message
    assert "0 is '1' there and '00ten' here" in message
    assert message.endswith(
        "give the --data_url it was trained on, or --allow_other_classes to go on all the same"
    )
    assert eval_program.main(eval_words(root, other, "--allow_other_classes")) == 0
    assert "allow_other_classes: pretrained" in caplog.text
    capsys.readouterr()
    assert eval_program.main(eval_words(root, "data")) == 0


def test_another_order_names_the_key(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = eval_words(root, "data", "--class_order", "natural")
    message = failure(capsys, eval_program, words)
    assert "the same 3 in another order" in message
    assert "give --class_order code_point" in message


def test_another_number_of_classes_names_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(root / "more", [*NAMES, "3"])
    message = failure(capsys, eval_program, eval_words(root, "more"))
    assert "1 of the data's 4 are added (3)" in message
    resumed = run_words(root, "--resume", "auto", data="more")
    assert "1 of the data's 4 are added (3)" in failure(capsys, train_program, resumed)


def test_a_run_goes_on_with_its_own_classes_only(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = renamed(root, "swapped", {"1": "z"})
    words = run_words(
        root, "--epochs", "4", "--resume", "auto", "--allow_config_change", data=other
    )
    message = failure(capsys, train_program, words)
    assert message.startswith("error: resume '")
    assert "0 is '1' there and '10' here" in message


def test_fine_tuning_takes_a_fresh_classifier_for_other_names(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = read_checkpoint(root / "run" / "last.ckpt")
    held = checkpoint.tensors["classifier.fc.weight"].asnumpy()

    def classifier(class_names: Optional[List[str]]) -> Any:
        keywords = {"num_layers": 1, "n_conv_layers": 1}
        network = create_model(ARCH, num_classes=3, img_size=16, **keywords)
        start_from_weights(network, checkpoint, target="it", class_names=class_names)
        return network.classifier.fc.weight.asnumpy()

    np.testing.assert_array_equal(classifier(NAMES), held)
    np.testing.assert_array_equal(classifier(None), held)
    assert "freshly initialised" not in caplog.text
    assert not np.allclose(classifier(["cat", "dog", "eel"]), held)
    assert "its classes differ from the data's: 3 of its 3 are missing" in caplog.text
    assert "initialised; to keep the one that was learnt give --allow_other_classes" in caplog.text


def test_from_python_too(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(root / "run" / "last.ckpt")
    network, config, checkpoint = open_checkpoint(parse_args(["--pretrained", path]))
    trained = checkpoint.trained_classes()
    assert create_dataset(config, False, trained=trained).class_names == NAMES
    other = replace(config, data_url=str(root / renamed(root, "python", {"1": "one"})))
    with pytest.raises(UserError, match="0 is '1' there and '10' here"):
        create_dataset(other, False, trained=trained)

    def classifier(class_names: List[str]) -> Any:
        keywords = {"num_layers": 1, "n_conv_layers": 1, "num_classes": 3, "img_size": 16}
        made = create_model(ARCH, pretrained=path, class_names=class_names, **keywords)
        return made.classifier.fc.weight.asnumpy()

    held = network.classifier.fc.weight.asnumpy()
    np.testing.assert_array_equal(classifier(NAMES), held)
    assert not np.allclose(classifier(["one", "10", "2"]), held)
    assert "freshly initialised" in caplog.text


def test_fine_tuning_compares_with_its_data(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = ["--pretrained", str(root / "run" / "last.ckpt"), "--num_classes", "3"]
    for more, is_fresh in (([], True), (["--allow_other_classes"], False)):
        caplog.clear()
        config = parse_args(run_words(root, *weights, *more))
        start_from_pretrained(config, build_network(config), ["one", "10", "2"])
        assert ("the classifier is freshly initialised" in caplog.text) == is_fresh


def test_a_teacher_of_other_classes_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = renamed(root, "pupils", {"1": "one"})
    teacher = ["--teacher_arch", ARCH, "--teacher_pretrained", str(root / "run" / "last.ckpt")]
    words = ["--data_url", str(root / other), "--arch", "deit_tiny_distilled_patch16_224"]
    words += ["--image_size", "32", "--batch_size", "8", "--train_url", str(root / "taught")]
    given = [*words, "--distillation_type", "hard", *teacher]
    assert "teacher_pretrained" in failure(capsys, train_program, given)


# --- weights of another library -------------------------------------------------------------------


def converted(path: Path, **more: Any) -> Path:
    """As scripts/convert_weights.py writes them, of three classes."""
    network = create_model(ARCH, num_classes=3)
    parameters = [Parameter(p, name=p.name) for p in network.get_parameters()]
    meta = {"arch": ARCH, "num_classes": 3, "naming": "timm", "source": "x.pth", **more}
    save_checkpoint(path, parameters, meta)
    return path


def test_converted_weights_ask_for_an_order_where_there_are_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "data", NAMES, count=2)
    path = converted(tmp_path / "x.ckpt")
    words = ["--pretrained", str(path), "--data_url", str(tmp_path / "data")]
    message = failure(capsys, eval_program, words)
    assert "natural (1, 2, 10), timm's, and code_point (1, 10, 2), torchvision's" in message
    assert eval_program.main([*words, "--class_order", "natural"]) == 0
    tuned = ["--train_url", str(tmp_path / "tuned"), "--batch_size", "4", "--dry_run"]
    assert "two orders" in failure(capsys, train_program, [*words, *tuned])


def test_converted_weights_of_one_order_need_none(tmp_path: Path) -> None:
    trained = TrainedClasses("pretrained 'x.ckpt'", None, is_converted=True)
    trained.check(["a", "b", "c"], "data", knows_order=False)
    TrainedClasses("pretrained 'y.ckpt'", None).check(NAMES, "data", knows_order=False)
    with pytest.raises(UserError, match="two orders"):
        trained.check(NAMES, "data", knows_order=False)


def test_classes_go_to_timm_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    pictures(tmp_path / "data", NAMES, count=2)
    ours, theirs = converted(tmp_path / "x.ckpt", class_names=NAMES), tmp_path / "x.safetensors"
    words = ["--arch", ARCH, "--input", str(ours), "--output", str(theirs), "--to", "torch"]
    assert convert_weights.main(words) == 0
    class_map = tmp_path / "x.classes.txt"
    assert f"--class-map {class_map}" in capsys.readouterr().out
    reader = ReaderImageFolder(str(tmp_path / "data/val"), class_map=str(class_map))
    assert reader.class_to_idx == {name: label for label, name in enumerate(NAMES)}

    def back(*more: str) -> SavedRecord:
        words = ["--arch", ARCH, "--input", str(theirs), "--output", str(tmp_path / "y.ckpt")]
        assert convert_weights.main([*words, "--num_classes", "3", *more]) == 0
        return read_checkpoint(tmp_path / "y.ckpt").record

    by_map = back("--class_names", str(class_map))
    assert (by_map.class_names, by_map.class_order) == (NAMES, "code_point")
    by_torchvision = back("--data_url", str(tmp_path / "data"), "--class_order", "code_point")
    assert by_torchvision.class_names == NAMES
    by_timm = back("--data_url", str(tmp_path / "data"))
    assert (by_timm.class_names, by_timm.class_order) == (["1", "2", "10"], "natural")
    # The order is the checkpoint's, so the names agree.
    given = ["--pretrained", str(tmp_path / "y.ckpt"), "--data_url", str(tmp_path / "data")]
    assert eval_program.main(given) == 0
    (tmp_path / "data/train/3").mkdir()
    wrong = ["--arch", ARCH, "--input", str(theirs), "--output", str(tmp_path / "z.ckpt")]
    wrong += ["--num_classes", "3", "--data_url", str(tmp_path / "data")]
    assert "4 classes, but the network has 3" in failure(capsys, convert_weights, wrong)
    assert "leave them out" in failure(capsys, convert_weights, [*words, *wrong[-2:]])


def test_averages_are_of_the_same_classes_and_keep_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [
        str(converted(tmp_path / f"{number}.ckpt", class_names=names))
        for number, names in enumerate((NAMES, NAMES, ["1", "2", "10"]))
    ]
    mean = str(tmp_path / "mean.ckpt")
    assert average_checkpoints.main([*paths[:2], "--output", mean]) == 0
    assert read_checkpoint(Path(mean)).record.class_names == NAMES
    message = failure(capsys, average_checkpoints, [*paths, "--output", mean])
    assert "the same 3 in another order" in message


def test_a_packed_set_keeps_the_order_it_was_packed_in(tmp_path: Path) -> None:
    pictures(tmp_path / "data", NAMES, count=2)
    packed = tmp_path / "packed"
    words = ["--data_url", str(tmp_path / "data"), "--output", str(packed), "--num_workers", "1"]
    assert pack_dataset.main([*words, "--class_order", "natural"]) == 0
    given = ["--set", "MindRecord", "--data_url", str(packed), "--num_classes", "3"]
    given += ["--image_size", "16", "--batch_size", "6"]
    for more in ([], ["--class_order", "natural"]):
        dataset = create_dataset(parse_args([*given, *more]), training=False)
        assert dataset.class_names == ["1", "2", "10"]
    with pytest.raises(UserError, match=r"were packed in another order .1, 2, 10.; pack them"):
        create_dataset(parse_args([*given, "--class_order", "code_point"]), training=False)


# --- data that grew -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "cifar-10-python.tar.gz"])
def test_classes_of_other_sets_than_folders_are_asked_for_by_name(tmp_path, file):
    (tmp_path / file).touch()
    arguments = argparse.Namespace(class_names=None, data_url=tmp_path, class_order="natural")
    with pytest.raises(UserError, match=r"no class folders; write the names .* --class_names$"):
        convert_weights._classes_of(arguments, 10)


def test_data_that_grew_is_refused_and_its_place_is_said(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(root / "run", root / "grown_run")
    shutil.copytree(root / "data", root / "grown")
    for index in range(8):
        shutil.copy(root / "data/train/1/000.png", root / f"grown/train/1/more{index}.png")
    words = run_words(root, "--resume", "auto", data="grown", run="grown_run")
    message = failure(capsys, train_program, words)
    said = (
        "the data has changed (images 24 -> 32: 1 8 -> 16; steps per epoch 3 -> 4); give the data"
    )
    assert said in message
    assert len(rows(root / "grown_run")) == 12  # nine steps, three evaluations
    with caplog.at_level(logging.INFO):
        assert train_program.main([*words, "--allow_config_change"]) == 0
    assert "allow_config_change: the data has changed (images 24 -> 32" in caplog.text
    assert "step 9 was 3 of 3 epochs, its end, and is now 2.25 of 3 epochs, lr " in caplog.text
    record = read_checkpoint(root / "grown_run" / "last.ckpt").record
    assert record.step == 12
    assert record.changes is not None
    assert [change.step for change in record.changes] == [9]
    assert record.changes[0].what[0].startswith("images 24 -> 32")
    assert "1: resumed at step 9: images 24" in (root / "grown_run" / "report.html").read_text()


def test_another_file_of_class_weights_is_noticed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = read_checkpoint(root / "run" / "last.ckpt").record.class_names
    assert names is not None
    file = root / "weights.csv"
    file.write_text("".join(f"{name},2\n" for name in names))
    words = run_words(root, "--class_weights", str(file), run="weighted")
    assert train_program.main(words) == 0
    record = read_checkpoint(root / "weighted" / "last.ckpt").record
    assert record.class_weights == hashlib.sha256(file.read_bytes()).hexdigest()
    words += ["--resume", "auto"]
    assert train_program.main(words) == 0
    file.write_text(file.read_text().replace(",2", ",3", 1))
    message = failure(capsys, train_program, words)
    assert f"the data has changed (the weights in class_weights '{file}')" in message


def test_an_image_that_changed_its_class_is_noticed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "data", root / "moved")
    (root / "moved/train/1/000.png").rename(root / "moved/train/2/moved.png")
    words = run_words(root, "--resume", "auto", data="moved")
    assert "images 24 -> 24: 1 8 -> 7, 2 8 -> 9" in failure(capsys, train_program, words)


def test_a_checkpoint_that_counts_no_images_is_resumed(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = read_checkpoint(root / "run" / "last.ckpt")
    old = dataclasses.replace(checkpoint.record, images_per_class=None, steps_per_epoch=None)
    parameters = [Parameter(tensor, name=name) for name, tensor in checkpoint.tensors.items()]
    save_checkpoint(root / "old.ckpt", parameters, old.as_json())
    with caplog.at_level(logging.INFO):
        words = run_words(root, "--resume", str(root / "old.ckpt"), run="older")
        assert train_program.main(words) == 0
    assert "does not say how many images it was trained on, so that is not compared" in caplog.text
    assert "nothing is left to do" in caplog.text


def test_what_is_allowed_to_change_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = ["--allow_config_change", "--epochs", "4", "--lr", "0.02", "--num_classes", "3"]
    config = parse_args(run_words(root, *more))
    resumed = read_checkpoint(root / "run" / "last.ckpt")
    assert check_same_recipe(config, resumed) == ["base_lr 0.01 -> 0.02", "epochs 3 -> 4"]
    check_same_data(config, resumed, create_dataset(config, training=True))
    said = "allow_config_change: the recipe has changed (base_lr 0.01 -> 0.02; epochs 3 -> 4)"
    assert said in caplog.text
    # Three quarters of a cosine from 0.02 to min_lr 0: 0.01 (1 + cos(3/4 pi)).
    place = "step 9 was 3 of 3 epochs, its end, and is now 3 of 4 epochs, lr 0.00293"
    assert place in caplog.text
