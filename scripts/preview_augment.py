"""Draw what the network sees when a recipe trains it: the first images of the first batch.

usage: python scripts/preview_augment.py --config src/configs/NAME.yaml [--KEY VALUE ...]

The picture is preview.png in `train_url` (default: outputs/<arch>), or preview_2.png where there is
one already. Each row shows one image (on one rank): as read, after each transform, after erasing,
and mixed with its partner in that batch. Below it are the classes and their weights.
"""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.args import Config, replace
from src.errors import UserError
from src.runtime.device import setup_device
from src.runtime.entry import run_entry_point
from src.runtime.files import check_output_folder, unused, write_whole
from src.storage.remote_files import is_url
from src.storage.staging import stage_inputs

if TYPE_CHECKING:
    from src.data.dataset import Batch
    from src.data.sampler import Key
    from src.data.sources import Source

_ROWS = 8


class Row(NamedTuple):
    """What becomes of one image.

    Attributes:
        stages: (name, (H, W, 3) uint8) from the file to the network.
        target: class and its weight, the image's own first.
    """

    stages: List[Tuple[str, np.ndarray]]
    target: List[Tuple[str, float]]


def stages_of(config: Config, source: Source, key: Key) -> List[Tuple[str, np.ndarray]]:
    """Every stage of one training image, with its name."""
    from src.data.channels import as_colours
    from src.data.sampler import sample_generator
    from src.data.transforms_factory import create_transforms

    rng = sample_generator(config.train.seed, *key)
    pixels = source.read(key.sample)
    stages = [("as read", pixels)]
    for transform in create_transforms(config):
        pixels = transform(pixels, rng)
        stages.append((type(transform).__name__, pixels))
    return [(name, as_colours(pixels)) for name, pixels in stages]


def on_device(config: Config, batch: Batch) -> Tuple[np.ndarray, np.ndarray]:
    """The batch as the network sees it, without and with mixing: each (B, H, W, 3) uint8."""
    from mindspore import Tensor

    from src.data.channels import as_colours
    from src.trainer.build import build_batch_transform

    transform = build_batch_transform(config)
    unmixed = batch.mix.copy()
    unmixed[:, :5] = (1, 0, 0, 0, 0)
    results = []
    for mix in (unmixed, batch.mix):
        arrays = (batch.image, batch.label, mix)
        normalized = transform(*(Tensor(array) for array in arrays))[0].asnumpy()
        colours = normalized.transpose(0, 2, 3, 1) * config.data.std + config.data.mean
        pixels = np.rint(np.clip(255 * colours, 0, 255)).astype(np.uint8)
        results.append(as_colours(pixels))
    return results[0], results[1]


def draw_rows(config: Config) -> List[Row]:
    """The first images of the run's first batch."""
    from src.data.dataset import describe_flat, first_batch
    from src.data.imagenet import create_dataset
    from src.data.sources import open_source

    source = open_source(config, training=True)
    dataset = create_dataset(config, training=True)
    batch = first_batch(dataset)
    if dataset.bad_images.flat:
        print(describe_flat(dataset.bad_images.flat, len(batch.image)), file=sys.stderr)
    unmixed, mixed = on_device(config, batch)
    rows = []
    for i, key in enumerate(itertools.islice(dataset.keys(), min(_ROWS, len(batch.image)))):
        stages = stages_of(config, source, key)
        if config.data.re_prob > 0:
            stages.append(("erased", unmixed[i]))
        stages.append(("mixed", mixed[i]))
        rows.append(Row(stages, target_of(batch, i, source.class_names)))
    return rows


def target_of(batch: Batch, i: int, class_names: Sequence[str]) -> List[Tuple[str, float]]:
    """Classes of an image and of its partner, with their weights."""
    lam, partner = float(batch.mix[i, 0]), len(batch.image) - 1 - i
    found = []
    for k, weight in ((i, lam), (partner, 1 - lam)):
        label = batch.label[k]
        labels = np.flatnonzero(label) if label.ndim else [label]
        found += [(class_names[at], weight) for at in labels if weight > 0]
    return found


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """A PNG with all stages beside each other, a row per image."""
    from src.report import pictures

    tiles = []
    for row in rows:
        captions = [[name] for name, _ in row.stages]
        captions[-1] += [f"{weight:.2f} {name}" for name, weight in row.target]
        tiles += [pictures.Tile(pixels, said) for (_, pixels), said in zip(row.stages, captions)]
    sheet = io.BytesIO()
    pictures.contact_sheet(tiles, columns=len(rows[0].stages)).save(sheet, format="PNG")
    return sheet.getvalue()


def preview(config: Config) -> None:
    """Writes the sheet and prints where."""
    folder = Path(config.train.train_url or Path("outputs") / config.model.arch)
    if is_url(config.train.train_url):
        raise UserError(f"train_url {config.train.train_url!r}: give a folder on this machine")
    check_output_folder("train_url", folder)
    # The device of the recipe may be busy, or elsewhere; a batch needs none.
    config = stage_inputs(replace(config, device_target="CPU"))
    setup_device(config.run, seed=config.train.seed)
    if not (config.model.num_classes and config.model.image_size):
        from src.checkpoints.complete_config import complete_by_data

        config = complete_by_data(config)
    sheet = contact_sheet(draw_rows(config))
    folder.mkdir(parents=True, exist_ok=True)
    path = unused(folder / "preview.png")
    write_whole(path, sheet)
    print(path)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_entry_point(preview, argv, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
