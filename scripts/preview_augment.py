"""Draw what the network will really see: a contact sheet of a recipe's first batch.

python scripts/preview_augment.py --config src/configs/NAME.yaml [--KEY VALUE ...]

Writes preview.png into `train_url` (default: the current folder). One row per image: as read, after
each transform, after erasing, and mixed with its partner; below it the classes and their weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image, ImageDraw

from src.args import Config, parse_args
from src.data import sampler
from src.data.augment.mixup import Mixing, draw_mix
from src.data.imagenet import create_erasing, create_transforms, open_source
from src.data.samples import Source
from src.errors import UserError

_ROWS, _TILE, _GAP, _TEXT = 8, 160, 6, 14

Stage = Tuple[str, np.ndarray]


def stages_of(config: Config, source: Source, index: int) -> List[Stage]:
    """Every stage of one training image of epoch 1, (H, W, 3) uint8, with its name."""
    rng = sampler.sample_generator(config.train.seed, 0, index)
    pixels = source.read(index)
    stages = [("as read", pixels)]
    for transform in create_transforms(config):
        pixels = transform(pixels, rng)
        stages.append((type(transform).__name__, pixels))
    erasing = create_erasing(config)
    if erasing is not None:
        boxes = erasing.draw(rng)
        pixels = _erased(erasing.write_noise(pixels, boxes, rng), boxes, config)
        stages.append(("erased", pixels))
    return stages


def _erased(pixels: np.ndarray, boxes: np.ndarray, config: Config) -> np.ndarray:
    """The boxes in the colours that the device fills them with; noise is there already."""
    if config.data.re_mode == "pixel":
        return pixels
    pixels = pixels.copy()
    mean, std = np.array(config.data.mean), np.array(config.data.std)
    for box in boxes:
        x0, y0, x1, y1 = box[:4].astype(int)
        colour = 255 * (mean + std * box[4:7])
        pixels[y0:y1, x0:x1] = np.clip(colour, 0, 255).astype(np.uint8)
    return pixels


def mixed(image: np.ndarray, partner: np.ndarray, row: np.ndarray) -> np.ndarray:
    """An image and its partner, as the device mixes them by (lam, x0, y0, x1, y1)."""
    lam = float(row[0])
    x0, y0, x1, y1 = row[1:].astype(int)
    if (x1 - x0) * (y1 - y0) == 0:
        blend = lam * image.astype(np.float32) + (1 - lam) * partner.astype(np.float32)
        return np.rint(blend).astype(np.uint8)
    result = image.copy()
    result[y0:y1, x0:x1] = partner[y0:y1, x0:x1]
    return result


def draw_rows(config: Config) -> List[Tuple[List[Stage], str]]:
    """Stages and caption of the first images of the first epoch, mixed in a batch of that size."""
    source = open_source(config, training=True)
    data = config.data
    count = min(_ROWS, len(source) // 2 * 2)
    order = sampler.epoch_order(len(source), seed=config.train.seed, epoch=0)[:count]
    rows = [stages_of(config, source, int(index)) for index in order]
    mixing = Mixing(
        mix_up=data.mix_up,
        cutmix=data.cutmix,
        cutmix_minmax=data.cutmix_minmax,
        correct_lam=data.correct_lam,
        mixup_prob=data.mixup_prob,
        switch_prob=data.switch_prob,
        mixup_mode=data.mixup_mode,
    )
    rng = sampler.batch_generator(config.train.seed, 0, 0)
    mix = draw_mix(mixing, count, config.model.image_size, rng=rng)
    result = []
    for i, stages in enumerate(rows):
        other = count - 1 - i
        image = mixed(stages[-1][1], rows[other][-1][1], mix[i])
        names = [source.class_names[source.labels[order[k]]] for k in (i, other)]
        lam = float(mix[i, 0])
        caption = f"{names[0]}: {lam:.2f}" + (f", {names[1]}: {1 - lam:.2f}" if lam < 1 else "")
        result.append(([*stages, ("mixed", image)], caption))
    return result


def contact_sheet(rows: List[Tuple[List[Stage], str]]) -> Image.Image:
    """All stages beside each other, a row per image."""
    columns = max(len(stages) for stages, _ in rows)
    step_x, step_y = _TILE + _GAP, _TILE + 2 * _TEXT + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, len(rows) * step_y + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (stages, caption) in enumerate(rows):
        for x, (name, pixels) in enumerate(stages):
            corner = (_GAP + x * step_x, _GAP + y * step_y)
            image = Image.fromarray(pixels)
            image.thumbnail((_TILE, _TILE))
            if max(image.size) < _TILE:
                scale = _TILE / max(image.size)
                size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
                image = image.resize(size, Image.Resampling.NEAREST)
            sheet.paste(image, corner)
            draw.text((corner[0], corner[1] + _TILE), name, fill="grey")
        draw.text((_GAP, _GAP + y * step_y + _TILE + _TEXT), caption, fill="black")
    return sheet


def main(argv: Optional[List[str]] = None) -> int:
    config = parse_args(argv)
    try:
        sheet = contact_sheet(draw_rows(config))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = Path(config.train.train_url or ".")
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "preview.png")
    print(folder / "preview.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
