"""Draw what the network will really see: a contact sheet of a recipe's first batch.

python scripts/preview_augment.py --config src/configs/NAME.yaml [--KEY VALUE ...]

Writes preview.png into `train_url` (default: the current folder). One row per image of the first
batch of the run (on one rank): as read, after each transform, after erasing, and mixed with its
partner in that batch; below it the classes and their weights.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import List, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from mindspore import Tensor
from PIL import Image, ImageDraw

from src.args import Config, parse_args, replace
from src.data.dataset import Batch
from src.data.imagenet import create_dataset
from src.data.sampler import Key, sample_generator
from src.data.sources import Source, open_source
from src.data.transforms_factory import create_transforms
from src.errors import UserError
from src.runtime.device import setup_device
from src.trainer.build import build_batch_transform

_ROWS, _TILE, _GAP, _TEXT = 8, 160, 6, 14

Stage = Tuple[str, np.ndarray]


def stages_of(config: Config, source: Source, key: Key) -> List[Stage]:
    """Every stage of one training image, (H, W, 3) uint8, with its name."""
    rng = sample_generator(config.train.seed, *key)
    pixels = source.read(key.sample)
    stages = [("as read", pixels)]
    for transform in create_transforms(config):
        pixels = transform(pixels, rng)
        stages.append((type(transform).__name__, pixels))
    return stages


def on_device(config: Config, batch: Batch) -> Tuple[np.ndarray, np.ndarray]:
    """The batch as the network sees it, without and with mixing: each (B, H, W, 3) uint8."""
    assert batch.mix is not None
    transform = build_batch_transform(config)
    unmixed = batch.mix.copy()
    unmixed[:, :5] = (1, 0, 0, 0, 0)
    results = []
    for mix in (unmixed, batch.mix):
        arrays = (batch.image, batch.label, mix)
        normalized = transform(*(Tensor(array) for array in arrays))[0].asnumpy()
        colours = normalized.transpose(0, 2, 3, 1) * config.data.std + config.data.mean
        results.append(np.rint(np.clip(255 * colours, 0, 255)).astype(np.uint8))
    return results[0], results[1]


def draw_rows(config: Config) -> List[Tuple[List[Stage], str]]:
    """Stages and caption of the first images of the run's first batch."""
    source = open_source(config, training=True)
    dataset = create_dataset(config, training=True)
    batches = dataset.batches()
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert batch.mix is not None
    unmixed, mixed = on_device(config, batch)
    rows = []
    for i, key in enumerate(itertools.islice(dataset.keys(), min(_ROWS, len(batch.image)))):
        stages = stages_of(config, source, key)
        if config.data.re_prob > 0:
            stages.append(("erased", unmixed[i]))
        stages.append(("mixed", mixed[i]))
        partner = len(batch.image) - 1 - i
        names = [source.class_names[batch.label[k]] for k in (i, partner)]
        lam = float(batch.mix[i, 0])
        caption = f"{names[0]}: {lam:.2f}" + (f", {names[1]}: {1 - lam:.2f}" if lam < 1 else "")
        rows.append((stages, caption))
    return rows


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
    # The device of the recipe may be busy, or elsewhere; a batch needs none.
    config = replace(parse_args(argv), device_target="CPU")
    try:
        setup_device(config.run, seed=config.train.seed)
        if not (config.model.num_classes and config.model.image_size):
            from src.checkpoints.complete_config import complete_by_data

            config = complete_by_data(config)
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
