"""Write src/data/digits.npz, the images of `set: Digits`, from scikit-learn: for developers.

python scripts/make_digits_file.py

The file has image (1797, 8, 8) uint8, values 0..16, and label (1797,) uint8.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.runtime.entry import CommandParser, run_command
from src.runtime.files import check_output, replacing

OUTPUT = ROOT / "src" / "data" / "digits.npz"


def make(arguments: argparse.Namespace) -> None:
    """Writes the file and prints its size."""
    output = arguments.output
    check_output("output", output, ".npz")
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    arrays = {"image": digits.images, "label": digits.target}
    with replacing(output) as draft:
        np.savez_compressed(draft, **{name: a.astype(np.uint8) for name, a in arrays.items()})
    print(f"{output}: {output.stat().st_size} bytes")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = CommandParser("make_digits_file.py", __doc__ or "")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="file to write (default: %(default)s)"
    )
    return run_command(make, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
