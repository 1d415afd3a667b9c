"""torch, timm and torchvision, the oracles of many tests; without them those tests are skipped."""

from __future__ import annotations

import contextlib
import random
from typing import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """timm draws from the global generators: seed them, and put them back afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
