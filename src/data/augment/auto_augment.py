"""Augmentation policies: RandAugment, AutoAugment, 3-Augment, AugMix, TrivialAugmentWide.

Semantics are those of timm 1.0.31 (`timm/data/auto_augment.py`), where `inc0` is off (before, any
`inc<digit>` was on). `ta_wide` and `cifar10`, which timm has not, are torchvision's. First
everything about an image is drawn, as a list of `OpCall`; then it is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ...errors import UserError
from .augmix import AugMix
from .image_ops import Rgb8
from .op_levels import (
    MAX_MAGNITUDE,
    OpCall,
    Surroundings,
    apply_calls,
    draw_op_call,
    draw_warp,
)
from .policy_grammar import parse_policy
from .policy_tables import AUTO_AUGMENT_POLICIES, RAND_AUGMENT_SETS, SubPolicy

# (H, W, 3) uint8, generator of this image -> the same.
Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_DEFAULT_NUM_OPS = 2
_DEFAULT_PROBABILITY = 0.5
# RandAugment: a larger `mstd` stands for a uniform magnitude.
_LARGEST_STD = 100.0
_AUGMIX_MAGNITUDE, _AUGMIX_WIDTH, _AUGMIX_ALPHA, _AUGMIX_TRANSLATE_SHARE = 3, 3, 1.0, 0.3


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` operations of a set, each applied with a probability (arXiv 1909.13719).

    Attributes:
        names: of `op_levels.OPS`.
        weights: sum to 1, then no operation is drawn twice; None: equal, and any may come again.
        num_ops: operations drawn per image.
        magnitude: 0..10, or up to around.magnitude_max.
        probability: of applying each.
    """

    names: Tuple[str, ...]
    weights: Optional[Tuple[float, ...]]
    num_ops: int
    magnitude: float
    probability: float
    around: Surroundings

    def draw(self, rng: np.random.Generator) -> List[OpCall]:
        """The operations of one image."""
        if self.weights is None:
            chosen = rng.integers(len(self.names), size=self.num_ops)
        else:
            chosen = rng.choice(len(self.names), self.num_ops, replace=False, p=self.weights)
        calls = [
            draw_op_call(
                self.names[position],
                self.magnitude,
                self.probability,
                around=self.around,
                rng=rng,
            )
            for position in chosen
        ]
        return [call for call in calls if call is not None]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return apply_calls(image, self.draw(rng))


@dataclass(frozen=True)
class AutoAugment:
    """One of a policy's sub-policies per image (arXiv 1805.09501)."""

    policy: List[SubPolicy]
    around: Surroundings

    def draw(self, rng: np.random.Generator) -> List[OpCall]:
        """The operations of one image."""
        steps = self.policy[rng.integers(len(self.policy))]
        calls = [
            draw_op_call(name, magnitude, probability, around=self.around, rng=rng)
            for name, probability, magnitude in steps
        ]
        return [call for call in calls if call is not None]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return apply_calls(image, self.draw(rng))


class TrivialOp(NamedTuple):
    """An operation of TrivialAugmentWide.

    Attributes:
        argument: of the function in `image_ops`, given the strength 0..1 in 31 steps and the sign.
        is_signed: whether a sign is drawn.
    """

    argument: Callable[[float, int], float]
    is_signed: bool = False


_STRENGTHS = 30
TRIVIAL_OPS: Dict[str, TrivialOp] = {
    "Identity": TrivialOp(lambda strength, sign: 0.0),
    "ShearX": TrivialOp(lambda strength, sign: sign * 0.99 * strength, True),
    "ShearY": TrivialOp(lambda strength, sign: sign * 0.99 * strength, True),
    # Towards the right and down when positive, the other way round than timm's.
    "TranslateX": TrivialOp(lambda strength, sign: -sign * int(32 * strength), True),
    "TranslateY": TrivialOp(lambda strength, sign: -sign * int(32 * strength), True),
    "Rotate": TrivialOp(lambda strength, sign: sign * 135.0 * strength, True),
    "Brightness": TrivialOp(lambda strength, sign: 1.0 + sign * 0.99 * strength, True),
    "Color": TrivialOp(lambda strength, sign: 1.0 + sign * 0.99 * strength, True),
    "Contrast": TrivialOp(lambda strength, sign: 1.0 + sign * 0.99 * strength, True),
    "Sharpness": TrivialOp(lambda strength, sign: 1.0 + sign * 0.99 * strength, True),
    "Posterize": TrivialOp(lambda strength, sign: 8 - round(6 * strength)),
    "Solarize": TrivialOp(lambda strength, sign: 255.0 - 255.0 * strength),
    "AutoContrast": TrivialOp(lambda strength, sign: 0.0),
    "Equalize": TrivialOp(lambda strength, sign: 0.0),
}


