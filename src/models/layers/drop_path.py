"""Stochastic depth (Huang et al. 2016): whole residual branches are dropped, per sample."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ...kernels import cells, selection

# A prime below sqrt(2^31): products of residues fit in int32 on every backend. 3 does not divide
# PRIME - 1, so cubing is a bijection of the residues and a round loses nothing.
PRIME = 46337


def absorb(state: Tensor, key: Tensor) -> Tensor:
    """One round of the hash: int32 in [0, PRIME) of two such, or of broadcast arrays of them."""
    mixed = (state + key) % PRIME
    return (mixed * mixed % PRIME * mixed + 12345) % PRIME


class FrameworkUniform(nn.Cell):
    """(B,) numbers in [0, 1) from the framework's own stateful generator."""

    def __init__(self) -> None:
        super().__init__()
        self.uniform = ops.UniformReal()

    def construct(self, batch: int) -> Tensor:
        return self.uniform((batch,))


class SeededUniform(nn.Cell):
    """(B,) numbers in [0, 1) that depend on nothing but (seed, step, layer, position in the batch).

    The position is that in the batch of all ranks together, of which rank r has entries r,
    r + world_size, ...: so the number of ranks does not change what is drawn.

    A chain of cubings modulo a prime absorbs one key after the other. The resolution is 1 / 46337.
    `step` is a Parameter of the training step, saved with it, so a resumed run draws what an
    uninterrupted one would have drawn.
    """

    def __init__(
        self,
        seed: int,
        step: Parameter,
        layer: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        # Past Cell's own way, which would make the counter a parameter of the network, with a
        # place in its averages and statistics.
        object.__setattr__(self, "step", step)
        self.start = (seed % PRIME + 1) * 7 % PRIME
        self.layer = layer
        self.batch_size = batch_size
        positions = range(rank, batch_size * world_size, world_size)
        places = [i % PRIME for i in positions]
        self.position = Tensor(places, ms.int32)
        self.native = None
        if selection.is_native():
            self.native = cells.NativeDraws([self.start, layer, *places])

    def layer_key(self) -> Tensor:
        """() int32 in [0, PRIME), of seed, step and layer."""
        state = absorb(self.step % PRIME, self.start)
        return absorb(absorb(state, self.step // PRIME), self.layer)

    def sample_keys(self, batch: int) -> Tensor:
        """(B,) int32 in [0, PRIME), of the position too."""
        state = absorb(self.layer_key(), self.position[:batch])
        return absorb(absorb(state, 0), 0)

    def construct(self, batch: int) -> Tensor:
        if self.native is not None and batch == self.batch_size:
            return self.native(self.step)
        return self.sample_keys(batch).astype(ms.float32) * (1.0 / PRIME)


class DropPath(nn.Cell):
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
        self.native = cells.NativeAddKept() if selection.is_native() else None

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        return x * self.keep(x).reshape((x.shape[0],) + (1,) * (x.ndim - 1))

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """x and what is kept of the residual branch, 2 x (B, ...) -> (B, ...)."""
        if not self.training or self.drop_prob == 0.0:
            return x + branch
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x, branch, self.keep(x))
        return x + self.construct(branch)

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
