"""eval.py --report and compare_reports.py: numbers against scikit-learn and statsmodels, the page
in a browser.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from digits_run import STEPS_PER_EPOCH, failure, words
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, recall_score
from test_scripts import script

import eval as eval_program
import train as train_program
from src.errors import UserError
from src.report.figures import confusion_chart
from src.report.mistakes import mistakes_html, try_heat_maps
from src.report.outcomes import Collector, Outcomes, real_accuracy, write_classes, write_outcomes
from src.report.page import write_report
from src.runtime.text import printable
from src.trainer.metrics import EvalResult, wilson_interval

RESULT = EvalResult(50.0, 90.0, 1.0, 400)


def outcomes(classes: int = 6, *, seed: int = 0, images: int = 400) -> Outcomes:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes - 1, images)  # the last class has no image
    predicted = np.where(rng.random(images) < 0.6, label, rng.integers(0, classes, images))
    confidence = rng.uniform(0.2, 1.0, images)
    names = [f"class <{i}>" for i in range(classes)]
    files = [f"c/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(images)]
    return Outcomes("raw", RESULT, files, label, predicted, confidence, names)


def test_classes_and_confusion_are_scikit_learns(tmp_path: Path) -> None:
    found = outcomes()
    classes = range(6)
    due = confusion_matrix(found.label, found.predicted, labels=classes)
    np.testing.assert_array_equal(found.confusion(), due)
    count, accuracy = found.per_class()
    recall = recall_score(found.label, found.predicted, labels=range(5), average=None)
    np.testing.assert_allclose(accuracy[:5], 100 * recall)
    assert count[5] == 0
    assert np.isnan(accuracy[5])
    scores = found.of_classes()
    theirs = precision_recall_fscore_support(found.label, found.predicted, labels=range(5))
    np.testing.assert_allclose(scores.precision[:5], 100 * theirs[0])
    np.testing.assert_allclose(scores.recall[:5], 100 * theirs[1])
    np.testing.assert_allclose(scores.f1[:5], 100 * theirs[2])
    np.testing.assert_array_equal(scores.images[:5], theirs[3])
    np.testing.assert_array_equal(scores.predicted, due.sum(axis=0))
    write_classes(found, tmp_path / "classes.csv")
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert [row["class"] for row in rows] == found.class_names
    np.testing.assert_allclose([float(row["f1"]) for row in rows[:5]], 100 * theirs[2], rtol=1e-5)
    assert (rows[5]["images"], rows[5]["recall"]) == ("0", "")
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
    assert raw["top1_interval"] == beside["top1_interval"]
    shown = "{:.2f} to {:.2f}".format(*wilson_interval(raw["top1"], 360))
    page = (report / "report.html").read_text()
    assert f"<small>95 %: {shown}; raw weights</small>" in page
    assert f"<td>{shown}</td>" in page
    assert raw["top1"] != ema["top1"]
    rows = (report / "images.csv").read_text().splitlines()[1:]
    assert len(rows) == 360
    assert 100 * sum(row.endswith(",1") for row in rows) / 360 == pytest.approx(raw["top1"])
    assert sum(c["images"] * c["top1"] for c in raw["classes"]) / 360 == pytest.approx(raw["top1"])
    of_classes = [c["top1"] for c in raw["classes"] if c["images"]]
    assert raw["macro_top1"] == pytest.approx(np.mean(of_classes))
    assert raw["macro_top1"] != raw["top1"]
    assert content["epoch"] == f"2 ({2 * STEPS_PER_EPOCH} steps)"
    found = {path.name for path in report.iterdir()}
    assert found == {"report.html", "report.json", "images.csv", "classes.csv", "README.md"}
    assert f"value: {raw['top1']:.4f}" in (report / "README.md").read_text()


def test_the_page_shows_the_mistakes_and_where_the_network_looked(report: Path) -> None:
    page = (report / "report.html").read_text()
    sources = re.findall(r'<img[^>]* alt="([^"]*)" src="data:image/png;base64,([^"]*)"', page)
    assert len(sources) == 50
    kinds = [said.split()[0] for said, _ in sources]
    assert kinds == ["image", "where"] * 25
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(c)))) for _, c in sources]
    assert {p.shape for p in pixels} == {(16, 16, 3)}
    # Grey as the digits are, and coloured as heat is.
    assert all((p[..., 0] == p[..., 2]).all() for p in pixels[::2])
    assert all((p[..., 0] != p[..., 2]).any() for p in pixels[1::2])
    assert "attention rollout, 8 x 8 positions" in page
    assert 'class="scale soft"><span>least' in page


def test_heat_maps_are_of_the_mistakes_whatever_their_number() -> None:
    """Seven, five in a call."""
    found = outcomes()
    collector = Collector(keep=7)
    wrong = np.flatnonzero(~found.correct)[:7]
    collector.mistakes = [(0.9, int(i), np.full((8, 8, 3), i % 250, np.uint8)) for i in wrong]

    def method(image: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
        assert (len(image), classes) == (5, 6)
        return (image[:, :2, :2, 0].astype(float) * 10 + label[:, None, None]).astype(float)

    heat = try_heat_maps(lambda: ("it", method), found, collector)
    assert heat is not None
    assert heat.maps[:, 0, 0].tolist() == [10 * (i % 250) + found.predicted[i] for i in wrong]
    assert try_heat_maps(lambda: ("it", method), found, Collector(3)) is None


def test_a_single_position_and_a_failure_are_said(caplog: pytest.LogCaptureFixture) -> None:
    found, collector = outcomes(), Collector(keep=1)
    collector.mistakes = [(0.9, 0, np.zeros((8, 8, 3), np.uint8))]
    single = try_heat_maps(lambda: ("it", lambda i, *_: np.ones((5, 1, 1))), found, collector)
    said = mistakes_html(found, collector, single)
    assert "the last stage of this network has a single position" in said
    assert said.count("<img") == 1

    def fail() -> Any:
        raise UserError("heat_maps: 7 tokens are no square grid; use square images")

    assert try_heat_maps(fail, found, collector) is None
    assert "no heat maps in the report (heat_maps: 7 tokens" in caplog.text


def test_the_matrix_is_as_dark_as_the_share_of_its_row() -> None:
    matrix = np.array([[3, 1], [0, 0]])
    chart = confusion_chart(matrix, ["<a>", "b"])
    cells = re.findall(r'fill-opacity="([0-9.]+)"><title>([^<]*)</title>', chart)
    assert cells == [
        ("0.77", "true &lt;a&gt;, predicted &lt;a&gt;: 3"),
        ("0.31", "true &lt;a&gt;, predicted b: 1"),
    ]
    assert "3 of 4 images are on the diagonal" in chart


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    page = (report / "report.html").read_text()
    links = re.findall(r"(?:src|href)=\"([^\"]{0,12})", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "<script" not in page


def test_the_page_of_weights_has_their_run(report: Path) -> None:
    """Its curves, and its recipe with where every value came from."""
    page = (report / "report.html").read_text()
    assert "resumed" not in page
    assert page.count("<figure") == 5  # three of curves, the matrix, the calibration
    training = page[page.index('id="recipe-of-the-training"') : page.index('id="settings-of')]
    assert "<td>ema_decay</td><td>0.9</td><td>command line</td>" in training
    assert "<td>arch</td><td>cct_2_3x2_32</td><td>cct_2_3x2_32_digits.yaml:" in training


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Of an evaluation, of a run, and of 60 classes with long names without a place to break."""
    wide = tmp_path_factory.mktemp("wide")
    names = [f"{'猫' * 12}{'x' * 40}{number}" for number in range(60)]
    found = dataclasses.replace(outcomes(classes=60), class_names=names)
    facts = {"arch": "a" * 80, "checkpoint": "/x" * 90}
    collector = Collector(1)
    collector.mistakes = [(0.9, 0, np.zeros((224, 224, 3), np.uint8))]
    write_report(wide, [(found, collector)], facts=facts, real_labels=None)
    run = report.parent / "run" / "report.html"
    return {"evaluation": report / "report.html", "run": run, "wide": wide / "report.html"}


