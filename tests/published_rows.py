"""Writes src/models/published.csv from timm's own configurations, for a newer timm:

    .venv/bin/python tests/published_rows.py [results-imagenet.csv]

The file is `results/results-imagenet.csv` of timm's repository; without it the scores stay.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("convmixer", "convnext", "deit", "test_convnext", "twins")

# (id, image size, crop_pct) -> top-1
Scores = Dict[Tuple[str, int, float], float]


def published_ids() -> List[str]:
    """What timm publishes of our families, sorted."""
    import timm

    return sorted(name for name in timm.list_pretrained() if name.startswith(FAMILIES))


def scores_of(results: Path) -> Scores:
    """What timm measured."""
    with results.open(newline="", encoding="utf-8") as file:
        return {
            (row["model"], int(row["img_size"]), float(row["crop_pct"])): float(row["top1"])
            for row in csv.DictReader(file)
        }


def present_scores() -> Scores:
    """Those of the table."""
    from src.models.published import read_published

    found = {}
    for row in read_published():
        found[row.id, row.image_size, row.crop_pct] = row.top1
        found[row.id, row.test_image_size, row.test_crop_pct] = row.test_top1
    return found


def table(scores: Scores) -> str:
    """The text of published.csv."""
    from src.models.published import PublishedWeights

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PublishedWeights._fields)
    writer.writerows(tuple(_row(name, scores)) for name in published_ids())
    return text.getvalue()


def _row(name: str, scores: Scores) -> Any:
    from timm.models import get_pretrained_cfg

    from src.models.published import NORMALISATIONS, PublishedWeights

    cfg = get_pretrained_cfg(name)
    (normalisation,) = [key for key, both in NORMALISATIONS.items() if both == (cfg.mean, cfg.std)]
    sizes = cfg.input_size[1], cfg.test_input_size[1] if cfg.test_input_size else None
    return PublishedWeights(
        id=name,
        num_classes=cfg.num_classes,
        image_size=sizes[0],
        crop_pct=cfg.crop_pct,
        crop_mode=cfg.crop_mode,
        normalisation=normalisation,
        top1=scores.get((name, sizes[0], cfg.crop_pct)),
        test_image_size=sizes[1],
        test_crop_pct=cfg.test_crop_pct,
        test_top1=scores.get((name, sizes[1], cfg.test_crop_pct)),
        licence=cfg.license,
        url=cfg.url or None,
    )


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import conftest  # noqa: F401 (an importable torchvision)

    scores = scores_of(Path(sys.argv[1])) if len(sys.argv) > 1 else present_scores()
    (ROOT / "src" / "models" / "published.csv").write_text(table(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