@dataclass(frozen=True)
class TrivialAugmentWide:
    """One operation at a uniform strength (Müller and Hutter, arXiv 2103.10158).

    Against torchvision: filter and fill are those of the other policies, its own defaults are
    nearest and black; and step 15 of a translation is 16 pixels, which its float32 makes 15.
    """

    around: Surroundings

    def draw(self, rng: np.random.Generator) -> List[OpCall]:
        """The operation of one image."""
        name = list(TRIVIAL_OPS)[rng.integers(len(TRIVIAL_OPS))]
        strength = rng.integers(_STRENGTHS, endpoint=True) / _STRENGTHS
        sign = 1 - 2 * int(rng.integers(2))
        argument = TRIVIAL_OPS[name].argument(strength, sign)
        return [OpCall(name, argument, draw_warp(name, self.around, rng))]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return apply_calls(image, self.draw(rng))


def create_policy(text: str, *, image_size: int, interpolation: str, fill: Rgb8) -> Policy:
    """The policy of an `auto_augment` string, see `parse_policy`.

    Args:
        text: such as rand-m9-mstd0.5-inc1.
        image_size: side of the images, pixels.
        interpolation: of geometric operations; `random`: drawn for each of them.
        fill: RGB, 0..255, of what geometric operations bring in.

    Raises:
        UserError: the string is not in the grammar, or asks for more ops than its set has.
    """
    name, values = parse_policy(text)
    around = Surroundings(interpolation, fill, image_size)
    if name == "rand":
        return _create_rand_augment(text, values, around)
    if name == "augmix":
        return _create_augmix(values, around)
    if name == "ta_wide":
        return TrivialAugmentWide(around)
    around = replace(around, magnitude_std=values.get("mstd", 0.0))
    return AutoAugment(AUTO_AUGMENT_POLICIES[name], around)


def _create_rand_augment(text: str, values: Dict[str, Any], around: Surroundings) -> RandAugment:
    std = values.get("mstd", 0.0)
    chosen = values.get("t", "increasing" if values.get("inc") else "plain")
    num_ops = values.get("n", _DEFAULT_NUM_OPS)
    weights = RAND_AUGMENT_SETS[chosen]
    total = sum(weights.values())
    is_equal = len(set(weights.values())) == 1
    if not is_equal and num_ops > len(weights):
        raise UserError(
            f"auto_augment {text!r}: 'n' {num_ops} is more than the {len(weights)} ops of set "
            f"{chosen!r}, which are drawn without repetition; lower it"
        )
    return RandAugment(
        names=tuple(weights),
        weights=None if is_equal else tuple(weight / total for weight in weights.values()),
        num_ops=num_ops,
        magnitude=values.get("m", MAX_MAGNITUDE),
        probability=values.get("p", _DEFAULT_PROBABILITY),
        around=replace(
            around,
            magnitude_std=math.inf if std > _LARGEST_STD else std,
            magnitude_max=values.get("mmax", MAX_MAGNITUDE),
        ),
    )


def _create_augmix(values: Dict[str, Any], around: Surroundings) -> AugMix:
    return AugMix(
        magnitude=values.get("m", _AUGMIX_MAGNITUDE),
        width=values.get("w", _AUGMIX_WIDTH),
        depth=values.get("d"),
        alpha=values.get("a", _AUGMIX_ALPHA),
        is_blended=bool(values.get("b")),
        around=replace(
            around,
            translate_share=_AUGMIX_TRANSLATE_SHARE,
            magnitude_std=values.get("mstd", math.inf),
        ),
    )
