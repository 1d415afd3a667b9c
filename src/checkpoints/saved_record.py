"""The record that is saved with a checkpoint's tensors: its types and their ranges.

Older versions left keys out, and their defaults say what was so then. Keys that a newer version
added are passed by: what a network computes is said by its recipe, whose keys must all be known. A
newer `format` is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Collection, Dict, List, Literal, Optional

from msgspec import Meta

from ..args import Config, from_saved_text
from ..errors import UserError
from ..models.registry import family_of
from ..runtime.json_files import parse_typed
from .tensor_file import DamagedCheckpoint

MOST_CLASSES = 1_000_000  # ImageNet-21k has 21,841
MOST_SIDE = 100_000  # pixels

Count = Annotated[int, Meta(ge=0, le=10**12)]
AtLeastOne = Annotated[int, Meta(ge=1, le=10**12)]
Classes = Annotated[int, Meta(ge=0, le=MOST_CLASSES)]
Side = Annotated[int, Meta(ge=1, le=MOST_SIDE)]
Text = Annotated[str, Meta(max_length=4096)]
ClassName = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"\A[^\x00]*\Z")]
ClassNames = Annotated[List[ClassName], Meta(max_length=MOST_CLASSES)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
# Of the records that this version writes. It grows when older ones would read them wrongly.
FORMAT = 1
Format = Annotated[int, Meta(ge=1, le=10**6)]
# What a run calls its checkpoints beside last.ckpt: a path would be written to.
_EarnedName = Annotated[str, Meta(pattern=r"\A(best|epoch_[0-9]{3,9})\.ckpt\Z")]


@dataclass(frozen=True)
class Change:
    """Where a run went on with another recipe or other data.

    Attributes:
        step: steps that were done before.
        what: `base_lr 0.1 -> 0.01`, one for each key.
    """

    step: Count
    what: List[Text]


@dataclass(frozen=True)
class SavedRecord:
    """What a checkpoint says of itself. An empty one is that of a file that says nothing.

    Attributes:
        config: the recipe it was trained by, as YAML; of converted weights just the keys of the
            network and of how its images are made for evaluation. See `recipe`.
        step: optimizer steps done; None: weights without the state of a run.
        best_top1: percent, of the best epoch; -1: none yet.
        best_score: of the best epoch by `best_metric`; None: that is top-1.
        overflows: steps in a row whose gradient was not finite.
        changes: of recipe and data since the run began; None: none.
        names: other names the file has earned; None: older versions did not say.
        class_names, images_per_class: of the training data, by label.
        class_weights: SHA-256 of the file that the key names; None: it names none.
        img_size: of weights that older versions converted, which have no recipe.
        source, sha256, naming, ema: file that weights were converted from, whose names it had, and
            which of its weights were taken.
        published, licence: name that the file was published by, and its terms.
        started_from: of trained weights: those that training began with, by the name they were
            published by, else their file's; `licence` is theirs.
        averaged: files this is the mean of.
        format: versions before there were numbers wrote the first.
    """

    arch: Optional[Annotated[str, Meta(min_length=1, max_length=200)]] = None
    num_classes: Optional[Classes] = None
    config: Optional[Annotated[str, Meta(max_length=2**18)]] = None
    versions: Optional[Dict[Text, Text]] = None
    step: Optional[Count] = None
    best_top1: Annotated[float, Meta(ge=-1, le=100)] = -1.0
    best_score: Optional[Annotated[float, Meta(ge=0)]] = None
    best_epoch: Count = 0
    overflows: Count = 0
    changes: Optional[Annotated[List[Change], Meta(max_length=10_000)]] = None
    world_size: AtLeastOne = 1
    steps_per_epoch: Optional[AtLeastOne] = None
    names: Optional[Annotated[List[_EarnedName], Meta(max_length=8)]] = None
    class_names: Optional[ClassNames] = None
    images_per_class: Optional[Annotated[List[Count], Meta(max_length=MOST_CLASSES)]] = None
    class_weights: Optional[Sha256] = None
    class_order: Optional[Literal["code_point", "natural"]] = None
    img_size: Optional[Side] = None
    source: Optional[Text] = None
    sha256: Optional[Sha256] = None
    published: Optional[Text] = None
    licence: Optional[Text] = None
    started_from: Optional[Text] = None
    naming: Optional[Text] = None
    ema: bool = False
    averaged: Optional[Annotated[List[Text], Meta(max_length=10_000)]] = None
    format: Format = FORMAT

    def as_json(self) -> Dict[str, Any]:
        """For `save_checkpoint`, without what is not said."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def recipe(self, name: str) -> Optional[Config]:
        """The recipe it was trained by; None: it says none.

        Args:
            name: of the file, for messages.

        Raises:
            UserError: it is none, or has keys or values that are not allowed.
        """
        return None if self.config is None else from_saved_text(self.config, name)

    @property
    def is_converted(self) -> bool:
        """Whether another library trained the weights."""
        return self.naming is not None

    def values(self, name: str, keys: Collection[str]) -> Dict[str, Any]:
        """Those of the recipe's keys of which it says something.

        Args:
            name: of the file, for messages.
        """
        recipe = self.recipe(name)
        if recipe is None:
            return {}
        found = {key: value for key, value in recipe.flat().items() if key in keys}
        if self.is_converted:
            found = {k: v for k, v in found.items() if recipe.origins[k].startswith(name)}
        return found

    def label_separator(self, name: str) -> Optional[str]:
        """That of the lists it was trained by; None: each image had one label."""
        return self.values(name, ["label_separator"]).get("label_separator")

    def check(self, path: Path) -> None:
        """What types do not say.

        Args:
            path: of the file, for messages.

        Raises:
            UserError: an architecture that is not known here, or a recipe as of `recipe`.
            ValueError: lists that do not fit each other; a reason on one line.
        """
        lengths = {"num_classes": self.num_classes}
        for key in ("class_names", "images_per_class"):
            held: Optional[List[Any]] = getattr(self, key)
            lengths[key] = None if held is None else len(held)
        said = {key: length for key, length in lengths.items() if length is not None}
        if len(set(said.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in said.items())
            raise ValueError(f"other numbers of classes: {shown}")
        if self.arch is not None:
            try:
                family_of(self.arch)
            except UserError as error:
                raise UserError(f"checkpoint {str(path)!r}: its record says {error}") from error
        self.recipe(str(path))


@dataclass(frozen=True)
class _Numbered:
    format: Format = 1


def refuse_newer(content: bytes, newest: int, what: str) -> None:
    """First of all: nothing else of a newer record needs to be as it is now.

    Args:
        newest: number that this version reads.
        what: the record is of, for the message.

    Raises:
        ValueError: no JSON, or its format is no number; on one line.
        UserError: a newer format.
    """
    number = parse_typed(content, _Numbered).format
    if number > newest:
        raise UserError(
            f"{what}: format {number}, of a newer version than this, which reads up to {newest}; "
            "update this one"
        )


def parse_record(content: bytes, path: Path) -> SavedRecord:
    """The record of the file at `path`, from its bytes.

    Raises:
        DamagedCheckpoint: not of this form.
        UserError: a newer format, or as of `SavedRecord.check`.
    """
    try:
        refuse_newer(content, FORMAT, f"checkpoint {str(path)!r}")
        record = parse_typed(content, SavedRecord)
        record.check(path)
    except UserError:
        raise
    except ValueError as error:
        raise DamagedCheckpoint(path, f"its record: {error}") from error
    return record
