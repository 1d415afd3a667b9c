"""report.html and README.md of a run: charts, recipe with origins, what must not stop it."""

from __future__ import annotations

import html
import json
import logging
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import yaml

from src.args import Config, parse_args, replace, to_yaml, with_values
from src.checkpoints.saved_record import Change, SavedRecord, parse_record
from src.runs import run_page as pages
from src.runs.charts import Mark, Series, line_chart, nice_step, thinned
from src.runs.markup import table, without_credentials
from src.runs.model_card import Card, data_name, model_card, write_card
from src.runs.run_page import RunStory, choice_bias, curves_section, run_page
from src.runs.style import STYLE
from src.runs.weights_page import choice_of, curves_of, origins_of, recipe_of
from src.trainer import run_report
from src.trainer.run_report import RunReport
from src.trainer.run_state import RunState

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=x>',
    "a: b\n---\nc",
    "猫 | `x`",
    "\\x",
]


def row(step: int, epoch: float, **values: object) -> Dict[str, str]:
    return {"step": str(step), "epoch": str(epoch), **{k: str(v) for k, v in values.items()}}


def lines_of(chart: str, kind: str) -> List[List[Tuple[float, float]]]:
    """The points of each line of a colour."""
    paths = re.findall(rf'<path class="{kind}" d="M([^"]+)"', chart)
    return [[tuple(map(float, p.split())) for p in path.split("L")] for path in paths]


# --- charts ---------------------------------------------------------------------------------------


def test_points_are_where_their_axes_say() -> None:
    chart = line_chart("Loss", [Series("training", [(0.0, 0.0), (5.0, 25.0), (10.0, 100.0)])])
    ((first, middle, last),) = lines_of(chart, "first")
    # The words of the axes: (x, y) of what stands at each value.
    ticks = re.findall(r'<text x="([0-9.]+)" y="([0-9.]+)"[^>]*>([0-9.]+)</text>', chart)
    across = {float(v): float(x) for x, y, v in ticks if float(y) > 210}
    up = {float(v): float(y) - 4 for x, y, v in ticks if float(y) <= 210}
    assert first == pytest.approx((across[0], up[0]), abs=0.11)
    assert last == pytest.approx((across[10], up[100]), abs=0.11)
    assert middle == pytest.approx((across[5], up[0] + 0.25 * (up[100] - up[0])), abs=0.11)


@pytest.mark.parametrize(
    ("least", "step"), [(1.0, 1.0), (1.01, 2.0), (3e-4, 5e-4), (6.0, 10.0), (0.02, 0.02)]
)
def test_steps_are_round(least: float, step: float) -> None:
    assert nice_step(least) == pytest.approx(step)


@pytest.mark.parametrize("points", [[(1.0, 3.0)], [(1.0, 0.0), (2.0, 0.0)], [(0.0, 1e-9)]])
def test_a_chart_of_one_value_is_a_chart(points: List[Tuple[float, float]]) -> None:
    chart = line_chart("Loss", [Series("x", points, has_dots=True)])
    assert chart.count("<circle") == len(points)
    assert "nan" not in chart


def test_thinning_keeps_what_sticks_out() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[5_003], points[7] = (5_003.0, 9.0), (7.0, -9.0)
    found = thinned(points)
    assert len(found) <= 402
    assert {points[0], points[7], points[5_003], points[-1]} <= set(found)
    assert found == sorted(found)


def test_a_chart_says_in_words_what_it_shows() -> None:
    chart = line_chart("Loss", [Series("a<b", [(0.0, 2.0), (1.0, 0.5), (2.0, 0.75)])])
    words = html.unescape(chart[chart.index("<desc") : chart.index("</desc>")])
    assert "a<b: from 2 at epoch 0 to 0.75 at epoch 2, lowest 0.5, highest 2." in words
    assert 'role="img"' in chart
    assert "<b:" not in chart


