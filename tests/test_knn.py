"""scripts/knn.py: features of a folder, what tells their classes apart, and the cache."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from digits_run import failure
from model_parity import load_rule_weights
from PIL import Image
from scipy.optimize import minimize
from test_scripts import script
from threadpoolctl import threadpool_limits

from src.args import PredictRun, parse_args, replace, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.data.array_images import ArrayImages
from src.models.registry import create_model
from src.report.feature_cache import features_key
from src.report.transfer import Split, linear_accuracy, log_evidence, neighbour_accuracy

LAYERS = "{num_layers: 1, n_conv_layers: 1, embedding_dim: 16, num_heads: 2}"


def classes(count: int, width: int, seed: int, *, apart: float = 2.0) -> Split:
    """Features of three classes around means of their own."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(7).normal(0, apart, (3, width))
    labels = np.arange(count, dtype=np.int32) % 3
    return Split((rng.normal(size=(count, width)) + means[labels]).astype(np.float32), labels)


def largest_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """By the definition, with matrices as they stand, and a search by scipy."""
    count, width = features.shape

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        precision = alpha * np.eye(width) + beta * features.T @ features
        mean = beta * np.linalg.solve(precision, features.T @ target)
        error = beta / 2 * ((features @ mean - target) ** 2).sum() + alpha / 2 * mean @ mean
        logs_of = width / 2 * logs[0] + count / 2 * logs[1] - count / 2 * np.log(2 * np.pi)
        return float(error + np.linalg.slogdet(precision)[1] / 2 - logs_of)

    options = {"xatol": 1e-7, "fatol": 1e-10, "maxiter": 2000}
    with threadpool_limits(1):  # of the smallest matrices
        found = minimize(negative, (3.0, 2.0), method="Nelder-Mead", options=options)
    return -float(found.fun)


@pytest.mark.parametrize(("count", "width"), [(45, 5), (12, 20)])
def test_logme_is_the_largest_evidence(count: int, width: int) -> None:
    split = classes(count, width, 1, apart=0.5)
    features = split.features.astype(np.float64)
    expected = np.mean([largest_evidence(features, split.labels == label) for label in range(3)])
    assert log_evidence(split) == pytest.approx(expected / count, abs=1e-6)


def test_logme_prefers_features_that_tell_the_classes_apart() -> None:
    values = [log_evidence(classes(90, 8, 2, apart=apart)) for apart in (0.0, 0.5, 1.0, 3.0)]
    assert values == sorted(values)


def test_neighbours_vote_by_cosine() -> None:
    train, val = classes(40, 5, 3, apart=0.7), classes(31, 5, 4, apart=0.7)
    unit = [x.features / np.linalg.norm(x.features, axis=1, keepdims=True) for x in (train, val)]
    nearest = np.argsort(-(unit[1] @ unit[0].T), axis=1)[:, :7]
    votes = np.stack([(train.labels[nearest] == label).sum(axis=1) for label in range(3)], axis=1)
    expected = 100 * float((votes.argmax(axis=1) == val.labels).mean())
    assert 40 < expected < 100
    assert neighbour_accuracy(train, val, 7) == pytest.approx(expected)
    assert neighbour_accuracy(train, val, 1000) == pytest.approx(100 * 11 / 31)


def test_logistic_regression_does_not_depend_on_the_units() -> None:
    train, val = classes(60, 5, 5, apart=0.7), classes(60, 5, 6, apart=0.7)
    units = np.array([1e-3, 1, 10, 100, 1e4], np.float32)
    found = linear_accuracy(train, val)
    assert 50 < found <= 100
    other = linear_accuracy(*(Split(x.features * units, x.labels) for x in (train, val)))
    assert other == pytest.approx(found, abs=2)


