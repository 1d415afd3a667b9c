"""The operations of the policies at a magnitude: what is drawn for one, and with which argument.

Magnitudes run from 0 to 10. Arguments are those of timm 1.0.31 (`timm/data/auto_augment.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, NamedTuple, Optional, Sequence

import numpy as np

from .image_ops import WARP_OPS, Rgb8, Warp, apply_op
from .resampling import draw_filter

MAX_MAGNITUDE = 10.0


@dataclass(frozen=True)
class Surroundings:
    """What all operations of a policy share.

    Attributes:
        interpolation: bilinear, bicubic, or random: drawn for every geometric operation.
        fill: RGB, 0..255.
        image_size: side of the image, pixels.
        translate_share: largest relative translation.
        magnitude_std: standard deviation of the magnitude; inf: uniform from 0 on.
        magnitude_max: upper end of the magnitude.
    """

    interpolation: str
    fill: Rgb8
    image_size: int
    translate_share: float = 0.45
    magnitude_std: float = 0.0
    magnitude_max: float = MAX_MAGNITUDE


class OpCall(NamedTuple):
    """One operation, drawn.

    Attributes:
        name: as in `image_ops`.
        argument: of that function.
        warp: of a geometric one.
    """

    name: str
    argument: float
    warp: Warp


class Op(NamedTuple):
    """An operation of a policy.

    Attributes:
        name: of the function in `image_ops`.
        argument: (share of the full magnitude, sign 1 or -1, surroundings) -> its argument.
        is_signed: whether a sign is drawn.
    """

    name: str
    argument: Callable[[float, int, Surroundings], float]
    is_signed: bool = False


def _no_argument(share: float, sign: int, around: Surroundings) -> float:
    return 0.0


def _enhance(share: float, sign: int, around: Surroundings) -> float:
    return share * 1.8 + 0.1


def _enhance_increasing(share: float, sign: int, around: Surroundings) -> float:
    return max(0.1, 1.0 + sign * (share * 0.9))


def _solarize(share: float, sign: int, around: Surroundings) -> float:
    return min(256, int(share * 256))


def _translate_torchvision(share: float, sign: int, around: Surroundings) -> float:
    # Towards the right and down when the sign is positive, the other way round than timm's.
    return -sign * int(150 / 331 * around.image_size * share)


def _between(low: float, high: float) -> Callable[[float, int, Surroundings], float]:
    return lambda share, sign, around: max(low, min(high, low + (high - low) * share))


OPS: Dict[str, Op] = {
    "AutoContrast": Op("AutoContrast", _no_argument),
    "Equalize": Op("Equalize", _no_argument),
    "Invert": Op("Invert", _no_argument),
    "Rotate": Op("Rotate", lambda share, sign, around: sign * (share * 30.0), True),
    "Posterize": Op("Posterize", lambda share, sign, around: int(share * 4)),
    "PosterizeIncreasing": Op("Posterize", lambda share, sign, around: 4 - int(share * 4)),
    "PosterizeOriginal": Op("Posterize", lambda share, sign, around: 4 + int(share * 4)),
    "Solarize": Op("Solarize", _solarize),
    "SolarizeIncreasing": Op("Solarize", lambda *drawn: 256 - _solarize(*drawn)),
    "SolarizeAdd": Op("SolarizeAdd", lambda share, sign, around: min(128, int(share * 110))),
    "Color": Op("Color", _enhance),
    "ColorIncreasing": Op("Color", _enhance_increasing, True),
    "Contrast": Op("Contrast", _enhance),
    "ContrastIncreasing": Op("Contrast", _enhance_increasing, True),
    "Brightness": Op("Brightness", _enhance),
    "BrightnessIncreasing": Op("Brightness", _enhance_increasing, True),
    "Sharpness": Op("Sharpness", _enhance),
    "SharpnessIncreasing": Op("Sharpness", _enhance_increasing, True),
    "ShearX": Op("ShearX", lambda share, sign, around: sign * (share * 0.3), True),
    "ShearY": Op("ShearY", lambda share, sign, around: sign * (share * 0.3), True),
    "TranslateXRel": Op(
        "TranslateXRel", lambda share, sign, around: sign * (share * around.translate_share), True
    ),
    "TranslateYRel": Op(
        "TranslateYRel", lambda share, sign, around: sign * (share * around.translate_share), True
    ),
    "TranslateX": Op(
        "TranslateX",
        lambda share, sign, around: sign * (share * int(around.image_size * 0.45)),
        True,
    ),
    "TranslateY": Op(
        "TranslateY",
        lambda share, sign, around: sign * (share * int(around.image_size * 0.45)),
        True,
    ),
    "PosterizeTorchvision": Op("Posterize", lambda share, sign, around: 8 - round(share * 4)),
    "SolarizeTorchvision": Op("Solarize", lambda share, sign, around: 255.0 - 255.0 * share),
    "TranslateXTorchvision": Op("TranslateX", _translate_torchvision, True),
    "TranslateYTorchvision": Op("TranslateY", _translate_torchvision, True),
    "Desaturate": Op("Desaturate", _between(0.5, 1.0)),
    "GaussianBlur": Op("GaussianBlur", _between(0.1, 2.0)),
    # The largest radius; the radius itself is drawn.
    "GaussianBlurRand": Op("GaussianBlur", lambda share, sign, around: 2.0 * min(1.0, share)),
}


def draw_magnitude(mean: float, around: Surroundings, rng: np.random.Generator) -> float:
    """The magnitude of one operation, in [0, around.magnitude_max]."""
    if around.magnitude_std == math.inf:
        mean = rng.uniform(0.0, mean)
    elif around.magnitude_std > 0:
        mean = rng.normal(mean, around.magnitude_std)
    return max(0.0, min(mean, around.magnitude_max))


def op_call(
    name: str, magnitude: float, sign: int, *, around: Surroundings, rng: np.random.Generator
) -> OpCall:
    """An operation at a given magnitude and sign.

    Args:
        name: of `OPS`.
        magnitude: 0..10, or above.
        sign: 1 or -1; only signed operations read it.
        around: what all operations share.
        rng: draws the filter if that is random, and the radius of GaussianBlurRand.
    """
    op = OPS[name]
    argument = op.argument(magnitude / MAX_MAGNITUDE, sign, around)
    if name == "GaussianBlurRand":
        argument = rng.uniform(0.1, argument)
    return OpCall(op.name, argument, draw_warp(op.name, around, rng))


def draw_warp(name: str, around: Surroundings, rng: np.random.Generator) -> Warp:
    """Filter and fill of an operation of `image_ops`; only geometric ones draw a filter."""
    interpolation = around.interpolation if name in WARP_OPS else "bicubic"
    return Warp(draw_filter(interpolation, rng), around.fill)


def draw_op_call(
    name: str,
    magnitude: float,
    probability: float,
    *,
    around: Surroundings,
    rng: np.random.Generator,
) -> Optional[OpCall]:
    """Draw whether an operation of `OPS` is applied, and how; None: it is not."""
    if rng.random() >= probability:
        return None
    magnitude = draw_magnitude(magnitude, around, rng)
    sign = 1 - 2 * int(rng.integers(2)) if OPS[name].is_signed else 1
    return op_call(name, magnitude, sign, around=around, rng=rng)


def apply_calls(image: np.ndarray, calls: Sequence[OpCall]) -> np.ndarray:
    """One operation after the other."""
    for call in calls:
        image = apply_op(image, *call)
    return image