def test_what_is_not_finite_is_left_out_and_said() -> None:
    rows = [row(1, 0.5, loss=2.0), row(2, 1.0, loss="nan"), row(3, 1.5, loss="inf")]
    body = curves_section([*rows, row(4, 2.0, loss=1.0)]).body
    assert [len(line) for line in lines_of(body, "first")] == [2]
    assert "2 of 4 values are inf or NaN and left out" in body


def test_a_resume_with_another_rate_is_marked() -> None:
    rows = [row(step, step / 10, loss=1.0 / step, lr=0.1) for step in range(1, 41)]
    change = Change(20, ["base_lr 0.1 -> 0.01"])
    body = curves_section(rows, [change]).body
    assert "1: resumed at step 20: base_lr 0.1 -&gt; 0.01" in body
    (place, *_) = re.findall(r'<path class="mark" d="M([0-9.]+)', body)
    (line, *_) = lines_of(body, "first")
    assert float(place) == pytest.approx(line[19][0], abs=0.11)
    assert "resumed" not in curves_section(rows).body
    outside = line_chart("x", [Series("x", [(0.0, 1.0), (1.0, 2.0)])], marks=[Mark(7.0, "later")])
    assert "later" not in outside


# --- the page -------------------------------------------------------------------------------------


def story(config: Config, rows: Any = (), **values: Any) -> RunStory:
    return RunStory(config, list(rows), ["the first line"], 4, 8, **values)


def test_the_page_has_the_recipe_with_the_origin_of_every_value() -> None:
    config = with_values(Config(), {"base_lr": 0.125}, origin="/home/me/recipes/mine.yaml:7")
    page = run_page(story(config), folder="outputs/x")
    assert "<td>base_lr</td><td>0.125</td><td>mine.yaml:7</td>" in page
    assert "/home/me" not in page
    cells = set(re.findall(r"<tr><td>(\w+)</td>", page))
    assert set(config.flat()) <= cells
    assert f"{len(config.flat()) - 1} keys at their defaults" in page
    assert "python eval.py --pretrained outputs/x/best.ckpt --report outputs/x/report" in page


def test_the_page_says_how_far_the_run_is() -> None:
    rows = [row(4, 1.0, loss=0.5, lr=0.1), row(4, 1, val_loss=1.5, top1=62.5, top5=90.0)]
    config = replace(Config(), data_url="/home/me/flowers")
    page = run_page(story(config, rows, best_top1=62.5, best_epoch=1), folder="x")
    assert "training on flowers" in page
    assert "under way" in page
    assert "<dt>best top-1</dt><dd>62.500 %<small>raw weights, epoch 1" in page
    assert "<dt>steps</dt><dd>4<small>of 8" in page
    assert '<td class="n">62.500</td><td class="n">90.000</td><td class="n">1.5000</td>' in page


def test_the_page_has_the_score_that_decided_and_says_that_a_run_stopped() -> None:
    config = replace(Config(), best_metric="loss")
    facts = {"best_top1": 62.5, "best_score": 0.75, "best_epoch": 1, "has_stopped": True}
    page = run_page(story(config, [row(4, 1, val_loss=0.75, top1=62.5)], **facts), folder="x")
    assert "<dt>best loss</dt><dd>0.7500<small>raw weights, epoch 1, best of 1" in page
    assert "<dt>its top-1</dt><dd>62.500 %<small>in that epoch" in page
    assert "stopped early" in page
    assert "under way" not in page


