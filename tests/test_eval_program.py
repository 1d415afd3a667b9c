"""eval.py: what it takes from the weights, and where it leaves the scores."""

from __future__ import annotations

import csv
import errno
import json
import logging
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
import pytest
from digits_run import failure
from mindspore import Parameter
from PIL import Image
from test_data_idx import content, write_idx

import eval as eval_program
import export as export_program
import predict as predict_program
from src.args import EvalRun, parse_args, replace, to_yaml
from src.checkpoints.checkpoint import save_checkpoint
from src.checkpoints.complete_config import complete_by_checkpoint
from src.checkpoints.saved_record import SavedRecord
from src.data.idx import SETS
from src.errors import UserError
from src.report.evaluation_file import evaluation_name, write_evaluation
from src.report.score_table import ScoreTable
from src.runtime import collectives
from src.runtime.ranks import World
from src.trainer.build import build_network
from src.trainer.metrics import EvalResult, wilson_interval

RECIPE = """\
arch: cct_2_3x2_32
image_size: 16
num_classes: 3
model_args: {num_layers: 1, n_conv_layers: 1}
crop_pct: 1.0
mean: [0.5, 0.5, 0.5]
"""
NAMES = ["a", "b", "c"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`run/best.ckpt`, trained on `data` as its recipe says; the working folder is elsewhere."""
    for name in NAMES:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for index in range(4):
            grey = np.full((16, 16, 3), 40 * NAMES.index(name) + index, np.uint8)
            Image.fromarray(grey).save(folder / f"{index}.png")
    write_weights(tmp_path / "run" / "best.ckpt", data_url=str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write_weights(path: Path, names: Sequence[str] = NAMES, **more: Any) -> None:
    """A fresh network of RECIPE that says what a run's checkpoint says."""
    recipe = path.parent.parent / "tiny.yaml"
    recipe.write_text(RECIPE)
    given = {"val_share": 0.25, "exif_orientation": True, **more}
    config = replace(parse_args(["--config", str(recipe)]), **given)
    parameters = [Parameter(p, name=p.name) for p in build_network(config).get_parameters()]
    path.parent.mkdir(exist_ok=True)
    model = {"arch": config.model.arch, "num_classes": len(names), "class_names": list(names)}
    save_checkpoint(path, parameters, {**model, "config": to_yaml(config)})


def printed(program: Any, words: List[str], capsys: pytest.CaptureFixture[str]) -> Dict[str, str]:
    """Key -> `value  # origin` of --print_config."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        program.main([*words, "--print_config"])
    assert ended.value.code == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] not in ("", "#")]
    return dict(line.split(": ", 1) for line in lines)


# --- what is taken from the weights ---------------------------------------------------------------


def test_nothing_but_the_weights_is_needed(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = root / "run" / "best.ckpt"
    with caplog.at_level(logging.INFO):
        assert eval_program.main(["--pretrained", str(path)]) == 0
    assert "images 3 " in capsys.readouterr().out  # the one of four that was set aside
    assert f"data of the weights: ImageNet {root / 'data'}" in caplog.text


def test_data_that_is_gone_is_said_with_who_named_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "data").rename(root / "elsewhere")
    words = ["--pretrained", str(root / "run" / "best.ckpt")]
    message = failure(capsys, eval_program, words)
    assert message == (
        f"error: data_url '{root / 'data'}': {root}/run/best.ckpt was trained on it, but it is not "
        "here; give --data_url"
    )
    assert eval_program.main([*words, "--data_url", str(root / "elsewhere")]) == 0


def test_pictures_are_predicted_as_the_report_says_of_the_set(root: Path) -> None:
    write_idx(root / "fashion")
    given = {"set": "FashionMNIST", "data_url": str(root / "fashion"), "num_classes": 10}
    path, names = root / "run" / "fashion.ckpt", SETS["FashionMNIST"].class_names
    write_weights(path, names, **given)
    assert eval_program.main(["--pretrained", str(path), "--report", str(root / "report")]) == 0
    rows = list(csv.DictReader((root / "report" / "images.csv").open()))
    images, labels = content("t10k")
    assert [row["label"] for row in rows] == [names[label] for label in labels]
    assert "<td>T-shirt/top</td>" in (root / "report" / "report.html").read_text()
    (root / "pictures").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / "pictures" / f"{number:02d}.png")
    words = ["--pretrained", str(path), "--input", str(root / "pictures"), "--top_k", "1"]
    table = root / "predicted.csv"
    assert predict_program.main([*words, "--output", "csv", "--output_file", str(table)]) == 0
    found = [(row["name"], float(row["probability"])) for row in csv.DictReader(table.open())]
    for (name, probability), row in zip(found, rows):
        assert name == row["predicted"]
        assert probability == pytest.approx(float(row["confidence"]), abs=1e-6)
    assert len(found) == len(rows) == len(images)


def test_the_set_that_is_gone_is_said_with_where_it_comes_from(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "run" / "fashion.ckpt"
    write_weights(path, set="FashionMNIST", data_url=str(root / "gone"))
    message = failure(capsys, eval_program, ["--pretrained", str(path)])
    assert f"data_url '{root / 'gone'}': {path} was trained on it, but it is not here" in message
    assert "`apt-get install dataset-fashion-mnist`" in message


def test_a_folder_of_another_kind_is_not_taken_for_the_trained_kind(tmp_path: Path) -> None:
    (tmp_path / "packed" / "val").mkdir(parents=True)
    (tmp_path / "packed" / "val" / "manifest.json").touch()

    def set_of(trained: str, *words: str) -> str:
        recipe = to_yaml(replace(parse_args([]), set=trained, data_url="x"))
        given = parse_args(list(words), EvalRun)
        return complete_by_checkpoint(given, SavedRecord(config=recipe), path="x.ckpt").data.set

    assert set_of("MindRecord") == "MindRecord"
    assert set_of("MindRecord", "--data_url", str(tmp_path / "packed")) == "MindRecord"
    assert set_of("MindRecord", "--data_url", str(tmp_path)) == "ImageNet"
    assert set_of("Digits", "--data_url", str(tmp_path)) == "ImageNet"
    assert set_of("Digits", "--data_url", str(tmp_path / "new")) == "Digits"
    assert set_of("CIFAR10", "--data_url", str(tmp_path)) == "CIFAR10"
    assert set_of("FashionMNIST", "--data_url", str(tmp_path)) == "FashionMNIST"
    assert set_of("CIFAR10", "--data_url", str(tmp_path), "--set", "ImageNet") == "ImageNet"


@pytest.mark.parametrize(
    ("program", "words"),
    [(eval_program, []), (export_program, []), (predict_program, ["--input", "x.png"])],
)
def test_print_config_shows_what_the_weights_settle(
    root: Path, capsys: pytest.CaptureFixture[str], program: Any, words: List[str]
) -> None:
    path = root / "run" / "best.ckpt"
    given = ["--pretrained", str(path), "--mean", "0.1", "0.1", "0.1"]
    shown = printed(program, [*given, *words], capsys)
    assert shown["image_size"] == f"16  # {path}"
    assert shown["num_classes"] == f"3  # {path}"
    assert shown["crop_pct"] == f"1.0  # {path}"
    assert shown["exif_orientation"] == f"true  # {path}"
    assert shown["data_url"] == f"{root / 'data'}  # {path}"
    assert shown["mean"] == "[0.1, 0.1, 0.1]  # command line"
    assert shown["epochs"] == "300  # default"


def test_print_config_needs_no_weights_but_those_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(eval_program, [], capsys)["image_size"] == "0  # default"
    with pytest.raises(SystemExit) as ended:
        eval_program.main(["--pretrained", "gone.ckpt", "--print_config"])
    assert ended.value.code == 2
    assert "gone.ckpt" in capsys.readouterr().err


# --- where the scores go --------------------------------------------------------------------------


def test_scores_go_beside_the_weights_and_nowhere_else(root: Path) -> None:
    recipe = root / "other.yaml"
    recipe.write_text(f"{RECIPE}train_url: {root}/other_run\n")
    words = ["--pretrained", str(root / "run" / "best.ckpt"), "--config", str(recipe)]
    assert eval_program.main([*words, "--data_url", str(root / "data"), "--val_share", "0.25"]) == 0
    assert not list((root / "work").iterdir())
    assert not (root / "other_run").exists()
    scores = json.loads((root / "run" / "eval_best_data_val.json").read_text())
    assert (scores["kind"], scores["version"], scores["images"]) == ("evaluation", 1, 3)


def test_another_evaluation_of_that_name_gets_a_number(root: Path) -> None:
    # The second is the first, by another path.
    for folder, share in ((root, "0.25"), (Path(".."), "0.25"), (root, "0.5")):
        words = ["--pretrained", str(folder / "run" / "best.ckpt"), "--val_share", share]
        assert eval_program.main([*words, "--data_url", str(folder / "data")]) == 0
    files = {p.name: json.loads(p.read_text())["images"] for p in (root / "run").glob("eval_*")}
    assert files == {"eval_best_data_val.json": 3, "eval_best_data_val_2.json": 6}


def test_names_say_what_was_evaluated(tmp_path: Path) -> None:
    def name(source: str, data_url: str, weights: str = "raw") -> str:
        return evaluation_name(Path(source), weights=weights, data_url=data_url)

    assert name("run/best.ckpt", "data/digits") == "eval_best_digits_val"
    assert name("run/best.ckpt", "data/digits/", "ema") == "eval_best_ema_digits_val"
    assert name("net.mindir", "/data/with space/数:x") == "eval_net.mindir_数-x_val"
    assert name("best.ckpt", "/") == "eval_best_val"
    (tmp_path / "x.json").write_text("somebody else's")
    assert write_evaluation(tmp_path, "x", {"top1": 1.0}).name == "x_2.json"
    assert write_evaluation(tmp_path, "x", {"top1": 1.0}).name == "x_2.json"
    assert (tmp_path / "x.json").read_text() == "somebody else's"


def test_weights_in_a_folder_nobody_may_write_are_scored_all_the_same(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("src.report.evaluation_file.write_whole", refuse)
    words = ["--pretrained", str(root / "run" / "best.ckpt")]
    assert eval_program.main(words) == 0
    assert capsys.readouterr().out.startswith("top-1 ")
    assert "no file of the scores ([Errno 30] Read-only file system" in caplog.text
    assert "--train_url gives it a folder" in caplog.text
    given = [*words, "--train_url", str(root / "scores")]
    assert "train_url" in failure(capsys, eval_program, given)


# --- several checkpoints --------------------------------------------------------------------------


def test_several_checkpoints_are_scored_into_one_table(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = str(root / "data")
    # Another architecture, another crop, and images of another size.
    other = {"arch": "cct_4_3x2_32", "crop_pct": 0.9, "image_size": 8, "val_share": 0.5}
    write_weights(root / "other" / "best.ckpt", data_url=data, **other)
    whole = (root / "run" / "best.ckpt").read_bytes()
    for name, copied in (("broken", whole[:-9]), ("third", whole)):
        (root / name).mkdir()
        (root / name / "best.ckpt").write_bytes(copied)
    table = root / "scores.csv"
    words = ["--pretrained", str(root / "*" / "best.ckpt"), "--results_file", str(table)]
    message = failure(capsys, eval_program, words)
    assert "1 of 4 files have no scores" in message
    assert f"{root}/broken/best.ckpt" in message
    rows = list(csv.DictReader(table.open()))
    assert {Path(row["checkpoint"]).parent.name for row in rows} == {
        *("run", "other", "third", "broken")
    }
    *scored, broken = rows
    assert (broken["checkpoint"], broken["top1"]) == (f"{root}/broken/best.ckpt", "")
    assert "damaged" in broken["error"]
    assert f"broken/best.ckpt: no scores: {broken['error']}" in caplog.text
    assert [float(row["top1"]) for row in scored] == sorted(
        (float(row["top1"]) for row in scored), reverse=True
    )
    for row in scored:
        beside = Path(row["checkpoint"]).with_name("eval_best_data_val.json")
        alone = json.loads(beside.read_text())
        for key in ("arch", "images", "top1", "top5", "loss", "macro_recall"):
            assert row[key] == (alone[key] if key == "arch" else f"{alone[key]:.7g}"), key
        ends = [float(row[key]) for key in ("top1_low", "top1_high")]
        assert ends == pytest.approx(alone["top1_interval"], rel=1e-6)
    found = {Path(row["checkpoint"]).parent.name: row for row in scored}
    assert [found["other"][key] for key in other if key != "val_share"] == [
        *("cct_4_3x2_32", "0.9", "8")
    ]
    assert [found[name]["images"] for name in ("run", "other", "third")] == ["3", "6", "3"]
    assert found["run"]["loss"] == found["third"]["loss"]


def test_ranks_that_find_other_files_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    differs = [0.0]
    monkeypatch.setattr(
        collectives, "gather_from_ranks", lambda value, world: np.array([value, value + differs[0]])
    )
    world = World(rank=0, size=2)
    eval_program._check_same_files(["a.ckpt"], world)
    differs[0] = 1.0
    with pytest.raises(UserError, match=r"what pretrained names differs .* all hosts share"):
        eval_program._check_same_files(["a.ckpt"], world)
    eval_program._check_same_files(["a.ckpt"], World())


def test_the_table_on_the_screen_has_the_best_first(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ScoreTable(None)
    for name, top1 in (("a", 50.0), ("b", 75.0), ("c", float("nan"))):
        config = replace(parse_args([], EvalRun), pretrained=f"{name}.ckpt")
        table.add(config, EvalResult(top1, 100.0, 0.5, 40, 25.0))
    table.add_failure("d.ckpt", "why")
    head, *lines = table.text().splitlines()
    assert head.split() == "checkpoint arch top-1 % 95 % top-5 % macro % loss images".split()
    assert [line.split()[0] for line in lines] == ["b.ckpt", "a.ckpt", "c.ckpt"]
    low, high = wilson_interval(75.0, 40)
    assert f"75.000  {low:.2f} to {high:.2f}  100.000   25.000  0.5000      40" in lines[0]
    assert table.failures() == ["d.ckpt"]
    # A single one has the same file.
    path = str(root / "run" / "best.ckpt")
    assert eval_program.main(["--pretrained", path, "--results_file", "one.csv"]) == 0
    (row,) = csv.DictReader(Path("one.csv").read_text().splitlines())
    assert row["checkpoint"] == path
    assert capsys.readouterr().out.splitlines()[-1].startswith(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pretrained", "none*.ckpt"], "pretrained 'none*.ckpt': no file here matches"),
        (["--report", "report"], "report 'report': is of one checkpoint, and pretrained "),
        (["--results_file", "x.txt"], "results_file 'x.txt': expected a .csv file"),
        (["--results_file", "no/x.csv"], "results_file 'no/x.csv': no such folder"),
    ],
)
def test_several_checkpoints_refuse(
    words: List[str], said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--pretrained", str(root / "r*" / "best.ckpt"), *words]
    assert said in failure(capsys, eval_program, given)
    assert not list(Path.cwd().iterdir())
    assert not list((root / "run").glob("*.json"))
