"""eval.py --report and compare_reports.py: numbers against scikit-learn and statsmodels, the page
in a browser.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, List, Set

import numpy as np
import pytest
from digits_run import failure, words
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score
from test_scripts import script

import eval as eval_program
import train as train_program
from src.report.outcomes import Collector, Outcomes, real_accuracy, write_outcomes
from src.report.page import write_report
from src.runtime.text import printable
from src.trainer.metrics import EvalResult

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RESULT = EvalResult(50.0, 90.0, 1.0, 400)


def outcomes(classes: int = 6, *, seed: int = 0, images: int = 400) -> Outcomes:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes - 1, images)  # the last class has no image
    predicted = np.where(rng.random(images) < 0.6, label, rng.integers(0, classes, images))
    confidence = rng.uniform(0.2, 1.0, images)
    names = [f"class <{i}>" for i in range(classes)]
    files = [f"c/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(images)]
    return Outcomes("raw", RESULT, files, label, predicted, confidence, names)


def test_classes_and_confusion_are_scikit_learns() -> None:
    found = outcomes()
    classes = range(6)
    due = confusion_matrix(found.label, found.predicted, labels=classes)
    np.testing.assert_array_equal(found.confusion(), due)
    count, accuracy = found.per_class()
    recall = recall_score(found.label, found.predicted, labels=range(5), average=None)
    np.testing.assert_allclose(accuracy[:5], 100 * recall)
    assert count[5] == 0
    assert np.isnan(accuracy[5])
    wrong = due - np.diag(np.diag(due))
    first = found.worst_pairs(4)[0]
    assert first[2] == wrong.max()
    assert sum(pair[2] for pair in found.worst_pairs(99)) == wrong.sum()


def test_calibration_by_hand() -> None:
    # Two bins: (0.6, 0.667] with 1 of 2 right, (0.933, 1] with 2 of 2.
    label, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    confidence = np.array([0.62, 0.64, 1.0, 0.95])
    found = Outcomes("raw", RESULT, list("abcd"), label, predicted, confidence, ["x", "y"])
    calibration = found.calibration()
    assert calibration.images.tolist() == [0] * 9 + [2] + [0] * 4 + [2]
    assert calibration.ece == pytest.approx(0.5 * abs(0.5 - 0.63) + 0.5 * abs(1 - 0.975))


def test_the_collector_keeps_the_most_confident_mistakes() -> None:
    collector = Collector(keep=2)
    logits = np.array([[3.0, 0], [9, 0], [6, 0], [0, 1], [9, 9]], np.float32)
    label = np.array([1, 1, 1, 1, -1])
    image = np.arange(5)[:, None, None, None] * np.ones((1, 2, 2, 3))
    collector.add(logits, label, image.astype(np.uint8))
    collector.add(logits[:1] * 3, label[:1], image[:1].astype(np.uint8) + 7)
    assert [(index, picture[0, 0, 0]) for _, index, picture in collector.mistakes] == [
        (1, 1),
        (4, 7),
    ]
    gathered = collector.outcomes("raw", RESULT, "abcdef".__getitem__, ["x", "y"])
    assert gathered.images == list("abcdf")
    assert gathered.label.tolist() == [1, 1, 1, 1, 1]
    assert gathered.predicted.tolist() == [0, 0, 0, 1, 0]


def test_real_labels(tmp_path: Path, capsys: Any) -> None:
    found = outcomes(images=4)
    accepted: List[List[int]] = [[int(found.predicted[0])], [], [99], [int(found.predicted[3]), 7]]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(accepted))
    assert real_accuracy(found, path) == (pytest.approx(200 / 3), 3)
    path.write_text("[]")
    with pytest.raises(ValueError, match="JSON list of ReaL"):
        real_accuracy(found, path)


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run on the digits, with averaged weights."""
    root = tmp_path_factory.mktemp("report")
    given = words(root / "digits", root / "run", "--with_ema", "True", "--ema_decay", "0.9")
    assert train_program.main([*given, "--eval_every", "0"]) == 0
    best = ["--pretrained", str(root / "run" / "last.ckpt"), "--report", str(root / "report")]
    assert eval_program.main([*given, *best]) == 0
    return root / "report"