def test_weights_that_scores_have_chosen_say_so(tmp_path: Path) -> None:
    config = replace(Config(), data_url=str(tmp_path / "data"))
    record = SavedRecord(config=to_yaml(config), step=8, names=["best.ckpt", "epoch_002.ckpt"])
    rows = [row(4, epoch, top1=60.0 + epoch) for epoch in (1, 2, 3)]
    page = run_page(story(config, rows, best_top1=63.0, best_epoch=3), folder="x")
    assert "best.ckpt is the best of 3 evaluations of its run on these images." in page
    assert "raw weights, epoch 3, best of 3<" in page
    assert "too high on average" not in run_page(story(config, rows[:1]), folder="x")
    (tmp_path / "metrics.csv").write_text("step,epoch,top1\n4,1,60.5\n8,2,62.5\n")
    for name, is_chosen in (("best", True), ("copy", True), ("last", False), ("epoch_002", False)):
        said = choice_of(record, tmp_path / f"{name}.ckpt", config)
        assert said == (choice_bias(2) if is_chosen else "")
    for other in ({"data_url": str(tmp_path / "test_images")}, {"val_list": "test.csv"}):
        assert choice_of(record, tmp_path / "best.ckpt", replace(config, **other)) == ""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://me:word@host/data", "https://host/data"),
        ("'s3://bucket/x?X-Signature=abc&y=1'", "'s3://bucket/x'"),
        ("obs://bucket/x", "obs://bucket/x"),
        ("what?", "what?"),
    ],
)
def test_what_opens_a_door_is_not_sent_round(given: str, shown: str) -> None:
    assert without_credentials(given) == shown


def test_a_table_can_be_scrolled_by_key_and_escapes() -> None:
    found = table(("name", "n"), [(HOSTILE[0], "1.5"), ("b", "-")], label=HOSTILE[1])
    assert 'tabindex="0" role="region"' in found
    assert "<script" not in found
    assert "<img" not in found
    assert '<td class="n">1.5</td>' in found


def luminance(colour: str) -> float:
    """WCAG 2.1, relative luminance of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [s / 12.92 if s <= 0.03928 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_texts_and_lines_stand_out_in_light_and_dark(scheme: int) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1 for text; 1.4.11: 3 to 1 for lines of charts."""
    block = re.findall(r":root\{[^}]*\}", STYLE)[scheme]
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", block))

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "soft", "bad", "first", "mark"):
        assert contrast(text, "paper") >= 4.5, text
    for text in ("ink", "soft"):
        assert contrast(text, "raised") >= 4.5, text
    for line in ("second", "third"):
        assert contrast(line, "paper") >= 3, line


# --- of weights -----------------------------------------------------------------------------------


def test_origins_come_from_the_runs_config_where_it_agrees(tmp_path: Path) -> None:
    config = with_values(Config(), {"base_lr": 0.5, "seed": 7}, origin="mine.yaml:3")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config, with_origins=True))
    assert origins_of(config, path)["base_lr"] == "mine.yaml:3"
    other = replace(config, seed=8)
    found = origins_of(other, path)
    assert (found["base_lr"], found["seed"]) == ("mine.yaml:3", "the checkpoint")
    missing = origins_of(config, tmp_path / "none")
    assert (missing["seed"], missing["epochs"]) == ("the checkpoint", "default")


def test_weights_that_no_run_made_have_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,loss,lr\n1,0.5,2.0,0.1\n")
    config = to_yaml(Config())
    of_run, converted = SavedRecord(step=1, config=config), SavedRecord(config=config)
    path = tmp_path / "x.ckpt"
    assert [s.title for s in curves_of(of_run, path)] == ["Curves"]
    assert len(recipe_of(of_run, path)) == 1
    assert curves_of(converted, path) == recipe_of(converted, path) == []
    (tmp_path / "metrics.csv").write_text("step,epoch\nx,y\n")
    assert curves_of(of_run, path) == []


# --- what must not stop a run ---------------------------------------------------------------------


def report(folder: Path) -> RunReport:
    (folder / "metrics.csv").write_text("step,epoch,top1,top5,val_loss\n4,1,62.5,90.0,1.5\n")
    config = parse_args(["--arch", "cct_2_3x2_32", "--set", "Digits"])
    return RunReport(config, folder, total_steps=8, class_names=["a", "b"], val_images=40)


