"""Files with a line for each class, which the keys `class_subset` and `class_weights` name."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Dict

from ..errors import UserError
from ..runtime.regular_files import NAMES_BYTES, read_text


def read_class_file(
    path: Path, *, key: str, form: str, least_cells: int, instead: str
) -> Dict[str, str]:
    """First cell -> last cell of each line of a CSV file without a header, in their order.

    Lines that begin with # are comments.

    Args:
        key: and its value, as messages name them.
        form: of a line, for messages.
        least_cells: of a line, 1 or 2; it has 2 at most.
        instead: what may be given.

    Raises:
        UserError: no such file, a line of another form, or a first cell twice.
    """
    try:
        text = read_text(path, NAMES_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise UserError(f"{key}: cannot be read ({reason}); give {instead}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: Dict[str, str] = {}
    try:
        for number, row in enumerate(csv.reader(io.StringIO("\n".join(lines)), strict=True), 1):
            cells = [cell.strip() for cell in row]
            if not least_cells <= len(cells) <= 2 or not all(cells):
                raise ValueError(f"class {number} is not {form}")
            if cells[0] in found:
                raise ValueError(f"{cells[0]!r} is there twice")
            found[cells[0]] = cells[-1]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{key}: {error}; correct the file") from error
    return found
