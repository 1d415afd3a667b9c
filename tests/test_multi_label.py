"""Images with any number of labels: lists, targets, scores against scikit-learn, whole runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from digits_run import failure, rows, start, wait_for_step
from mindspore import Tensor
from PIL import Image
from sklearn import metrics
from test_data_sources import build_config as config_of_one_label
from test_data_sources import pack
from test_engine import same_state
from torch_oracle import torch

import eval as eval_program
import export
import predict
import preprocess
import train as train_program
from scripts import knn
from src.args import Config, EvalRun, PredictRun, parse_args, replace, to_yaml
from src.checkpoints.complete_config import complete_by_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.data.find_images import say_once
from src.data.image_sums import label_number
from src.data.imagenet import create_dataset
from src.data.packed import index_file, open_packed
from src.data.sources import count_classes, create_decoder, open_source
from src.errors import UserError
from src.report.predictions import top_k
from src.trainer.build import build_batch_transform
from src.trainer.multi_label import MultiLabelTotals

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["bottom", "left", "right", "top"]
KEYS = {"label_separator": "bar", "criterion": "bce", "best_metric": "map"}
LISTS = {"train_list": "train.csv", "val_list": "val.csv", **KEYS}
SCORES = ("map", "macro_f1", "micro_f1", "macro_recall")


def build_config(root: Path, num_classes: int, **values: Any) -> Config:
    config: Config = replace(config_of_one_label(root, num_classes), **values)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with bright sides, each a class of its own; where none is, there is no label."""
    root = tmp_path_factory.mktemp("sides")
    rng = np.random.default_rng(0)
    for split, count in (("train", 128), ("val", 42)):
        (root / split).mkdir()
        found = []
        for number in range(count):
            is_there = rng.random(4) < 0.4
            pixels = rng.integers(0, 80, (32, 32, 3), np.uint8)
            sides = (pixels[24:], pixels[:, :8], pixels[:, 24:], pixels[:8])
            for side, is_bright in zip(sides, is_there):
                side += np.uint8(150 * is_bright)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            found.append((f"{split}/{number}.png", np.array(CLASSES)[is_there].tolist()))
        write_list(root / f"{split}.csv", found, "|")
    return root


def write_list(path: Path, found: List[Any], separator: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels"))
        writer.writerows((name, separator.join(labels)) for name, labels in found)


def labels_in(root: Path, split: str) -> Dict[str, List[str]]:
    with (root / f"{split}.csv").open(newline="") as file:
        return {path: text.split("|") if text else [] for path, text in list(csv.reader(file))[1:]}


def words(root: Path, run: Path, *more: str) -> List[str]:
    """Two epochs of four steps."""
    recipe = ROOT / "src" / "configs" / "cct_2_3x2_32_digits.yaml"
    layers = "{num_layers: 1, n_conv_layers: 1, attention_dropout: 0.1}"
    given = {**LISTS, "set": "ImageNet"}
    return [
        *("--config", str(recipe), "--model_args", layers, "--epochs", "2", "--batch_size", "32"),
        *("--data_url", str(root), "--train_url", str(run), "--image_size", "32"),
        *("--num_classes", "4"),
        *("--log_interval", "1", "--warmup_length", "0", "--crop_pct", "1.0"),
        *(f"--{key}={value}" for key, value in given.items()),
        *more,
    ]


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "straight"
    assert train_program.main(words(folder, path, "--with_ema", "True", "--mix_up", "0.8")) == 0
    return path


def expected(logits: np.ndarray, label: np.ndarray) -> Dict[str, float]:
    """scikit-learn's, over the classes that have images."""
    kept = label.any(axis=0)
    means = {"average": "macro", "zero_division": 0}
    present, predicted = label[:, kept], logits[:, kept] > 0
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits).double(), torch.tensor(label).double()
    )
    return {
        "map": 100 * metrics.average_precision_score(present, logits[:, kept], average="macro"),
        "macro_f1": 100 * metrics.f1_score(present, predicted, **means),
        "micro_f1": 100 * metrics.f1_score(label, logits > 0, average="micro"),
        "macro_recall": 100 * metrics.recall_score(present, predicted, **means),
        "loss": float(loss),
    }


def random_scores() -> Any:
    """Logits with many ties, labels, and of 12 classes one without images."""
    rng = np.random.default_rng(0)
    label = (rng.random((101, 12)) < 0.3).astype(np.int32)
    label[:, 7] = 0
    logits = np.round(2 * rng.normal(size=(101, 12)) + label, 1).astype(np.float32)
    return logits, label


