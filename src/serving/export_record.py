"""What export.py says about a file it wrote, kept beside it as FILE.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..args import Config
from ..configs.parser import keys_marked
from ..data.classes import TrainedClasses
from ..errors import UserError
from ..runtime.files import file_sha256, write_json
from ..runtime.json_files import read_json
from ..runtime.regular_files import EXPORT_BYTES, RECORD_BYTES, require_regular


@dataclass(frozen=True)
class ExportRecord:
    """A network in a file.

    Attributes:
        input: float32_nchw or uint8_nhwc.
        batch_size: images per call; None: any number.
        transform: keys of the recipe that say how images become inputs, with their values.
        sha256: of the file.
        mindspore: version that wrote it.
        class_names: of the training data, when the checkpoint says them.
        is_converted: the weights were trained by another library.
    """

    arch: str
    num_classes: int
    image_size: int
    input: str
    batch_size: Optional[int]
    transform: Dict[str, Any]
    sha256: str
    mindspore: str
    class_names: Optional[List[str]] = None
    is_converted: bool = False

    def trained_classes(self, source: str) -> TrainedClasses:
        """What the file says of its classes; `source` names it in messages."""
        return TrainedClasses(source, self.class_names, self.is_converted)

    def settings(self) -> Dict[str, Any]:
        """Values of flat keys that a recipe for this network's inputs has."""
        own = {key: getattr(self, key) for key in ("arch", "num_classes", "image_size", "input")}
        return {**own, **{key: self.transform[key] for key in TRANSFORM_KEYS}}


# Keys of the recipe that decide what an evaluated image looks like, but for image_size.
TRANSFORM_KEYS = tuple(keys_marked(Config, "transform"))
# Keys younger than the first records -> what was done before.
_BEFORE = {"exif_orientation": False, "background": None}


def transform_of(config: Config) -> Dict[str, Any]:
    """The values of TRANSFORM_KEYS."""
    return {key: getattr(config.data, key) for key in TRANSFORM_KEYS}


def record_path(path: Path) -> Path:
    """Where the record of an exported file is kept."""
    return path.with_name(f"{path.name}.json")


def write_record(path: Path, record: ExportRecord) -> None:
    """Writes the record of the file at `path` beside it."""
    write_json(record_path(path), asdict(record))


def read_record(path: Path) -> ExportRecord:
    """The record of an exported file, which must be the file it was written for.

    Raises:
        UserError: file or record missing or damaged.
    """
    kind = path.suffix[1:] or "exported file"
    try:
        require_regular(path, EXPORT_BYTES)
    except OSError as error:
        raise UserError(f"{kind} {str(path)!r}: {error.strerror}; export.py writes one") from error
    beside = record_path(path)
    try:
        record = ExportRecord(**read_json(beside, RECORD_BYTES))
        record.transform.update({**_BEFORE, **record.transform})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{kind} {str(path)!r}: export.py wrote a {beside.name} beside it, which is missing or "
            f"damaged ({error})"
        ) from error
    if file_sha256(path, EXPORT_BYTES) != record.sha256:
        raise UserError(
            f"{kind} {str(path)!r}: not the file that {beside.name} describes, or damaged; copy "
            "both again"
        )
    return record
