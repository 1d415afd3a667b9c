"""How much each class weighs in the loss."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np

from ..errors import UserError, some_of, suggestion
from ..runtime.files import file_sha256
from ..runtime.plain_numbers import decimal_number
from ..runtime.regular_files import NAMES_BYTES
from .class_file import read_class_file

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
    said = read_class_file(
        path,
        key=key,
        form="CLASS,WEIGHT",
        least_cells=2,
        instead="balanced, or a file with a line CLASS,WEIGHT for each class",
    )
    found = {name: _weight_of(name, text, key) for name, text in said.items()}
    missing = [name for name in class_names if name not in found]
    unknown = [name for name in found if name not in set(class_names)]
    if missing or unknown:
        parts = [f"no weight for {some_of(missing)}"] if missing else []
        parts += [f"no class of the data is called {some_of(unknown)}"] if unknown else []
        meant = suggestion(unknown[0], missing) if unknown else ""
        raise UserError(f"{key}: {'; '.join(filter(None, [*parts, meant]))}; correct the file")
    return found


def _weight_of(name: str, text: str, key: str) -> float:
    try:
        weight = decimal_number(text)
    except ValueError as error:
        raise UserError(
            f"{key}: {text[:40]!r} of {name!r} is no number such as 0.5; correct the file"
        ) from error
    if not 1e-6 <= weight <= 1e6:
        raise UserError(
            f"{key}: weight {weight:g} of {name!r} is not within 1e-6 and 1e6; correct the file"
        )
    return weight
