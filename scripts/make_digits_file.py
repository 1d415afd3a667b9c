"""Make src/data/digits.npz from scikit-learn: python scripts/make_digits_file.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUTPUT = Path(__file__).parents[1] / "src" / "data" / "digits.npz"


def main() -> None:
    """Write image (1797, 8, 8) uint8, values 0..16, and label (1797,) uint8."""
    digits = load_digits()
    np.savez_compressed(
        OUTPUT, image=digits.images.astype(np.uint8), label=digits.target.astype(np.uint8)
    )
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