def assert_scores(result: Any, logits: np.ndarray, label: np.ndarray) -> None:
    for key, value in expected(logits, label).items():
        assert getattr(result, key) == pytest.approx(value, rel=1e-12), key


def test_scores_are_those_of_scikit_learn_and_torch() -> None:
    logits, label = random_scores()
    totals = MultiLabelTotals(12)
    for at in range(0, 101, 32):
        totals.update(logits[at : at + 32], label[at : at + 32])
    totals.update(np.full((3, 12), 9.0, np.float32), np.full((3, 12), -1, np.int32))  # padding
    result = totals.result()
    assert result.images == 101
    assert_scores(result, logits, label)
    found = metrics.precision_recall_fscore_support(label, logits > 0, zero_division=np.nan)
    classes = result.of_classes
    np.testing.assert_allclose(classes.precision, 100 * found[0], rtol=1e-12)
    has_images = np.arange(12) != 7
    np.testing.assert_allclose(classes.recall[has_images], 100 * found[1][has_images], rtol=1e-12)
    np.testing.assert_allclose(classes.f1[has_images], 100 * found[2][has_images], rtol=1e-12)
    assert np.isnan([classes.recall[7], classes.average_precision[7]]).all()
    np.testing.assert_array_equal(classes.images, found[3])
    precision = [metrics.average_precision_score(label[:, k], logits[:, k]) for k in range(6)]
    np.testing.assert_allclose(classes.average_precision[:6], 100 * np.array(precision))


def test_ranks_have_the_bits_of_one_process() -> None:
    """Rank r has every third image from r on, and all have as many rows."""
    logits, label = random_scores()
    alone = MultiLabelTotals(12)
    alone.update(logits, label)
    ranks = [MultiLabelTotals(12) for _ in range(3)]
    for rank, totals in enumerate(ranks):
        mine = logits[rank::3], label[rank::3]
        missing = 34 - len(mine[0])
        totals.update(
            np.concatenate([mine[0], np.zeros((missing, 12), np.float32)]),
            np.concatenate([mine[1], np.full((missing, 12), -1, np.int32)]),
        )
    for totals in ranks:
        # What each process sends is what it asks the others for.
        sent = iter([[np.array(0.0)] * 3, [each._joined() for each in ranks]])
        together = totals.gathered(lambda values: np.stack(next(sent)))  # noqa: B023
        np.testing.assert_array_equal(together._joined()[:, :101], alone._joined())
        found = together.result()
        assert found == alone.result()
        for mine, due in zip(found.of_classes, alone.result().of_classes):
            np.testing.assert_array_equal(mine, due)


def test_nan_is_no_hit_and_nothing_is_not_zero() -> None:
    totals = MultiLabelTotals(2)
    totals.update(np.array([[np.nan, 1.0], [0.5, -1.0]]), np.array([[1, 1], [0, 0]]))
    result = totals.result()
    assert (result.map, result.macro_recall) == (100 * (0.5 + 1) / 2, 50.0)
    assert np.isnan(result.loss)
    assert np.isnan([getattr(MultiLabelTotals(2).result(), key) for key in SCORES]).all()
    totals = MultiLabelTotals(1)
    totals.update(np.ones((2, 1)), np.array([[1], [0]]))
    totals.overflows = 1
    assert np.isnan(totals.result().loss)


