"""What export.py says about a file it wrote, kept beside it as FILE.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Dict, Literal, Optional

from msgspec import Meta

from ..args import Config
from ..checkpoints.saved_record import (
    MOST_CLASSES,
    MOST_SIDE,
    ClassNames,
    Format,
    Sha256,
    Text,
    refuse_newer,
)
from ..configs.parser import keys_marked
from ..data.classes import TrainedClasses
from ..errors import UserError
from ..models.registry import family_of
from ..runtime.files import file_sha256, write_json
from ..runtime.json_files import parse_json, parse_typed
from ..runtime.regular_files import EXPORT_BYTES, RECORD_BYTES, read_regular, require_regular

Input = Literal["float32_nchw", "uint8_nhwc"]
Separator = Literal["bar", "semicolon", "comma", "space"]
# Of the images of one call, as float32.
_MOST_INPUT_BYTES = 2**32
# Largest difference of a file's logit from its network's, as a share of the largest logit.
TOLERANCE = 1e-4
# Of the records that this version writes. It grows when older ones would read them wrongly.
_FORMAT = 1
# In the record: SHA-256 of all else that is in it. Older ones have none.
_DIGEST = "digest"


@dataclass(frozen=True)
class ExportRecord:
    """A network in a file.

    Attributes:
        input: of the network.
        batch_size: images per call; None: any number.
        transform: keys of the recipe that say how images become inputs, with their values.
        sha256: of the file.
        mindspore: version that wrote it.
        class_names: of the training data, when the checkpoint says them.
        label_separator: of a network for images with several labels, that of its lists.
        is_converted: the weights were trained by another library.
        source, source_sha256, published, started_from, licence: as in `SavedRecord`.
        format: versions before there were numbers wrote the first.
    """

    arch: Annotated[str, Meta(min_length=1, max_length=200)]
    num_classes: Annotated[int, Meta(ge=1, le=MOST_CLASSES)]
    image_size: Annotated[int, Meta(ge=1, le=MOST_SIDE)]
    input: Input
    batch_size: Optional[Annotated[int, Meta(ge=1, le=65_536)]]
    transform: Dict[str, Any]
    sha256: Sha256
    mindspore: Text
    class_names: Optional[ClassNames] = None
    is_converted: bool = False
    source: Optional[Text] = None
    source_sha256: Optional[Sha256] = None
    published: Optional[Text] = None
    started_from: Optional[Text] = None
    licence: Optional[Text] = None
    in_chans: Annotated[int, Meta(ge=1, le=4)] = 3
    label_separator: Optional[Separator] = None
    format: Format = _FORMAT

    def trained_classes(self, source: str) -> TrainedClasses:
        """What the file says of its classes; `source` names it in messages."""
        return TrainedClasses(source, self.class_names, self.is_converted)

    def settings(self) -> Dict[str, Any]:
        """Values of flat keys that a recipe for this network's inputs has."""
        names = ("arch", "num_classes", "image_size", "in_chans", "input")
        own = {key: getattr(self, key) for key in names}
        return {**own, **self.transform}

    def check(self) -> None:
        """What types do not say; the values of `transform` are checked where a recipe takes them.

        Raises:
            ValueError: a reason on one line.
        """
        family_of(self.arch)
        odd = sorted({*self.transform} ^ {*TRANSFORM_KEYS})
        if odd:
            raise ValueError(f"transform: {', '.join(odd)}: unknown here or missing there")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names of {self.num_classes} classes")
        size = 4 * self.in_chans * (self.batch_size or 1) * self.image_size**2
        if size > _MOST_INPUT_BYTES:
            raise ValueError(
                f"batch_size {self.batch_size} of image_size {self.image_size}: {size:,} bytes of "
                f"images, more than the {_MOST_INPUT_BYTES:,} allowed"
            )


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
    content = asdict(record)
    write_json(record_path(path), {**content, _DIGEST: _digest_of(content)})


def _digest_of(content: Dict[str, Any]) -> str:
    said = {key: value for key, value in content.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
        content = read_regular(beside, RECORD_BYTES)
        refuse_newer(content, _FORMAT, f"{kind} {str(path)!r}: {beside.name} beside it")
        record = _parse(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{kind} {str(path)!r}: export.py wrote a {beside.name} beside it, which is missing or "
            f"damaged ({reason}); copy both again"
        ) from error
    if file_sha256(path, EXPORT_BYTES) != record.sha256:
        raise UserError(
            f"{kind} {str(path)!r}: damaged, or not the file that {beside.name} describes; copy "
            "both again"
        )
    return record


def _parse(content: bytes) -> ExportRecord:
    said = parse_json(content)
    if isinstance(said, dict) and said.get(_DIGEST, _digest_of(said)) != _digest_of(said):
        raise ValueError("it is not as it was written")
    record = parse_typed(content, ExportRecord)
    record.transform.update({**_BEFORE, **record.transform})
    record.check()
    return record