def test_the_report_says_what_eval_says(report: Path) -> None:
    content = json.loads((report / "report.json").read_text())
    raw, ema = content["results"]
    beside = json.loads((report.parent / "run" / "eval_last_digits_val.json").read_text())
    assert (content["kind"], beside["kind"]) == ("report", "evaluation")
    assert (raw["weights"], ema["weights"]) == ("raw", "ema")
    assert raw["top1"] == beside["top1"]
    assert raw["top1"] != ema["top1"]
    rows = (report / "images.csv").read_text().splitlines()[1:]
    assert len(rows) == 360
    assert 100 * sum(row.endswith(",1") for row in rows) / 360 == pytest.approx(raw["top1"])
    assert sum(c["images"] * c["top1"] for c in raw["classes"]) / 360 == pytest.approx(raw["top1"])
    for name in ("confusion", "reliability", "mistakes"):
        with Image.open(report / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 10


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    page = (report / "report.html").read_text()
    links = re.findall(r"(?:src|href)=\"([^\"]{0,12})", page)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
def test_the_page_renders_in_a_browser(report: Path, tmp_path: Path) -> None:
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --enable-logging=stderr --disable-background-networking --disable-sync"
    flags += " --disable-component-update"
    picture = tmp_path / "page.png"
    shot = [f"--screenshot={picture}", "--window-size=1200,2600", f"--user-data-dir={tmp_path}/u"]
    command = [str(CHROMIUM), *flags.split(), *shot, (report / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    assert (pixels.std(axis=1) > 3).mean() > 0.4  # rows with something on them


# What a page that does not escape would do with them: run code, end its style or its head, load.
HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style><svg onload=document.title='owned'>",
    "{{constructor.constructor('document.title=1')()}}",
    "javascript:document.title='owned'",
    "</title></head><body onload=document.title='owned'>",
    "&lt;b&gt; &amp;quot; <!-- <![CDATA[",
    "\u202egnp\x1b[2J\x00",
]


class Elements(HTMLParser):
    """What a page consists of.

    Attributes:
        tags: names of elements with those of their attributes.
        cells: the text of each cell of a table.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Set[str] = set()
        self.cells: List[str] = []
        self._is_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: List[Any]) -> None:
        self.tags.add(" ".join([tag, *(name for name, _ in attrs)]))
        self._is_cell = tag == "td"
        self.cells += [""] if self._is_cell else []

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.cells[-1] += data


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
def test_no_name_becomes_a_part_of_the_page(tmp_path: Path) -> None:
    """As a browser has it after all scripts, images and styles that it found."""
    pages = {}
    for kind, names in (("good", list("abcdefgh")), ("hostile", HOSTILE)):
        label = np.arange(8)
        predicted, confidence = np.roll(label, 1), np.full(8, 0.9)
        found = Outcomes("raw", RESULT, names, label, predicted, confidence, names)
        facts = {"arch": names[0], "checkpoint": names[1], "data_url": names[5]}
        folder = tmp_path / kind
        folder.mkdir()
        page = write_report(folder, [(found, Collector(1))], facts=facts, real_labels=None)
        flags = f"--headless --no-sandbox --disable-gpu --dump-dom --user-data-dir={tmp_path}/u"
        command = [str(CHROMIUM), *flags.split(), page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        pages[kind] = Elements(done.stdout)
        assert "<title>owned" not in done.stdout
    assert pages["hostile"].tags == pages["good"].tags
    assert {*map(printable, HOSTILE)} <= {*pages["hostile"].cells}


def test_names_are_escaped_and_large_matrices_become_tables(tmp_path: Path) -> None:
    many = outcomes(classes=101)
    page = write_report(tmp_path, [(many, Collector(1))], facts={"arch": "a<b"}, real_labels=None)
    text = page.read_text()
    assert "class &lt;3&gt;" in text
    assert "<3>" not in text
    assert not (tmp_path / "confusion.png").exists()
    assert "Commonest mistakes" in text


def test_a_report_that_cannot_be_written_is_refused_before_work(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = report.parent
    given = words(root / "digits", root / "run", "--pretrained", str(root / "run" / "last.ckpt"))
    assert "report" in failure(capsys, eval_program, [*given, "--report", __file__])


# --- comparing ------------------------------------------------------------------------------------


def write_pair(tmp_path: Path, other: Outcomes) -> List[str]:
    for name, held in (("a", outcomes()), ("b", other)):
        (tmp_path / name).mkdir()
        write_outcomes(held, tmp_path / name / "images.csv")
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_mcnemar_is_statsmodels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    a = outcomes()
    rng = np.random.default_rng(5)
    predicted = np.where(rng.random(400) < 0.4, a.label, a.predicted)
    predicted = np.where(rng.random(400) < 0.05, (a.label + 1) % 5, predicted)
    b = Outcomes("raw", RESULT, a.images, a.label, predicted, a.confidence, a.class_names)
    given = write_pair(tmp_path, b)
    program = script("compare_reports")
    assert program.main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = confusion_matrix(a.correct, b.correct)
    due = mcnemar(table, exact=True)
    assert found["p_value"] == pytest.approx(due.pvalue, rel=1e-9)
    assert (found["better"], found["worse"]) == (table[0, 1], table[1, 0])
    assert found["b"]["top1"] == pytest.approx(100 * b.correct.mean())
    assert len(found["better_images"]) == found["better"]
    assert program.main(given) == 0
    text = capsys.readouterr().out
    assert f"McNemar p = {due.pvalue:.3g}: a difference" in text
    assert program.main([given[0], given[0]]) == 0
    assert "p = 1: no difference" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["missing", "images", "label", "damaged"])
def test_compare_refuses(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = outcomes(images=300 if kind == "images" else 400)
    label = (a.label + 1) % 5 if kind == "label" else a.label
    b = Outcomes("raw", RESULT, a.images, label, a.predicted, a.confidence, a.class_names)
    given = write_pair(tmp_path, b)
    path = tmp_path / "b" / "images.csv"
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    assert str(tmp_path / "b") in failure(capsys, script("compare_reports"), given)