@pytest.mark.parametrize(
    ("name", "separator"), [("bar", " | "), ("semicolon", ";"), ("comma", ","), ("space", " ")]
)
def test_a_list_says_which_labels_each_image_has(
    name: str, separator: str, folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        write_list(tmp_path / f"{split}.csv", list(labels_in(folder, split).items()), separator)
    lists = {f"{split}_list": str(tmp_path / f"{split}.csv") for split in ("train", "val")}
    config = build_config(folder, 4, **{**KEYS, **lists, "label_separator": name})
    assert count_classes(config) == 4
    for training, split in ((True, "train"), (False, "val")):
        source = open_source(config, training)
        assert source.class_names == CLASSES
        said = labels_in(folder, split)
        assert [source.file_name(i) for i in range(len(source))] == sorted(said)
        for index, path in enumerate(sorted(said)):
            assert [CLASSES[k] for k in np.flatnonzero(source.labels[index])] == said[path]
        with Image.open(folder / source.file_name(3)) as image:
            np.testing.assert_array_equal(source.read(3), np.asarray(image))


def test_a_text_says_numbers_and_may_say_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("train/0.png 2,0\ntrain/1.png\ntrain/2.png 1,1\n")
    given = {**KEYS, "train_list": str(tmp_path / "l.txt"), "label_separator": "comma"}
    source = open_source(build_config(folder, 3, **given), True)
    assert source.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(UserError, match="where a space ends the path; write a CSV"):
        open_source(build_config(folder, 3, **{**given, "label_separator": "space"}), True)


def test_a_share_is_of_all_images(folder: Path) -> None:
    config = build_config(folder, 4, train_list="train.csv", val_share=0.25, **KEYS)
    train, val = (open_source(config, training) for training in (True, False))
    names = [[s.file_name(i) for i in range(len(s))] for s in (train, val)]
    assert (len(names[0]), len(names[1])) == (96, 32)
    assert not set(names[0]) & set(names[1])
    said = labels_in(folder, "train")
    for source, found in zip((train, val), names):
        for row, name in zip(source.labels, found):
            assert [CLASSES[k] for k in np.flatnonzero(row)] == said[name]


LINES = {
    "unknown label": ("train/0.png,left|lfet\n", "v.csv, line 1: label 'lfet' is none of the 4"),
    "an image twice": ("train/0.png,left\ntrain/0.png,top\n", "write its labels into one, divided"),
    "no label": ("path,labels\nval/0.png,\n", "v.csv: no image has a label"),
    "no path": (",left\n", "name the columns path and label"),
}


@pytest.mark.parametrize("case", list(LINES))
def test_a_wrong_line_is_named(case: str, folder: Path, tmp_path: Path) -> None:
    text, message = LINES[case]
    (tmp_path / "v.csv").write_text(text)
    config = build_config(folder, 4, **{**LISTS, "val_list": str(tmp_path / "v.csv")})
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        open_source(config, False)


def test_labels_that_look_like_several_are_spoken_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    say_once.cache_clear()
    config = build_config(folder, 4, train_list="train.csv", val_list="val.csv")
    with pytest.raises(UserError, match=r"line [0-9]+: no path, or no label"):
        open_source(config, True)
    rows_with_labels = [row for row in labels_in(folder, "train").items() if row[1]]
    write_list(folder / "some.csv", rows_with_labels, "|")
    config = replace(config, train_list="some.csv", val_list=None, val_share=0.0, num_classes=15)
    config = replace(config, num_classes=count_classes(config))
    open_source(config, True)
    assert "are one class each; if they are several, give --label_separator bar" in caplog.text


def test_targets_are_smoothed_and_mixed_as_probabilities() -> None:
    label = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], np.int32)
    config = replace(
        Config(),
        **{**KEYS, "train_list": "x"},
        **{"num_classes": 3, "image_size": 8, "batch_size": 4, "label_smoothing": 0.2},
    )
    mix = np.zeros((4, 5), np.float32)
    mix[:, 0] = (0.75, 1.0, 0.5, 1.0)
    image = np.zeros((4, 8, 8, 3), np.uint8)
    transform = build_batch_transform(config)
    target = transform(Tensor(image), Tensor(label), Tensor(mix))[1].asnumpy()
    smooth = label * 0.8 + 0.1
    share = mix[:, :1]
    np.testing.assert_allclose(target, smooth * share + smooth[::-1] * (1 - share), rtol=1e-6)


def test_batches_hold_every_label_in_threads_and_processes(folder: Path) -> None:
    sets = [
        create_dataset(
            build_config(folder, 4, **LISTS, batch_size=16, python_multiprocessing=flag), False
        )
        for flag in (False, True)
    ]
    found = [list(images.batches()) for images in sets]
    labels = np.concatenate([batch.label for batch in found[0]])
    source = open_source(build_config(folder, 4, **LISTS), False)
    np.testing.assert_array_equal(labels[:42], source.labels)
    assert (labels[42:] == -1).all()
    assert (labels.shape, labels.dtype) == ((48, 4), np.int32)
    for mine, other in zip(*found):
        np.testing.assert_array_equal(mine.label, other.label)
        np.testing.assert_array_equal(mine.image, other.image)
    assert sets[0].images_per_class == source.labels.sum(axis=0).tolist()
    # A changed label is found as a changed image is.
    assert len({label_number(row) for row in np.unique(labels, axis=0)}) == len(
        np.unique(labels, axis=0)
    )
    sums = [images.image_sums.take() for images in sets]
    np.testing.assert_array_equal(*sums)


