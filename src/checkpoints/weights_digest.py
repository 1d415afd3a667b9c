"""A digest of all tensors of a training state, whatever their order and what is saved beside them.

Each tensor has a digest of its name, type and dims, as a line of text, and of its bytes. That of
all is a digest of these, by the order of the names. All are XXH3, 128 bits.
"""

from __future__ import annotations

from typing import Dict, Iterable, Tuple

import numpy as np
import xxhash


class WeightsDigest:
    """Takes tensors one at a time."""

    def __init__(self) -> None:
        self._digests: Dict[str, bytes] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        """Takes one; bfloat16 as float32, which a checkpoint is read as."""
        if str(array.dtype) == "bfloat16":
            array = array.astype(np.float32)
        digest = xxhash.xxh3_128(
            f"{name} {array.dtype} {','.join(map(str, array.shape))}\n".encode()
        )
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._digests[name] = digest.digest()

    def hex(self) -> str:
        """Of all: 32 digits."""
        digests = (self._digests[name] for name in sorted(self._digests))
        return xxhash.xxh3_128(b"".join(digests)).hexdigest()


def digest_of(tensors: Iterable[Tuple[str, np.ndarray]]) -> str:
    """The digest of tensors by name, 32 digits."""
    digest = WeightsDigest()
    for name, array in tensors:
        digest.add(name, array)
    return digest.hex()
