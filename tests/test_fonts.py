"""Names in pictures: in a font that has their characters, or a line that says which is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from PIL import Image

from src.report.pictures import Tile, contact_sheet
from src.runs import fonts
from src.runs.fonts import Fonts, create_figure

OWN = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Fonts of this machine: those that the test adds."""
    monkeypatch.setattr(fonts, "_CHOSEN", [])
    monkeypatch.setattr(fonts, "_LACKING", set())
    found: List[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(found))
    return found


def font_with(characters: str, path: Path) -> str:
    """A font in which each of these is drawn as an A."""
    font = TTFont(OWN)
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap.update({ord(character): "A" for character in characters})
    for record in font["name"].names:
        record.string = path.stem
    font.save(path)
    return str(path)


def sheet(*caption: str) -> np.ndarray:
    return np.asarray(contact_sheet([Tile(np.zeros((8, 8, 3), np.uint8), caption)]))


def test_characters_come_from_the_font_that_has_them(
    machine: List[str], tmp_path: Path, caplog: Any
) -> None:
    machine += [font_with("犬", tmp_path / "other.ttf"), font_with("狗犬", tmp_path / "Bold.ttf")]
    machine.append(font_with("狗犬", tmp_path / "plain.ttf"))
    chosen = Fonts(["狗", "犬 1"])
    assert chosen.runs("a狗b") == [(str(OWN), "a"), (machine[2], "狗"), (str(OWN), "b")]
    assert chosen.families() == ["DejaVu Sans", "plain"]
    assert not caplog.records
    assert np.array_equal(sheet("狗 is 犬"), sheet("A is A"))


def test_what_no_font_has_is_said_once_and_shown_as_a_number(
    machine: List[str], tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "damaged.ttf").write_bytes(OWN.read_bytes()[:1000])
    machine.append(str(tmp_path / "damaged.ttf"))
    for _ in range(2):
        assert Fonts(["狗", "\udcb9", "$a$"]).drawable("狗\udcb9$") == r"\u72d7\udcb9\$"
    assert [record.message for record in caplog.records] == [
        "pictures: no font of this machine has 狗; apt-get install fonts-noto-cjk (or another font "
        "with them), until then they are shown as numbers"
    ]
    assert np.array_equal(sheet("狗"), sheet(r"\u72d7"))


def test_matplotlib_draws_them(machine: List[str], tmp_path: Path, recwarn: Any) -> None:
    machine.append(font_with("狗", tmp_path / "dog.ttf"))
    pictures = []
    with matplotlib.rc_context():
        for name in ("狗 $x^", "A $x^"):
            names = ["é", name, "$\\no$"]
            figure, axes = create_figure(figsize=(2, 2), texts=[*names, "狗"])
            axes.set_xticks(range(3), map(Fonts(names).drawable, names))
            figure.savefig(tmp_path / "figure.png")
            with Image.open(tmp_path / "figure.png") as image:
                pictures.append(np.asarray(image.convert("L")))
    assert np.array_equal(*pictures)
    assert pictures[0].std() > 10
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
