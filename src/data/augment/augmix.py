"""AugMix: a weighted mixture of several chains of operations (Hendrycks et al., arXiv 1912.02781).

Semantics are those of timm 1.0.31, whose set of operations is larger than the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, NamedTuple, Optional

import numpy as np
from PIL import Image

from .op_levels import OpCall, Surroundings, apply_calls, draw_op_call
from .policy_tables import AUGMIX_OPS

_DEPTHS = (1, 3)


class MixedChains(NamedTuple):
    """What AugMix draws for one image.

    Attributes:
        chains: operations of each chain.
        weights: of the chains; (len(chains),) float32, sum to 1.
        share: of the mixture in the result, against the image itself; float32.
    """

    chains: List[List[OpCall]]
    weights: np.ndarray
    share: np.float32


@dataclass(frozen=True)
class AugMix:
    """A mixture of several chains of operations (Hendrycks et al., arXiv 1912.02781).

    Attributes:
        width: chains.
        depth: operations per chain; None: 1 to 3, drawn for each chain.
        alpha: of the Dirichlet distribution of the weights, and of the Beta one of the share.
        is_blended: timm's faster variant, which mixes chain by chain.
    """

    magnitude: float
    width: int
    depth: Optional[int]
    alpha: float
    is_blended: bool
    around: Surroundings

    def draw(self, rng: np.random.Generator) -> MixedChains:
        """Chains and weights of one image."""
        weights = rng.dirichlet([self.alpha] * self.width).astype(np.float32)
        share = np.float32(rng.beta(self.alpha, self.alpha))
        return MixedChains([self._draw_chain(rng) for _ in range(self.width)], weights, share)

    def _draw_chain(self, rng: np.random.Generator) -> List[OpCall]:
        low, high = _DEPTHS
        depth = self.depth or rng.integers(low, high, endpoint=True)
        names = [AUGMIX_OPS[i] for i in rng.integers(len(AUGMIX_OPS), size=depth)]
        calls = [
            draw_op_call(name, self.magnitude, 1.0, around=self.around, rng=rng) for name in names
        ]
        return [call for call in calls if call is not None]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = self.draw(rng)
        return blend_chains(image, drawn) if self.is_blended else mix_chains(image, drawn)


def _blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The first image, and a share of the second."""
    return np.asarray(Image.blend(Image.fromarray(first), Image.fromarray(second), share))


def mix_chains(image: np.ndarray, drawn: MixedChains) -> np.ndarray:
    """The paper's mixture: weighted sum of the chains, then blended with the image."""
    mixed = np.zeros(image.shape, np.float32)
    for weight, chain in zip(drawn.weights, drawn.chains):
        mixed += weight * apply_calls(image, chain).astype(np.float32)
    whole = np.clip(mixed, 0, 255).astype(np.uint8)
    return _blend(image, whole, float(drawn.share))


def blend_chains(image: np.ndarray, drawn: MixedChains) -> np.ndarray:
    """The same mixture up to rounding: each chain is blended onto what there is so far."""
    # Blending later chains shrinks what the earlier ones left, so these start with more.
    remaining = 1.0
    alphas: List[float] = []
    for weight in (drawn.weights * drawn.share)[::-1]:
        alphas.insert(0, weight / remaining)
        remaining *= 1 - alphas[0]
    result = image
    for alpha, chain in zip(np.array(alphas, np.float32), drawn.chains):
        result = _blend(result, apply_calls(image, chain), float(alpha))
    return result