def test_another_precision_has_other_features(tmp_path: Path) -> None:
    weights = tmp_path / "w.ckpt"
    weights.write_bytes(b"weights")
    images = ArrayImages(tmp_path, ["a"], np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32))
    config = replace(parse_args([], PredictRun), pretrained=str(weights))
    given = [{}, {"amp_level": "O2"}, {"amp_dtype": "bfloat16"}, {"device_target": "GPU"}]
    assert len({features_key(replace(config, **more), images) for more in given}) == len(given)
    assert features_key(config, images) == features_key(replace(config, num_classes=7), images)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pynative: None) -> Path:
    """A folder of images that differ in brightness, two checkpoints, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for name, level in (("dark", 60), ("light", 180)):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 40, level + 40, (20, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["--arch", "cct_2_3x2_32", "--image_size", "16", "--num_classes", "3"]
    for number, name in enumerate(("good", "blind")):
        network = load_rule_weights(
            create_model("cct_2_3x2_32", num_classes=3, img_size=16, **_keywords())
        )
        if number:  # it gives every image the same features
            for parameter in network.get_parameters():
                if parameter.name == "tokenizer.conv_layers.0.0.weight":
                    parameter.set_data(parameter * 0)
        recipe = to_yaml(parse_args([*words, "--model_args", LAYERS, "--crop_pct", "1.0"]))
        record = {"arch": "cct_2_3x2_32", "num_classes": 3, "config": recipe}
        save_checkpoint(tmp_path / f"{name}.ckpt", network.get_parameters(), record)
    return tmp_path


def _keywords() -> Dict[str, Any]:
    return dict(parse_args(["--model_args", LAYERS]).model.model_args)


def words(place: Path, *more: str) -> List[str]:
    files = [str(place / f"{name}.ckpt") for name in ("blind", "good")]
    return [
        "--weights",
        *files,
        "--data_url",
        str(place / "images"),
        "--k",
        "3",
        "--mode",
        "pynative",
        *more,
    ]


def scores(path: Path) -> List[Dict[str, str]]:
    """The rows of a table, but for the seconds."""
    with path.open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_the_table_and_the_cache(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, files = script("knn"), [place / f"{number}.csv" for number in range(3)]
    assert program.main(words(place, "--output", str(files[0]))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == [
        "weights",
        *(str(place / f"{name}.ckpt") for name in ("good", "blind")),
    ]
    with files[0].open(newline="") as file:
        good, blind = csv.DictReader(file)
    assert float(good["linear"]) == float(good["knn"]) == 100
    assert float(blind["linear"]) == float(blind["knn"]) == 50
    assert float(good["logme"]) > float(blind["logme"])
    assert (good["features"], good["image_size"]) == ("16", "16")
    cached = sorted((place / "cache").rglob("*.npz"))
    assert len(cached) == 4
    times = [path.stat().st_mtime_ns for path in cached]
    assert program.main(words(place, "--output", str(files[1]))) == 0
    assert [path.stat().st_mtime_ns for path in cached] == times
    assert scores(files[0]) == scores(files[1])
    # Another image, other weights or a damaged file are noticed.
    os.utime(next((place / "images" / "val" / "dark").iterdir()), (1, 1))
    cached[0].write_bytes(b"damaged")
    assert program.main(words(place, "--output", str(files[2]))) == 0
    assert len(list((place / "cache").rglob("*.npz"))) == 6
    assert scores(files[2]) == scores(files[0])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--k", "0"], "k 0: expected 1 or more"),
        (["--pretrained", "x.ckpt"], "pretrained 'x.ckpt': give it as --weights"),
        (["--output", "x.txt"], "expected a .csv file"),
        (["--data_url", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(
    more: List[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failure(capsys, script("knn"), [*words(place), *more])


def test_what_is_missing_is_said_before_any_work(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = script("knn")
    monkeypatch.setattr(program, "score", None)  # not called
    given = [*words(place), "--output", str(place / "t.csv")]
    at = given.index("--weights") + 1
    assert "gone.ckpt" in failure(
        capsys, program, [*given[:at], str(place / "gone.ckpt"), *given[at:]]
    )
    for split in ("train", "val"):
        shutil.rmtree(place / "images" / split / "light")
    said = failure(capsys, program, given)
    assert "has images of one class" in said
    assert "give two classes or more" in said


def test_without_data_or_scikit_learn(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = ["--weights", str(place / "good.ckpt")]
    assert "data_url: not given" in failure(capsys, script("knn"), weights)
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    message = failure(capsys, script("knn"), words(place))
    assert "needs scikit-learn; pip install 'scikit-learn>=1.4,<2'" in message