def logits_of(weights: Path, folder: Path) -> Any:
    """Logits and labels of val/ in the order of the files, by another way than evaluation's."""
    from src.serving.predictor import open_predictor

    predictor = open_predictor(parse_args(["--pretrained", str(weights)], PredictRun))
    assert predictor.is_multi_label
    source = open_source(build_config(folder, 4, **LISTS), False)
    images = np.stack([source.read(index) for index in range(len(source))])
    return predictor(images), source.labels.astype(np.int32)


def test_a_run_scores_as_scikit_learn_does(folder: Path, run: Path, tmp_path: Path) -> None:
    found = [row for row in rows(run) if row["val_loss"]]
    assert [row["top1"] for row in found] == ["", ""]
    logits, label = logits_of(run / "last.ckpt", folder)
    due = expected(logits, label)
    for key in SCORES:
        assert float(found[-1][key]) == pytest.approx(due[key], abs=1e-6), key
        assert found[-1][f"ema_{key}"]
    best = max(range(2), key=lambda at: float(found[at]["map"]))
    text = (run / "report.html").read_text()
    assert "best mAP" in text
    assert f"{float(found[best]['map']):.3f} %" in text
    assert "Validation mAP, percent" in text
    assert "top-1" not in text
    assert "mAP (%)" in (run / "README.md").read_text()


