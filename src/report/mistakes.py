"""The most confident mistakes: their images, and where the network looked."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from ..data.channels import as_colours
from ..errors import UserError
from ..runs.markup import folded, image_source, text
from .outcomes import Collector, Outcomes
from .pictures import HEAT_STOPS, overlay

_LOGGER = logging.getLogger(__name__)
# Images whose heat maps are computed in one call.
_AT_ONCE = 5
# Cards before the folded ones.
_OPEN = 12
# Longer sides are made smaller; shorter ones are shown with their pixels.
_MOST_PIXELS, _FEW_PIXELS = 256, 96


class HeatMaps(NamedTuple):
    """Where the network looked at some images.

    Attributes:
        method: `Grad-CAM` or `attention rollout`.
        maps: (N, h, w), >= 0.
    """

    method: str
    maps: np.ndarray

    @property
    def is_single(self) -> bool:
        """The last features are of one position, so that there is nothing to tell apart."""
        return self.maps.shape[1:] == (1, 1)


def heat_maps_of(method: Tuple[str, Any], outcomes: Outcomes, found: Collector) -> HeatMaps:
    """Of the predicted classes of the mistakes.

    Args:
        method: as of `create_heat_maps`.
    """
    name, heat_map = method
    images = np.stack([image for _, _, image in found.mistakes])
    labels = np.array([outcomes.predicted[index] for _, index, _ in found.mistakes])
    # Always as many: another number would be compiled anew.
    rows = np.arange(-(-len(images) // _AT_ONCE) * _AT_ONCE).clip(max=len(images) - 1)
    maps = [
        heat_map(images[part], labels[part], len(outcomes.class_names))
        for part in rows.reshape(-1, _AT_ONCE)
    ]
    return HeatMaps(name, np.concatenate(maps)[: len(images)])


def try_heat_maps(
    create: Callable[[], Tuple[str, Any]], outcomes: Outcomes, found: Collector
) -> Optional[HeatMaps]:
    """The same of the method that `create` makes; None where nothing is wrong or it fails."""
    if not found.mistakes:
        return None
    try:
        return heat_maps_of(create(), outcomes, found)
    except (UserError, RuntimeError) as error:  # scores are worth more than pictures
        _LOGGER.warning("no heat maps in the report (%s)", error)
        return None


def mistakes_html(outcomes: Outcomes, found: Collector, heat: Optional[HeatMaps]) -> str:
    """A card for each, the most confident first."""
    is_drawn = heat is not None and not heat.is_single
    cards: List[str] = []
    for number, (confidence, index, pixels) in enumerate(found.mistakes):
        image = as_colours(pixels)
        names = [outcomes.class_names[of[index]] for of in (outcomes.predicted, outcomes.label)]
        pictures = [_picture(image, f"image of {names[1]}")]
        if heat is not None and is_drawn:
            shown = overlay(image, heat.maps[number])
            pictures.append(_picture(shown, f"where the network looked for {names[0]}", heat=True))
        cards.append(
            f'<li class="card"><div class="images">{"".join(pictures)}</div>'
            f"<div><b>{text(f'{names[0]} {100 * confidence:.1f} %')}</b>"
            f"<span>{text(f'true: {names[1]}')}</span>"
            f'<span class="soft">{text(Path(outcomes.images[index]).name)}</span></div></li>'
        )
    kind = "mistakes pairs" if is_drawn else "mistakes"
    lists = [
        f'<ol class="{kind}" start="{start + 1}">{"".join(part)}</ol>'
        for start, part in ((0, cards[:_OPEN]), (_OPEN, cards[_OPEN:]))
    ]
    more = folded(f"{len(cards) - _OPEN} more", lists[1]) if len(cards) > _OPEN else ""
    return _explanation(heat) + lists[0] + more


def _explanation(heat: Optional[HeatMaps]) -> str:
    if heat is None:
        return ""
    if heat.is_single:
        return (
            '<p class="soft">No heat maps: the last stage of this network has a single position '
            f"at this image size, so {text(heat.method)} has nothing to tell apart. A larger "
            "image_size gives it more.</p>"
        )
    height, width = heat.maps.shape[1:]
    colours = ",".join(f"rgb({r},{g},{b})" for r, g, b in HEAT_STOPS)
    return (
        f'<p class="soft">Beside each image where the network looked: {text(heat.method)}, '
        f"{height} x {width} positions, each image scaled to its own range.</p>"
        f'<div class="scale soft"><span>least</span><i style="background:linear-gradient(90deg,'
        f'{colours})"></i><span>most</span></div>'
    )


def _picture(pixels: np.ndarray, said: str, *, heat: bool = False) -> str:
    height, width = pixels.shape[:2]
    is_small = max(height, width) <= _FEW_PIXELS
    kind = ' class="small"' if is_small and not heat else ""
    size = f'width="{width}" height="{height}"'
    return f'<img{kind} {size} alt="{text(said)}" src="{image_source(_encoded(pixels, is_small))}">'


def _encoded(pixels: np.ndarray, is_small: bool) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    buffer = io.BytesIO()
    # A photograph as PNG takes ten times as much.
    if is_small:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()
