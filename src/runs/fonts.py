"""Fonts for names in pictures: matplotlib's own, and the machine's for characters that it lacks."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Set, Tuple

from ..runtime.regular_files import FONT_BYTES, open_regular
from ..runtime.text import without_surrogates

_LOGGER = logging.getLogger(__name__)
# Of several fonts that have the same characters the plain ones come first.
_NOT_PLAIN = ("bold", "black", "italic", "oblique", "light", "thin", "mono", "serif", "condensed")


class Face(NamedTuple):
    """A file of a font, and the code points that it has glyphs for."""

    path: str
    characters: FrozenSet[int]


_CHOSEN: List[Face] = []
_LACKING: Set[int] = set()


class Fonts:
    """The fonts that these texts need, matplotlib's DejaVu Sans first.

    Characters that no font of this machine has are shown as escapes; a warning names the package
    to install, once for each set of them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        needed = {ord(c) for text in texts for c in without_surrogates(text) if c.isprintable()}
        self.faces = _faces_with(needed)

    def drawable(self, text: str) -> str:
        """The text for matplotlib: each character has a glyph, and a dollar begins no formula."""
        return "".join(part for _, part in self.runs(text)).replace("$", r"\$")

    def runs(self, text: str) -> List[Tuple[str, str]]:
        """(file of the font, part of the text), one after the other."""
        runs: List[Tuple[str, str]] = []
        for character in without_surrogates(text):
            fitting = (face.path for face in self.faces if ord(character) in face.characters)
            path = next(fitting, "")
            shown = character
            if not path:
                path, shown = self.faces[0].path, ascii(character)[1:-1]
            if runs and runs[-1][0] == path:
                shown = runs.pop()[1] + shown
            runs.append((path, shown))
        return runs

    def families(self) -> List[str]:
        """For matplotlib's `font.family`, which takes each glyph from the first that has it."""
        from matplotlib import font_manager

        for face in self.faces[1:]:
            font_manager.fontManager.addfont(face.path)
        return [font_manager.FontProperties(fname=face.path).get_name() for face in self.faces]


def create_figure(*shape: int, texts: Iterable[str] = (), **keywords: Any) -> Tuple[Any, Any]:
    """matplotlib's `subplots(*shape, **keywords)`, in a process without a screen.

    Args:
        texts: names that the figure will show.
    """
    import matplotlib

    # It tells when it has made its list of fonts.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    matplotlib.use("Agg")
    from matplotlib import pyplot

    named = list(texts)
    if not all(map(str.isascii, named)):
        pyplot.rcParams["font.family"] = Fonts(named).families()
    return pyplot.subplots(*shape, layout="constrained", **keywords)


def _faces_with(needed: Set[int]) -> List[Face]:
    if not _CHOSEN:
        _CHOSEN.append(_own())
    lacking = needed.difference(_LACKING, *(face.characters for face in _CHOSEN))
    candidates = _candidates(lacking) if lacking else {}
    while lacking and candidates:
        best = max(candidates, key=lambda path: (len(candidates[path] & lacking), _plainness(path)))
        found = candidates.pop(best) & lacking
        if not found:
            break
        _CHOSEN.append(Face(best, _characters(best)))
        lacking -= found
    if lacking:
        _LACKING.update(lacking)
        _warn("".join(map(chr, sorted(lacking))))
    return [face for face in _CHOSEN if face is _CHOSEN[0] or face.characters & needed]


def _own() -> Face:
    import matplotlib

    path = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    return Face(path, _characters(path))


def _candidates(lacking: Set[int]) -> Dict[str, Set[int]]:
    """File of a font of this machine -> which of these code points it has, but for none."""
    from matplotlib import font_manager

    paths = sorted(font_manager.findSystemFonts())
    found = {path: set(_characters(path) & lacking) for path in paths}
    return {path: characters for path, characters in found.items() if characters}


def _characters(path: str) -> FrozenSet[int]:
    from matplotlib.ft2font import FT2Font

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_regular(path, FONT_BYTES) as file:
                font = FT2Font(file)
                return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (RuntimeError, OSError, ValueError):  # a kind or a file that cannot be read
        return frozenset()


def _plainness(path: str) -> Tuple[int, str]:
    name = Path(path).name.lower()
    return -sum(word in name for word in _NOT_PLAIN), path


def _warn(characters: str) -> None:
    # CJK radicals, kana, ideographs, Hangul, and what lies beside them.
    is_cjk = any("\u2e80" <= c <= "\ud7ff" or "\uf900" <= c <= "\ufaff" for c in characters)
    package = "fonts-noto-cjk" if is_cjk or max(characters) >= "\U00020000" else "fonts-noto-core"
    shown = characters if len(characters) <= 8 else f"{characters[:8]}..."
    _LOGGER.warning(
        "pictures: no font of this machine has %s; apt-get install %s (or another font with them), "
        "until then they are shown as numbers",
        shown,
        package,
    )
