"""Images of some of a network's classes: whose logits count, and what is said of the others."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np
import pytest
from digits_run import failure
from mindspore import Tensor
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from test_eval_program import write_weights
from torch_oracle import timm

import eval as eval_program
from src.args import EvalRun, parse_args, replace
from src.data.classes import TrainedClasses
from src.data.imagenet import create_dataset
from src.data.imagenet_names import imagenet_names, imagenet_subsets
from src.report.outcomes import Collector
from src.report.page import write_report
from src.trainer.evaluate import _only, evaluate
from src.trainer.metrics import EvalResult, wilson_interval

NAMES = [f"class {letter}" for letter in "abcdefghij"]


def pictures(folder: Path, classes: Sequence[str], *, count: int = 4) -> Path:
    """Grey pictures of another brightness each, in a folder for each class."""
    for position, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count + position):
            grey = np.full((16, 16, 3), 60 * position + index, np.uint8)
            Image.fromarray(grey).save(folder / name / f"{index}.png")
    return folder


class Drawn:
    """Logits (B, K) that are drawn from each image's brightness."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def set_train(self, mode: bool) -> None:
        assert not mode

    def of(self, brightness: int) -> np.ndarray:
        return np.random.default_rng(brightness).normal(size=self.classes).astype(np.float32)

    def __call__(self, image: Tensor) -> Tensor:
        return Tensor(np.stack([self.of(int(one[0, 0, 0])) for one in image.asnumpy()]))


def opened(data: Path, given: str, names: Any, classes: int = 10) -> Any:
    config = replace(
        parse_args([], EvalRun),
        **{"data_url": str(data), "class_subset": given, "num_classes": classes},
        **{"image_size": 16, "crop_pct": 1.0, "batch_size": 4, "num_parallel_workers": 2},
    )
    trained = TrainedClasses("pretrained 'x.ckpt'", names)
    return create_dataset(config, False, trained=trained)


def test_scores_are_scikit_learns_over_the_subset_and_over_all(tmp_path: Path) -> None:
    classes = ["class h", "class c", "class a"]
    dataset = opened(pictures(tmp_path / "data", classes), "auto", NAMES)
    network = Drawn(10)
    result = evaluate(network, dataset)  # type: ignore[arg-type]
    scored = [0, 2, 7]
    label, logits = [], []
    for position, name in enumerate(classes):
        for index in range(4 + position):
            label.append(NAMES.index(name))
            logits.append(network.of(60 * position + index))
    everything, some = np.stack(logits), np.stack(logits)[:, scored]
    assert dataset.scored.tolist() == scored
    assert (result.images, result.classes) == (15, 3)
    due = 100 * top_k_accuracy_score(label, some, k=1, labels=scored)
    assert result.top1 == pytest.approx(due)
    predicted = np.array(scored)[some.argmax(axis=1)]
    assert result.macro_recall == pytest.approx(100 * balanced_accuracy_score(label, predicted))
    log_share = some - np.log(np.exp(some.astype(np.float64)).sum(axis=1, keepdims=True))
    losses = [-log_share[i, scored.index(one)] for i, one in enumerate(label)]
    assert result.loss == pytest.approx(np.mean(losses))
    assert result.top5 == 100.0
    over_all = result.all_classes
    for k, found in ((1, over_all.top1), (5, over_all.top5)):
        due = 100 * top_k_accuracy_score(label, everything, k=k, labels=range(10))
        assert found == pytest.approx(due)
    assert over_all.classes == 10
    assert over_all.top1 < result.top1


def test_three_of_ten_classes_are_told_how_to_be_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "best.ckpt"
    write_weights(path, NAMES, num_classes=10, val_share=0.0)
    data = pictures(tmp_path / "data", NAMES[2:5])
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "val").symlink_to(data)
    words = ["--pretrained", str(path), "--data_url", str(tmp_path / "test")]
    message = failure(capsys, eval_program, words)
    assert "num_classes" not in message
    assert "or --class_subset auto (or a file) to score some of the network's classes" in message
    # The folder itself is taken whole.
    words = ["--pretrained", str(path), "--data_url", str(data), "--class_subset", "auto"]
    assert eval_program.main(words) == 0
    first, second = capsys.readouterr().out.splitlines()
    scores = json.loads((path.parent / "eval_best_data_val.json").read_text())
    assert first.startswith(f"over 3 of 10 classes: top-1 {scores['top1']:.3f} % [")
    everything = scores["all_classes"]
    assert second.startswith(f"over all 10 classes: top-1 {everything['top1']:.3f} % [")
    assert (scores["classes"], everything["classes"], scores["images"]) == (3, 10, 15)


