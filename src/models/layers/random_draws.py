"""Random numbers of a training step: a hash of (seed, step, layer, sample), exact when resumed."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ...overrides import Overridable

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


class SeededUniform(Overridable, nn.Cell):
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
        self.position = Tensor([i % PRIME for i in positions], ms.int32)

    def layer_key(self) -> Tensor:
        """() int32 in [0, PRIME), of seed, step and layer."""
        state = absorb(self.step % PRIME, self.start)
        return absorb(absorb(state, self.step // PRIME), self.layer)

    def sample_keys(self, batch: int) -> Tensor:
        """(B,) int32 in [0, PRIME), of the position too."""
        state = absorb(self.layer_key(), self.position[:batch])
        return absorb(absorb(state, 0), 0)

    def construct(self, batch: int) -> Tensor:
        return self.sample_keys(batch).astype(ms.float32) * (1.0 / PRIME)