def test_an_evaluation_says_the_same_everywhere(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, table = run / "last.ckpt", tmp_path / "t.csv"
    given = ["--pretrained", str(weights), "--train_url", str(tmp_path)]
    assert eval_program.main([*given, "--report", str(tmp_path / "report")]) == 0
    logits, label = logits_of(weights, folder)
    due = expected(logits, label)
    assert f"mAP {due['map']:.3f} %  macro F1 {due['macro_f1']:.3f} %" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [result["weights"] for result in report["results"]] == ["raw", "ema"]
    for key in SCORES:
        assert report["results"][0][key] == pytest.approx(due[key], abs=1e-6)
    check_files(tmp_path / "report", logits, label)
    assert eval_program.main([*given, "--results_file", str(table)]) == 0
    row = next(csv.DictReader(table.open(newline="")))
    assert (float(row["map"]), row["top1"]) == (pytest.approx(due["map"], abs=1e-4), "")
    assert "mAP %" in capsys.readouterr().out


def check_files(report: Path, logits: np.ndarray, label: np.ndarray) -> None:
    images = list(csv.DictReader((report / "images.csv").open(newline="")))
    for row, mine, other in zip(images, logits > 0, label > 0):
        assert row["predicted"] == "|".join(np.array(CLASSES)[mine])
        assert row["labels"] == "|".join(np.array(CLASSES)[other])
        assert row["correct"] == str(int((mine == other).all()))
    assert len(images) == 42
    classes = list(csv.DictReader((report / "classes.csv").open(newline="")))
    for k, row in enumerate(classes):
        precision = metrics.average_precision_score(label[:, k], logits[:, k])
        assert float(row["average_precision"]) == pytest.approx(100 * precision, abs=1e-3)
        f1 = metrics.f1_score(label[:, k], logits[:, k] > 0, zero_division=0)
        assert float(row["f1"]) == pytest.approx(100 * f1, abs=1e-3)
    page = (report / "report.html").read_text()
    assert "Classes, worst first" in page
    assert "Confusion" not in page
    assert "nan" not in page


def test_predictions_are_probabilities_of_their_own(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--pretrained", str(run / "last.ckpt"), "--input", str(folder / "val" / "0.png")]
    assert predict.main([*arguments, "--output", "csv"]) == 0
    found = {
        r["name"]: float(r["probability"])
        for r in csv.DictReader(capsys.readouterr().out.splitlines())
    }
    logits, _ = logits_of(run / "last.ckpt", folder)
    due = torch.sigmoid(torch.tensor(logits[0]).double()).tolist()
    assert found == pytest.approx(dict(zip(CLASSES, due)), abs=1e-6)
    labels, shares = top_k(np.array([[-800.0, 0.0, 800.0]]), 3, is_multi_label=True)
    assert (labels.tolist(), shares.tolist()) == ([[2, 1, 0]], [[1.0, 0.5, 0.0]])


def test_an_exported_network_knows_that_it_has_several_labels(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    arguments = ["--pretrained", str(run / "last.ckpt"), "--file_format", "ONNX", "-b", "42"]
    assert export.main([*arguments, "--output", str(file)]) == 0
    arguments = ["--pretrained", str(file), "--data_url", str(folder), "--val_list", "val.csv"]
    assert eval_program.main(arguments) == 0
    logits, label = logits_of(run / "last.ckpt", folder)
    assert f"mAP {expected(logits, label)['map']:.3f} %" in capsys.readouterr().out
    found, _ = logits_of(file, folder)
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_packed_images_keep_their_labels(folder: Path, tmp_path: Path) -> None:
    lists = ["--train_list", "train.csv", "--val_list", "val.csv", "--label_separator", "bar"]
    result = pack("--data_url", folder, "--output", tmp_path / "packed", *lists)
    assert result.returncode == 0, result.stderr
    config = build_config(tmp_path / "packed", 4, set="MindRecord", **KEYS)
    for training in (True, False):
        due = open_source(build_config(folder, 4, **LISTS), training)
        found = open_source(config, training)
        np.testing.assert_array_equal(found.labels, due.labels)
        assert (found.class_names, found.labels.dtype) == (CLASSES, np.uint8)
        np.testing.assert_array_equal(found.read(5), due.read(5))
    with pytest.raises(UserError, match="packed with several labels each; give --label_separator"):
        open_source(replace(config, label_separator=None, best_metric="top1"), True)
    index = index_file(tmp_path / "packed" / "val" / "00000.mindrecord")
    arrays = dict(np.load(index))
    for labels in (arrays["labels"][:, :2], arrays["labels"] + 1):
        np.savez(index, **{**arrays, "labels": labels})
        with pytest.raises(UserError, match="copy the folder again, or pack it again"):
            open_packed(tmp_path / "packed" / "val", create_decoder(config))


REFUSED = {
    "cross entropy": ({"criterion": "cross_entropy"}, "--criterion bce and --best_metric map"),
    "top-1": ({"best_metric": "top1"}, "--criterion bce and --best_metric map"),
    "no list": ({"train_list": None}, "give --train_list FILE"),
    "another set": ({"set": "CIFAR10"}, "null with set CIFAR10"),
    "balance": ({"balanced_sampling": "full"}, "none with label_separator"),
    "teacher": (
        {"distillation_type": "hard", "teacher_arch": "cct_2_3x2_32", "teacher_pretrained": "t"},
        "none with label_separator; a teacher names one class",
    ),
    "one label": ({"label_separator": None}, "top1, macro_recall or loss, or with label_separator"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_keys_that_are_for_one_label_are_refused(case: str) -> None:
    values, message = REFUSED[case]
    assert replace(Config(), **LISTS).train.best_metric == "map"
    with pytest.raises(UserError, match=message):
        replace(Config(), **{**LISTS, **values})


def test_programs_that_are_for_one_label_say_so(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--pretrained", str(run / "last.ckpt")]
    lists = [f"--{key}={value}" for key, value in LISTS.items()]
    cases = (
        (eval_program, [*weights, "--class_subset", "auto"], "is for images of one label each"),
        (
            eval_program,
            [*weights, "--report", str(tmp_path / "r"), "--real_labels", "x"],
            "ImageNet's",
        ),
        (export, [*weights, "--bundle", str(tmp_path / "b")], "names one class for an image"),
        (preprocess, [*weights, "--result_path", str(tmp_path / "p")], "names one class for an"),
        (
            knn,
            ["--weights", weights[1], "--data_url", str(folder), *lists],
            "weights are compared by images of one label each",
        ),
    )
    for program, arguments, message in cases:
        assert message in failure(capsys, program, arguments)
    assert not (tmp_path / "b").exists()


def test_weights_say_the_separator_where_there_are_lists(tmp_path: Path) -> None:
    recipe = replace(Config(), **LISTS, arch="cct_2_3x2_32", data_url="/there", num_classes=3)
    record = SavedRecord(arch="cct_2_3x2_32", num_classes=3, config=to_yaml(recipe))

    def separator(*words: str) -> Any:
        config = complete_by_checkpoint(parse_args(list(words), EvalRun), record, path="x.ckpt")
        return config.data.label_separator

    assert separator() == "bar"
    assert separator("--data_url", str(tmp_path)) is None  # class folders
    assert separator("--data_url", str(tmp_path), "--val_list", "v.csv") == "bar"
    assert record.label_separator("x.ckpt") == "bar"


@pytest.mark.slow  # batches are equal from any step on: test_data_lists.py
def test_a_killed_run_goes_on_bit_for_bit(folder: Path, run: Path, tmp_path: Path) -> None:
    more = ["--with_ema", "True", "--mix_up", "0.8", "--save_steps", "1", "--resume", "auto"]
    arguments = words(folder, tmp_path / "run", *more)
    process = start(arguments)
    wait_for_step(process, tmp_path / "run", 3)
    process.kill()
    process.communicate()
    assert train_program.main(arguments) == 0
    same_state(tmp_path / "run", run)
