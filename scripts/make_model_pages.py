"""Write what follows from the code in docs/models: python scripts/make_model_pages.py

The figure of each family's block as SVG, and in its page the table of variants.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from list_models import recipes_by_arch

from src.models.catalogue import read_catalogue

FOLDER = ROOT / "docs" / "models"
START, END = "<!-- variants: written by scripts/make_model_pages.py -->", "<!-- end -->"
HEAD = "| name | M params | GMACs | size | classes | published top-1 | whose number | recipes |"

# Of the figures, pixels.
_BOX, _GAP, _WIDE, _LEFT, _RIGHT, _TOP = 42, 24, 250, 24, 350, 62
ADD = "+"


class Figure(NamedTuple):
    """Attributes:
    network: (name, detail) from the image to the logits.
    block: the same for the block that repeats, ADD where a shortcut ends.
    shortcuts: (step before which it leaves, step where it is added) in `block`.
    """

    network: Sequence[Tuple[str, str]]
    title: str
    block: Sequence[Tuple[str, str]]
    shortcuts: Sequence[Tuple[int, int]]


def _mlp(detail: str) -> List[Tuple[str, str]]:
    return [("Linear", detail), ("GELU", "exact"), ("Linear", "back to C")]


FIGURES = {
    "convmixer": Figure(
        [
            ("Image", "3 x 224 x 224"),
            ("Patch embedding", "conv p x p, stride p"),
            ("GELU, BatchNorm", ""),
            ("ConvMixer block", "repeated depth times"),
            ("Average pooling", "over all positions"),
            ("Linear", "logits"),
        ],
        "ConvMixer block",
        [
            ("Depthwise conv", "k x k, mixes positions"),
            ("GELU", "768/32: ReLU"),
            ("BatchNorm", ""),
            (ADD, ""),
            ("Pointwise conv", "1 x 1, mixes channels"),
            ("GELU", "768/32: ReLU"),
            ("BatchNorm", ""),
        ],
        [(0, 3)],
    ),
    "convnext": Figure(
        [
            ("Image", "3 x 224 x 224"),
            ("Stem", "conv 4 x 4, stride 4; LayerNorm"),
            ("Stage 1", "56 x 56"),
            ("Stages 2, 3, 4", "each: LayerNorm, conv 2 x 2, blocks"),
            ("Average pooling", "over all positions"),
            ("LayerNorm, Linear", "logits"),
        ],
        "ConvNeXt block",
        [
            ("Depthwise conv", "7 x 7"),
            ("LayerNorm", "over channels, eps 1e-6"),
            *_mlp("C to 4 C"),
            ("Layer scale", "times gamma, from 1e-6"),
            (ADD, ""),
        ],
        [(0, 6)],
    ),
    "cct": Figure(
        [
            ("Image", "3 x 32 x 32 or 224 x 224"),
            ("Tokenizer", "n times: conv, ReLU, max pooling"),
            ("+ positions", "learnt, or sine"),
            ("Encoder layer", "repeated"),
            ("LayerNorm, SeqPool", "weights of the tokens are learnt"),
            ("Linear", "logits"),
        ],
        "Encoder layer",
        [
            ("LayerNorm", "pre_norm"),
            ("Attention", "no bias for q, k, v"),
            (ADD, ""),
            ("LayerNorm", "norm1, of the stream itself"),
            *_mlp("C to r C"),
            (ADD, ""),
        ],
        [(0, 2), (4, 7)],
    ),
    "deit": Figure(
        [
            ("Image", "3 x 224 x 224"),
            ("Patch embedding", "conv 16 x 16, stride 16"),
            ("Class token", "and distillation token"),
            ("+ positions", "learnt"),
            ("Transformer block", "repeated 12 times"),
            ("LayerNorm, Linear", "of the token(s); two heads: mean"),
        ],
        "Transformer block",
        [
            ("LayerNorm", "eps 1e-6"),
            ("Attention", "all tokens to all tokens"),
            (ADD, ""),
            ("LayerNorm", "eps 1e-6"),
            *_mlp("C to 4 C"),
            (ADD, ""),
        ],
        [(0, 2), (3, 7)],
    ),
    "twins": Figure(
        [
            ("Image", "3 x 224 x 224"),
            ("4 stages", "56, 28, 14, 7 positions a side"),
            ("Patch embedding", "conv, LayerNorm; at the stage's start"),
            ("First block", "of the stage"),
            ("Position encoding", "x + depthwise conv 3 x 3 of x"),
            ("Other blocks", "of the stage"),
            ("LayerNorm, mean, Linear", "logits, after the last stage"),
        ],
        "Block",
        [
            ("LayerNorm", "eps 1e-6"),
            ("Sub-sampled attention", "keys, values: conv r x r, stride r"),
            (ADD, ""),
            ("LayerNorm", "eps 1e-6"),
            *_mlp("C to 8 C or 4 C"),
            (ADD, ""),
        ],
        [(0, 2), (3, 7)],
    ),
}


def draw(figure: Figure) -> str:
    """SVG: the network on the left, its block on the right."""
    steps = max(len(figure.network), len(figure.block))
    width, height = _RIGHT + _WIDE + 70, _TOP + steps * (_BOX + _GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_column(_LEFT, "Network", figure.network, "#e8eef7"),
        *_column(_RIGHT, figure.title, figure.block, "#fdf1e0"),
        *(_shortcut(start, end) for start, end in figure.shortcuts),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(x: float, y: float, size: int, colour: str, text: str) -> str:
    style = f'font-size="{size}" fill="{colour}" text-anchor="middle"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _y(step: int) -> int:
    return _TOP + step * (_BOX + _GAP)


def _column(left: int, title: str, steps: Sequence[Tuple[str, str]], colour: str) -> List[str]:
    middle = left + _WIDE / 2
    parts = [_text(middle, 28, 17, "#222", title)]
    for step, (name, detail) in enumerate(steps):
        top = _y(step)
        if step or name != "Image":
            line = f'<path d="M{middle:g} {top - _GAP}V{top - 1}" stroke="#444" fill="none"'
            parts.append(line + ' marker-end="url(#tip)"/>')
        if name == ADD:
            parts.append(
                f'<circle cx="{middle:g}" cy="{top + _BOX / 2:g}" r="13" fill="#fff" '
                'stroke="#444"/>'
            )
            parts.append(f'<path d="M{middle:g} {top}V{top + 7}" stroke="#444"/>')
            parts.append(f'<path d="M{middle:g} {top + 34}V{top + _BOX}" stroke="#444"/>')
            parts.append(_text(middle, top + 27, 18, "#222", ADD))
            continue
        parts.append(
            f'<rect x="{left}" y="{top}" width="{_WIDE}" height="{_BOX}" rx="6" fill="{colour}" '
            'stroke="#888"/>'
        )
        parts.append(_text(middle, top + (18 if detail else 26), 14, "#222", name))
        if detail:
            parts.append(_text(middle, top + 34, 12, "#555", detail))
    return parts


def _shortcut(start: int, end: int) -> str:
    middle, right = _RIGHT + _WIDE / 2, _RIGHT + _WIDE + 30
    leaves, arrives = _y(start) - _GAP / 2 - 3, _y(end) + _BOX / 2
    return (
        f'<path d="M{middle:g} {leaves:g}H{right}V{arrives:g}H{middle + 14:g}" stroke="#b35c00" '
        'fill="none" stroke-width="1.5" marker-end="url(#tip)"/>'
    )


def variants(family: str) -> str:
    """The table of a family, from src/models/catalogue.csv and src/configs."""
    recipes = recipes_by_arch()
    lines = [HEAD, "|---|---|---|---|---|---|---|---|"]
    for entry in read_catalogue():
        if entry.family == family:
            top1 = "-" if entry.top1 is None else f"{entry.top1:g} %"
            files = ", ".join(f"`{name}`" for name in recipes.get(entry.arch, [])) or "-"
            lines.append(
                f"| `{entry.arch}` | {entry.params / 1e6:.2f} | {entry.gmacs:.2f} | "
                f"{entry.image_size} | {entry.num_classes} | {top1} | {entry.top1_source or '-'} | "
                f"{files} |"
            )
    return "\n".join(lines)


def with_variants(text: str, family: str) -> str:
    """The page with its table written anew."""
    pattern = re.escape(START) + ".*?" + re.escape(END)
    return re.sub(pattern, f"{START}\n\n{variants(family)}\n\n{END}", text, flags=re.DOTALL)


def main() -> None:
    for family, figure in FIGURES.items():
        (FOLDER / f"{family}.svg").write_text(draw(figure), encoding="utf-8")
        page = FOLDER / f"{family}.md"
        page.write_text(with_variants(page.read_text(encoding="utf-8"), family), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
