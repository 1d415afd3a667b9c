"""Pictures of predictions, a file per 25 images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from ..data.channels import as_colours
from ..errors import UserError
from ..runtime.files import replacing
from .pictures import Tile, contact_sheet, overlay, with_scale
from .predictions import Prediction

_PER_SHEET = 25


class PredictionSheets:
    """Writes DIR/predictions_001.png, ... as the images come; needs memory for one only.

    Args:
        num_classes: of the predictions.
        heat_maps: as of `create_heat_maps`, drawn beside the images; None: no heat maps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_classes: int,
        heat_maps: Optional[Tuple[str, Any]] = None,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"save_pictures {str(folder)!r}: {error.strerror}; choose another folder"
            ) from error
        self._folder = folder
        self._num_classes = num_classes
        self._heat_maps: Any
        self._method, self._heat_maps = heat_maps or ("", None)
        self._tiles: List[Tile] = []
        self._written: List[Path] = []

    def add(self, image: np.ndarray, predictions: Sequence[Prediction]) -> None:
        """Images (B, H, W, C) uint8 as the network saw them, and what it said."""
        colours, heats = as_colours(image), None
        if self._heat_maps is not None:
            labels = np.array([prediction.labels[0] for prediction in predictions])
            heats = self._heat_maps(image, labels, self._num_classes)
        for index, prediction in enumerate(predictions):
            best = zip(prediction.names[:2], prediction.probabilities)
            caption = [f"{100 * share:.1f} % {name}" for name, share in best]
            self._tiles.append(Tile(colours[index], [*caption, Path(prediction.image).name]))
            if heats is not None:
                shown = overlay(colours[index], heats[index])
                self._tiles.append(Tile(shown, self._caption(heats[index])))
            if len(self._tiles) >= _PER_SHEET * (1 if heats is None else 2):
                self._write()

    def _caption(self, heat: np.ndarray) -> List[str]:
        if heat.size == 1:
            return ["no heat map: the last stage", "is of a single position"]
        return [f"{self._method}, {heat.shape[0]} x {heat.shape[1]}"]

    def close(self) -> List[Path]:
        """Writes what is left; returns all files."""
        if self._tiles:
            self._write()
        return self._written

    def _write(self) -> None:
        path = self._folder / f"predictions_{len(self._written) + 1:03d}.png"
        # With heat maps in pairs, so that none is torn apart.
        sheet = contact_sheet(self._tiles, columns=5 if self._heat_maps is None else 6)
        if self._heat_maps is not None:
            sheet = with_scale(sheet)
        with replacing(path) as draft:
            sheet.save(draft)
        self._tiles.clear()
        self._written.append(path)