# What sticks out of the page, or of a box that does not scroll.
OUTSIDE = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width || element.closest(".skip")) return false;
  let scrolls = element.closest(".scroll, .wide, nav ul, pre");
  return !scrolls && (box.right > innerWidth + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 90))
"""
# Boxes that scroll and that no key can reach.
UNREACHABLE = """
[...document.querySelectorAll("body *")].filter(element =>
  element.scrollWidth > element.clientWidth + 1 && element.tabIndex < 0 &&
  getComputedStyle(element).overflowX === "auto" && !element.querySelector("a")
).map(element => element.outerHTML.slice(0, 90))
"""
# Sizes, in pixels of the screen, of the words of all charts that are seen.
WORDS_OF_CHARTS = """
[...document.querySelectorAll("svg text")].filter(text => text.closest("svg").clientWidth).map(
  text => parseFloat(getComputedStyle(text).fontSize) *
    text.closest("svg").clientWidth / text.closest("svg").viewBox.baseVal.width)
"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("kind", ["evaluation", "run", "wide"])
def test_the_page_fits_every_screen(
    kind: str, width: int, dark: bool, pages: Dict[str, Path], browser: Browser
) -> None:
    browser.open(pages[kind], width=width, dark=dark)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    if kind != "run":
        box = "document.querySelector('[aria-label=Scores]')"
        assert browser.value(f"{box}.scrollWidth <= {box}.clientWidth")
    assert browser.value(OUTSIDE) == []
    assert browser.value(UNREACHABLE) == []
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall("[0-9]+", background))) < 60) == dark
    if kind != "wide":
        assert min(browser.value(WORDS_OF_CHARTS)) >= 9
    assert browser.errors == []


@needs_browser
def test_the_page_is_used_by_keys(pages: Dict[str, Path], browser: Browser) -> None:
    browser.open(pages["evaluation"], width=820)
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.className") == "skip"
    left = browser.value("document.activeElement.getBoundingClientRect().left")
    assert left >= 0  # seen while it is chosen
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.hash") == "#scores"
    browser.press("Enter", 13)
    assert browser.value("location.hash") == "#scores"
    browser.value("document.querySelector('summary').focus()")
    assert not browser.value("document.querySelector('details').open")
    browser.press("Enter", 13)
    assert browser.value("document.querySelector('details').open")


@needs_browser
def test_who_does_not_see_the_page_hears_what_is_on_it(
    pages: Dict[str, Path], browser: Browser
) -> None:
    for kind in ("evaluation", "run"):
        browser.open(pages[kind], width=820)
        nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
        named = {
            role: [n.get("name", {}).get("value") for n in nodes if n["role"]["value"] == role]
            for role in ("image", "img", "region", "heading")
        }
        found = [name for names in named.values() for name in names]
        assert all(found), named
        assert {"Loss", "Learning rate"} <= set(found)
    headings = browser.value("[...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName)")
    assert headings[:2] == ["H1", "H2"]


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


@needs_browser
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
    assert "Confusion matrix" not in text
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
    low, high = found["difference_interval"]
    assert low < found["b"]["top1"] - found["a"]["top1"] < high
    assert f" points [{low:+.2f}, {high:+.2f}]" in text
    low, high = wilson_interval(100 * b.correct.mean(), 400)
    assert f"B  top-1 {found['b']['top1']:.3f} % [{low:.2f}, {high:.2f}]" in text
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
