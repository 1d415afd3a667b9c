"""docs/models: a page for each family, whose tables are those of the code."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import List

import pytest
from test_scripts import script

from src.args import Config
from src.configs.parser import keys_of
from src.models.keywords import Keyword
from src.models.registry import FAMILIES, list_models, resolve

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "models"


def test_the_tables_are_what_the_script_writes() -> None:
    pages = script("make_model_pages").pages(ROOT / "docs")
    assert len(pages) == 2 * len(FAMILIES)
    for page, text in pages.items():
        message = f"{page}: run python scripts/make_model_pages.py"
        assert page.read_text(encoding="utf-8") == text, message
        assert re.search(rf"\]\([./a-z]*{page.stem}\.svg\)", text), page


def test_allowed_values_are_the_same_in_chinese() -> None:
    """Those of every form; numbers and names of pages are compared in test_languages.py."""
    words = script("make_model_pages").Chinese
    said = {
        "1 至 8 的整数": Keyword("", high=8),
        "0.5 至 2 的数，或 null": Keyword("", float, 0.5, 2, optional=True),
        "不小于 0 且小于 1 的数": Keyword("", float, 0, below=1),
        "4 个值的列表，每个值为 1 至 8 的整数": Keyword("", high=8, length=4),
        "true 或 false": Keyword("", bool),
        "a 或 b": Keyword("", str, choices=("a", "b")),
    }
    assert [words.allowed(words, keyword) for keyword in said.values()] == list(said)


def test_the_pages_list_every_architecture() -> None:
    listed = [
        name
        for family in FAMILIES
        for name in re.findall(r"^\| `(\w+)` \| \d", (FOLDER / f"{family}.md").read_text(), re.M)
    ]
    with (ROOT / "src" / "models" / "catalogue.csv").open(newline="") as file:
        assert sorted(listed) == sorted(row["arch"] for row in csv.DictReader(file))
    assert sorted(listed) == list_models()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_figures_boxes_do_not_overlap_and_hold_their_text(family: str) -> None:
    root = ElementTree.parse(FOLDER / f"{family}.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
        for rect in root.iter(f"{name}rect")
    ][1:]
    assert len(boxes) > 10
    for i, (x, y, width, height) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart = abs(x - other[0]) >= width or abs(y - other[1]) >= height
            assert apart
    for text in root.iter(f"{name}text"):
        # Letters of the face are 0.55 of its size wide, on average.
        assert len(text.text or "") * float(text.get("font-size", "0")) * 0.55 < 250


@pytest.mark.parametrize("family", FAMILIES)
def test_files_and_keys_of_the_pages_exist(family: str) -> None:
    page = (FOLDER / f"{family}.md").read_text(encoding="utf-8")
    for file in re.findall(r"`([\w-]+\.yaml)`|configs/([\w-]+\.yaml)", page):
        assert (ROOT / "src" / "configs" / (file[0] or file[1])).is_file(), file
    known = {*keys_of(Config), "config", "input", "output", "save_pictures", "heat_maps"}
    for key in re.findall(r"`([a-z_]+):|--([a-z_]+)", page):
        assert (key[0] or key[1]) in known, key
    for arch in re.findall(r"--arch (\w+)", page):
        assert arch in list_models()


def numbers(family: str, size: str) -> List[List[int]]:
    """Of a row of the hand-written table of sizes, cell by cell."""
    page = (FOLDER / f"{family}.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| (?:[\d, ]*)?{size}(?:, \d+)? \| ([\d, |]+) \|$", page, re.M)
    return [[int(part) for part in cell.split(",")] for cell in row.split("|")]


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "xlarge"])
def test_sizes_of_convnext(size: str) -> None:
    suffix = "_in22k" if size == "xlarge" else ""
    values = resolve(f"convnext_{size}{suffix}")[1]
    assert numbers("convnext", size) == [list(values["depths"]), list(values["dims"])]


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_sizes_of_deit(size: str) -> None:
    values = resolve(f"deit_{size}_patch16_224")[1]
    keys = ("embed_dim", "num_heads", "depth")
    assert numbers("deit", size) == [[values[key]] for key in keys]


@pytest.mark.parametrize("layers", ["2", "6", "14"])
def test_sizes_of_cct(layers: str) -> None:
    name = {"2": "cct_2_3x2_32", "6": "cct_6_3x1_32", "14": "cct_14_7x2_224"}[layers]
    values = resolve(name)[1]
    keys = ("num_heads", "mlp_ratio", "embedding_dim")
    assert numbers("cct", layers) == [[values[key]] for key in keys]


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_sizes_of_twins(size: str) -> None:
    for kind, name in (("PCPVT", f"pcpvt_{size}_v0"), ("SVT", f"alt_gvt_{size}")):
        values = resolve(name)[1]
        keys = ("depths", "embed_dims", "num_heads")
        assert numbers("twins", f"{kind} {size}") == [list(values[key]) for key in keys]