def test_the_report_has_the_scores_over_all_classes_too(tmp_path: Path) -> None:
    """And what it predicts is of the subset, whose logits alone the collector is given."""
    result = EvalResult(75.0, 100.0, 0.5, 4, 70.0, 3, EvalResult(50.0, 75.0, 1.5, 4, 40.0, 10))
    collector = Collector(keep=1)
    logits = _only(np.eye(10, dtype=np.float32)[[9, 2, 3, 4]], np.array([2, 3, 4]))
    collector.add(logits, np.array([2, 2, 3, 4]), np.zeros((4, 2, 2, 3), np.uint8))
    outcomes = collector.outcomes("raw", result, str, NAMES)
    assert outcomes.predicted.tolist() == [2, 2, 3, 4]
    assert outcomes.confidence[0] == pytest.approx(1 / 3)
    page = write_report(tmp_path, [(outcomes, collector)], facts={"arch": "x"}, real_labels=None)
    (raw,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert (raw["top1"], raw["scored_classes"], raw["all_classes"]["top1"]) == (75.0, 3, 50.0)
    low, high = wilson_interval(50.0, 4)
    said = f"Over those of all 10: top-1 50.000 % ({low:.2f} to {high:.2f}), top-5 75.000 %"
    assert f"over the logits of 3 classes. {said}, macro 40.000 %." in page.read_text()


def test_folders_may_be_label_numbers(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", ["10", "2", "0"])  # as of ImageNet-V2
    ids = list(imagenet_names())
    dataset = opened(data, "auto", None, 1000)
    assert dataset.scored.tolist() == [0, 2, 10]
    assert dataset.class_names == ids
    assert [dataset.images_per_class[label] for label in (0, 2, 10)] == [6, 5, 4]
    assert opened(data, "auto", None, 12).scored.tolist() == [0, 2, 10]


def test_a_file_maps_classes_and_leaves_others_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = pictures(tmp_path / "data", ["cat, wild", "dog", "ant"])
    given = tmp_path / "subset.csv"
    given.write_text('# mine\n"cat, wild",class b\ndog,9\n\nclass a\nwolf,class j\n')
    with caplog.at_level(logging.INFO):
        dataset = opened(data, str(given), NAMES)
    assert dataset.scored.tolist() == [0, 1, 9]
    assert dataset.num_samples == 4 + 5
    assert dataset.images_per_class == [0, 4, 0, 0, 0, 0, 0, 0, 0, 5]
    labels = np.concatenate([batch.label for batch in dataset.batches()])
    assert labels[labels >= 0].tolist() == [1] * 4 + [9] * 5
    assert [dataset.file_name(index) for index in (0, 8)] == ["cat, wild/0.png", "dog/4.png"]
    assert "6 images are left out, of classes it has not (ant)" in caplog.text
    assert "the data has no images of 2 of its 4 classes (class a, wolf)" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read (No such file or directory); give auto, imagenet_a, imagenet_r, or"),
        ("dog,class z\n", "(class z) are not among the 10 of pretrained 'x.ckpt' (class a,"),
        ("dog,10\n", "1 of 1 classes (10) are not among the 10"),
        ("dog,class a\ndog,class b\n", "'dog' is there twice"),
        ("dog,class a,1\n", "class 1 is not CLASS or FOLDER,CLASS"),
        ("class c\n", "the data has none of its 1 classes; it has dog"),
        ("# nothing\n", "has no classes"),
    ],
)
def test_wrong_subsets_are_refused(text: Any, said: str, tmp_path: Path) -> None:
    data, given = pictures(tmp_path / "data", ["dog"]), tmp_path / "subset.csv"
    if text is not None:
        given.write_text(text)
    with pytest.raises(ValueError, match="class_subset") as refused:
        opened(data, str(given), NAMES)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_published_subsets_are_timms(name: str) -> None:
    info = Path(timm.__file__).parent / "data" / "_info"
    ids: List[str] = imagenet_subsets()[name]
    assert ids == (info / f"{name}_synsets.txt").read_text().split()
    known = list(imagenet_names())
    indices = [int(line) for line in (info / f"{name}_indices.txt").read_text().split()]
    assert [known.index(wordnet_id) for wordnet_id in ids] == indices
    assert len(ids) == 200
