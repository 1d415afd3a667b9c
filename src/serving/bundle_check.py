"""The golden images of a bundle on this machine: pixels, then logits, beside those at export."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

import numpy as np
from mindspore import Tensor

from ..args import Config, replace
from ..data.sources import create_decoder
from ..errors import UserError
from ..runtime.log import problems_only
from .bundle import Bundle, Predict, predict_all, prepared, read_bundle, transform_lines
from .exported_network import open_exported

# Of a pixel, from 0 to 255: versions of Pillow round between the passes of a resize in turn.
PIXELS_ALLOWED = 1


class Difference(NamedTuple):
    """How far an image is from what was recorded.

    Attributes:
        image: its file.
        pixels: largest difference of one, from 0 to 255.
        logits: largest difference of one, of the recorded pixels.
        allowed: of a logit.
        is_same_class: the likeliest class is the recorded one.
        is_swapped: the pixels are right with red and blue in each other's place.
    """

    image: Path
    pixels: int
    logits: float
    allowed: float
    is_same_class: bool
    is_swapped: bool

    @property
    def is_right(self) -> bool:
        return self.pixels <= PIXELS_ALLOWED and self.logits <= self.allowed  # NaN is not

    def line(self) -> str:
        """What is shown of it."""
        verdict = "ok" if self.is_right else "DIFFERS"
        return (
            f"{self.image.name}: pixels {self.pixels} of 255 (allowed {PIXELS_ALLOWED}), "
            f"logits {self.logits:.3g} (allowed {self.allowed:.3g}), {verdict}"
        )


def check_bundle(
    folder: Path, config: Config, tolerance: Optional[float] = None
) -> Iterator[Difference]:
    """Runs the network of a bundle on the device of `config`.

    Args:
        config: its section run.
        tolerance: of logits, as a share of the largest; None: that of the bundle.

    Raises:
        UserError: the bundle is damaged, contradicts itself, or its network cannot be run here.
    """
    bundle = read_bundle(folder)
    with problems_only():  # the transform is compared below
        net, config, record = open_exported(replace(config, pretrained=str(bundle.network)))
    said = {"input": record.input, "num_classes": str(record.num_classes)}
    said.update({"batch_size": str(record.batch_size or 0), **transform_lines(config)})
    for key, value in said.items():
        if bundle.head[key] != value:
            raise UserError(
                f"bundle {str(folder)!r}: {key} is {bundle.head[key]} in bundle.tsv and {value} in "
                f"{bundle.network.name}.json; copy the whole folder again"
            )
    share = bundle.tolerance if tolerance is None else tolerance
    count = record.batch_size or len(bundle.golden)
    return iter(compare(bundle, config, lambda p: net(Tensor(p)).asnumpy(), count, share))


def compare(
    bundle: Bundle, config: Config, predict: Predict, batch_size: int, tolerance: float
) -> List[Difference]:
    """The same with a network that is there already."""
    decoder = create_decoder(config)
    found = predict_all(predict, np.stack([g.pixels for g in bundle.golden]), batch_size)
    largest = max(float(np.abs(golden.logits).max()) for golden in bundle.golden)
    allowed = tolerance * max(1.0, largest)
    differences = []
    for golden, logits in zip(bundle.golden, found):
        seen = prepared(config, decoder, golden.image)
        differences.append(
            Difference(
                golden.image,
                _largest(seen, golden.pixels),
                float(np.abs(logits - golden.logits).max()),
                allowed,
                bool(logits.argmax() == golden.logits.argmax()),
                _largest(seen[..., ::-1], golden.pixels) <= PIXELS_ALLOWED,
            )
        )
    return differences


def _largest(pixels: np.ndarray, others: np.ndarray) -> int:
    return int(np.abs(pixels.astype(np.int16) - others).max())


def explain(differences: List[Difference]) -> str:
    """What is wrong, in one line; empty when nothing is."""
    wrong = [found for found in differences if not found.is_right]
    if not wrong:
        return ""
    reasons = []
    pixels = [found for found in differences if found.pixels > PIXELS_ALLOWED]
    if pixels:
        worst = max(found.pixels for found in pixels)
        cause = "the transform or the decoder is another one"
        if all(found.is_swapped for found in pixels):
            cause = "red and blue are swapped"
        reasons.append(f"pixels by up to {worst} of 255: {cause}")
    logits = [found for found in differences if not found.logits <= found.allowed]
    if logits:
        largest = max(logits, key=lambda found: np.nan_to_num(found.logits, nan=np.inf))
        classes = sum(not found.is_same_class for found in logits)
        reasons.append(
            f"logits by up to {largest.logits:.3g} where {largest.allowed:.3g} is allowed, "
            f"{classes} likeliest classes changed: the runtime computes in another precision, or "
            "normalises otherwise"
        )
    return f"{len(wrong)} of {len(differences)} images differ; {'; '.join(reasons)}"