def test_the_report_and_the_card_are_written(tmp_path: Path) -> None:
    report(tmp_path).write(RunState(step=4, best_top1=62.5, best_epoch=1))
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.csv", "report.html", "README.md"}
    assert "value: 62.5000" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyError("x"), ValueError("y")])
def test_a_report_that_fails_costs_a_line(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "report.html").write_text("before")

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(run_report, "run_page", fail)
    report(tmp_path).write(RunState(step=4))
    assert "report.html cannot be written" in caplog.text
    assert (tmp_path / "report.html").read_text() == "before"


def test_a_folder_in_the_way_costs_a_line(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "report.html").mkdir()
    report(tmp_path).write(RunState(step=4))
    assert "report.html cannot be written" in caplog.text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_changes_live_in_the_checkpoint() -> None:
    state = RunState(step=20)
    state.note([])
    assert state.changes is None
    state.note(["base_lr 0.1 -> 0.01"])
    record = state.as_record(
        Config(),
    )
    assert record.as_json()["changes"] == [{"step": 20, "what": ["base_lr 0.1 -> 0.01"]}]
    read = parse_record(json.dumps(record.as_json()).encode(), Path("x.ckpt"))
    assert RunState.from_record(read) == state


# --- the model card -------------------------------------------------------------------------------

SCORES = {"Top-1 accuracy (%)": 62.5, "Top-5 accuracy (%)": 90.0, "Loss": 1.5}


def card(**values: Any) -> Card:
    known: Dict[str, Any] = {"arch": "cct_2_3x2_32", "weights": "best.ckpt", "image_size": 32}
    known.update(data="Digits", class_names=["a", "b"], scores=SCORES)
    return Card(**{**known, **values})


def front_matter(text: str) -> Dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_the_scores_from_the_card(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_card(tmp_path, card(licence="apache-2.0"))
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name) == ("apache-2.0", "mindspore")
    assert data.pipeline_tag == "image-classification"
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {"Top-1 accuracy (%)": 62.5, "Top-5 accuracy (%)": 90.0}
    assert {result.dataset_name for result in data.eval_results} == {"Digits"}
    assert {result.task_type for result in data.eval_results} == {"image-classification"}


def test_modelscope_finds_its_keys() -> None:
    found = front_matter(model_card(card()))
    assert found["tasks"] == ["image-classification"]
    assert found["frameworks"] == ["mindspore"]
    assert found["domain"] == ["cv"]
    assert "license" not in found  # nobody said it


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_a_part_of_the_card(name: str) -> None:
    text = model_card(card(arch=name, data=name, class_names=[name], weights=name, licence=name))
    assert set(front_matter(text)) == set(front_matter(model_card(card())))
    body = text.split("---\n\n", 1)[1]
    assert not re.search(r"(?<!\\)<", body)
    assert body.count("\n# ") == 0
    assert body.startswith("# ")


def test_scores_that_are_no_numbers_are_left_out() -> None:
    text = model_card(card(scores={"Top-1 accuracy (%)": float("nan"), "Loss": float("inf")}))
    assert "model-index" not in front_matter(text)
    assert "None were measured" in text


def test_a_card_that_a_person_changed_is_left_alone(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "README.md"
    assert write_card(tmp_path, card())
    assert write_card(tmp_path, card(arch="other"))
    assert "# other" in path.read_text()
    for changed in (path.read_text().replace("# other", "# mine"), "my notes\n"):
        path.write_text(changed)
        with caplog.at_level(logging.INFO):
            assert not write_card(tmp_path, card())
        assert path.read_text() == changed
    assert "somebody's own, and left alone" in caplog.text


def test_the_card_does_not_say_where_the_data_lies() -> None:
    assert data_name("ImageNet", "/home/me/flowers/") == "flowers"
    assert data_name("MindRecord", "/home/me/flowers_packed") == "flowers_packed"
    assert data_name("Digits", "/home/me/digits") == "Digits"


def test_the_page_is_of_a_time() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", pages.now())
