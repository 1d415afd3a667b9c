"""Features of images in a file: what `predict.py --output embeddings` writes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from ..errors import UserError
from ..runtime.text import without_surrogates
from .predictions import import_pyarrow, replace_file

EMBEDDINGS = "embeddings"


def check_embeddings(path: Optional[Path]) -> None:
    """Refuses, before any work, a file that cannot be written here.

    Raises:
        UserError: no file, another ending, or parquet without pyarrow.
    """
    if path is None or path.suffix not in (".npz", ".parquet"):
        raise UserError(
            f"output '{EMBEDDINGS}': is a file of NumPy or parquet; give --output_file FILE.npz or "
            "FILE.parquet"
        )
    if path.suffix == ".parquet":
        import_pyarrow("give --output_file FILE.npz")


def write_embeddings(path: Path, images: Sequence[str], features: np.ndarray) -> Path:
    """Writes features (N, C) float32 with the path of each image; whole or not at all.

    An .npz has `image` (N,) and `embedding` (N, C); a .parquet the same as columns.

    Raises:
        UserError: the file cannot be written.
    """
    names = list(map(without_surrogates, images))
    sink = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(sink, image=np.array(names), embedding=features)
        return replace_file(path, sink.getvalue())
    pyarrow = import_pyarrow()
    flat = pyarrow.array(features.reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(flat, features.shape[1])
    pyarrow.parquet.write_table(pyarrow.table({"image": names, "embedding": rows}), sink)
    return replace_file(path, sink.getvalue())
