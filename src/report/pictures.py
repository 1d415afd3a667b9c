"""Images on a sheet, with a caption below each and a heat map on top."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..runs.fonts import Fonts

# Colours of a heat map from least to most: blue, cyan, yellow, red.
HEAT_STOPS = ((0, 0, 130), (0, 160, 255), (255, 230, 0), (200, 0, 0))
TILE = 176  # side of an image on the sheet, pixels
_LINE, _GAP, _FONT_SIZE = 15, 8, 12
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


class Tile(NamedTuple):
    """An image on the sheet.

    Attributes:
        image: (H, W, 3) uint8.
        caption: lines below it; what is too long is cut.
        good: a green (True) or red (False) frame; None: none.
    """

    image: np.ndarray
    caption: Sequence[str]
    good: Optional[bool] = None


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 5) -> Image.Image:
    """All tiles row by row; at least one."""
    columns = min(columns, len(tiles))
    lines = max(len(tile.caption) for tile in tiles)
    width, height = TILE + _GAP, TILE + lines * _LINE + 2 * _GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    pen = _Pen(draw, [text for tile in tiles for text in tile.caption])
    for index, tile in enumerate(tiles):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        sheet.paste(_fitting_image(tile.image), (left, top))
        if tile.good is not None:
            colour = (30, 140, 60) if tile.good else (200, 40, 40)
            draw.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), None, colour, 2)
        for number, text in enumerate(tile.caption):
            pen.write(left, top + TILE + 3 + number * _LINE, text)
    return sheet


def with_scale(sheet: Image.Image) -> Image.Image:
    """The sheet with the colours of its heat maps below it, from least to most."""
    height = _LINE + 2 * _GAP
    longer = Image.new("RGB", (sheet.width, sheet.height + height), _PAPER)
    longer.paste(sheet, (0, 0))
    pen, top, left = _Pen(ImageDraw.Draw(longer), ["least", "most"]), sheet.height + _GAP, _GAP
    pen.write(left, top, "least")
    colours = _colours(np.tile(np.linspace(0.0, 1.0, TILE - 80), (_FONT_SIZE, 1)))
    bar = Image.fromarray(np.rint(colours).astype(np.uint8))
    longer.paste(bar, (left + 40, top + 2))
    pen.write(left + TILE - 34, top, "most")
    return longer


class _Pen:
    """Writes lines of a tile's width, each character in a font that has it."""

    def __init__(self, draw: Any, texts: Sequence[str]) -> None:
        self._draw = draw
        self._fonts = Fonts(texts)
        faces = self._fonts.faces
        self._faces = {face.path: ImageFont.truetype(face.path, _FONT_SIZE) for face in faces}

    def write(self, left: float, top: int, text: str) -> None:
        for path, part in self._fonts.runs(self._fitting(text.replace("\n", " "))):
            font = self._faces[path]
            # On one base line, whatever the heights of the fonts.
            self._draw.text((left, top + _FONT_SIZE), part, fill=_INK, font=font, anchor="ls")
            left += font.getlength(part)

    def _width(self, text: str) -> float:
        return sum(self._faces[path].getlength(part) for path, part in self._fonts.runs(text))

    def _fitting(self, text: str) -> str:
        if self._width(text) <= TILE:
            return text
        while text and self._width(text + "...") > TILE:
            text = text[:-1]
        return text + "..."


def _fitting_image(pixels: np.ndarray) -> Image.Image:
    """The longer side becomes TILE."""
    image = Image.fromarray(pixels)
    scale = TILE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) uint8 under heat (h, w) >= 0, scaled to its own range -> (H, W, 3) uint8.

    Of a single position there is nothing to show, and the image stays as it is.
    """
    if heat.size == 1:
        return image
    spread = float(heat.max() - heat.min())
    level = (heat - heat.min()) / (spread if spread > 0 else 1.0)
    grey = Image.fromarray(np.rint(255 * level).astype(np.uint8))
    size = (image.shape[1], image.shape[0])
    level = np.asarray(grey.resize(size, Image.Resampling.BICUBIC)) / 255.0
    return np.rint(0.5 * image + 0.5 * _colours(level)).astype(np.uint8)


def _colours(level: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 3) in [0, 255]."""
    stops = np.array(HEAT_STOPS, np.float64)
    positions = np.linspace(0.0, 1.0, len(stops))
    return np.stack([np.interp(level, positions, stops[:, c]) for c in range(3)], axis=-1)
