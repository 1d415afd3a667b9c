"""How much each class weighs in the loss."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np

from ..errors import UserError, some_of, suggestion
from ..runtime.files import file_sha256
from ..runtime.plain_numbers import decimal_number
from ..runtime.regular_files import NAMES_BYTES, read_text

_LOGGER = logging.getLogger(__name__)
BALANCED = "balanced"


def resolve_class_weights(
    given: Optional[str],
    class_names: Optional[Sequence[str]],
    images_per_class: Optional[Sequence[int]],
) -> Optional[np.ndarray]:
    """What the key `class_weights` comes to: (K,) float32, above 0; None: all weigh the same.

    `balanced` is scikit-learn's: N / (C * n) for a class with n of the N images, where C classes
    have any. A class without images weighs 1.

    Args:
        given: `balanced` or a file, see `read_class_weights`.
        class_names, images_per_class: of the training data; None: not known.

    Raises:
        UserError: they are not known, or as of `read_class_weights`.
    """
    if given is None:
        return None
    if class_names is None or images_per_class is None:
        raise UserError(
            f"class_weights {given!r}: the classes of the data and their images are not known "
            "here; set it to null"
        )
    if given == BALANCED:
        images = np.asarray(images_per_class, np.float64)
        has_images = images > 0
        weights = np.ones(len(images))
        weights[has_images] = images.sum() / (has_images.sum() * images[has_images])
    else:
        known = read_class_weights(Path(given), class_names)
        weights = np.array([known[name] for name in class_names])
    low, high = int(weights.argmin()), int(weights.argmax())
    _LOGGER.info(
        "class_weights %s: from %.4g (%s) to %.4g (%s)",
        given,
        *(weights[low], class_names[low], weights[high], class_names[high]),
    )
    return weights.astype(np.float32)


def digest_of_class_weights(given: Optional[str]) -> Optional[str]:
    """SHA-256 of the file that the key names; None: it names none that can be read."""
    if given in (None, BALANCED):
        return None
    try:
        return file_sha256(Path(given), NAMES_BYTES)
    except OSError:
        return None


def read_class_weights(path: Path, class_names: Sequence[str]) -> Dict[str, float]:
    """Class -> weight from a CSV file without a header: a line CLASS,WEIGHT for each class.

    Lines that begin with # are comments.

    Raises:
        UserError: no such file, another content, a class too many or too few.
    """
    key = f"class_weights {str(path)!r}"
    try:
        text = read_text(path, NAMES_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise UserError(
            f"{key}: cannot be read ({reason}); give balanced, or a file with a line CLASS,WEIGHT "
            "for each class"
        ) from error
    found: Dict[str, float] = {}
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        for number, cells in enumerate(csv.reader(io.StringIO("\n".join(lines)), strict=True), 1):
            if len(cells) != 2:
                raise ValueError(f"class {number} is not CLASS,WEIGHT")
            name, said = (cell.strip() for cell in cells)
            try:
                weight = decimal_number(said)
            except ValueError as error:
                raise ValueError(f"{said[:40]!r} of {name!r} is no number such as 0.5") from error
            if name in found or not 1e-6 <= weight <= 1e6:
                raise ValueError(
                    f"{name!r} is there twice"
                    if name in found
                    else f"weight {weight:g} of {name!r} is not within 1e-6 and 1e6"
                )
            found[name] = weight
    except (ValueError, csv.Error) as error:
        raise UserError(f"{key}: {error}; correct the file") from error
    missing = [name for name in class_names if name not in found]
    unknown = [name for name in found if name not in set(class_names)]
    if missing or unknown:
        parts = [f"no weight for {some_of(missing)}"] if missing else []
        parts += [f"no class of the data is called {some_of(unknown)}"] if unknown else []
        meant = suggestion(unknown[0], missing) if unknown else ""
        raise UserError(f"{key}: {'; '.join(filter(None, [*parts, meant]))}; correct the file")
    return found
