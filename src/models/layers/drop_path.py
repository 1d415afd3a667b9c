"""Stochastic depth (Huang et al. 2016): whole residual branches are dropped, per sample."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from ...overrides import Overridable
from .random_draws import FrameworkUniform, SeededUniform


class DropPath(Overridable, nn.Cell):
    """Zeroes each sample of x (B, ...) with probability `drop_prob`; the rest is scaled up.

    The identity in evaluation and for probability 0.

    Raises:
        ValueError: `drop_prob` outside [0, 1).
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        if not 0.0 <= drop_prob < 1.0:
            raise ValueError(f"drop_prob {drop_prob}: expected a number in [0, 1)")
        self.drop_prob = drop_prob
        self.uniform = FrameworkUniform()

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        return x * self.keep(x).reshape((x.shape[0],) + (1,) * (x.ndim - 1))

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """x and what is kept of the residual branch, 2 x (B, ...) -> (B, ...)."""
        if not self.training or self.drop_prob == 0.0:
            return x + branch
        return x + self.construct(branch)

    def add_scaled(self, x: Tensor, branch: Tensor, gamma: Tensor) -> Tensor:
        """The same of the branch times a layer scale (Touvron et al. 2021, "Going deeper", 2).

        Args:
            gamma: (C,), of the last axis. A parameter of the caller, for whom this is no other
                cell: mixed precision would cast what it hands to one.
        """
        # Not in float16, where the initial 1e-6 is subnormal.
        return self.add(x, (branch.astype(gamma.dtype) * gamma).astype(x.dtype))

    def keep(self, x: Tensor) -> Tensor:
        """Factor of each sample of x (B, ...): (B,) of 0 or 1 / (1 - drop_prob), or all 1."""
        if not self.training or self.drop_prob == 0.0:
            return ops.ones((x.shape[0],), x.dtype)
        kept = (self.uniform(x.shape[0]) >= self.drop_prob).astype(x.dtype)
        return kept * (1.0 / (1.0 - self.drop_prob))


def seed_drop_paths(
    network: nn.Cell,
    *,
    seed: int,
    step: Parameter,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Makes every active DropPath of `network` draw from (seed, step, its number, sample)."""
    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, DropPath)]
    for number, cell in enumerate(layers):
        if cell.drop_prob > 0.0:
            cell.uniform = SeededUniform(
                seed, step, number, batch_size, rank=rank, world_size=world_size
            )
