"""Images whose classes are some of a network's, under the network's labels.

Published test sets of ImageNet are such (ImageNet-A and -R have 200 of its 1,000 classes), and so
is anybody's folder with three of ten.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence

import numpy as np

from ..errors import UserError, some_of, suggestion
from .class_file import read_class_file
from .classes import TrainedClasses
from .imagenet_names import imagenet_names, imagenet_subsets

if TYPE_CHECKING:
    from .augment.parts import Part
    from .decode import BoxSeen
    from .sources import Source

_LOGGER = logging.getLogger(__name__)
AUTO = "auto"


@dataclass(frozen=True)
class SubsetImages:
    """A source whose labels are the network's.

    Attributes:
        source: the images as they lie there.
        indices: (N,) of those that count.
        labels: (N,) int32, of the network.
        class_names: of the network.
        scored: labels of the subset, in rising order.
    """

    source: Source
    indices: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: List[str]
    scored: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def file_name(self, index: int) -> str:
        """How messages name an image."""
        return self.source.file_name(int(self.indices[index]))

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB; raises BadImageError."""
        return self.source.read(int(self.indices[index]))

    def read_part(self, index: int, box_seen: BoxSeen) -> Part:
        """As much of an image as is seen, or more; raises BadImageError."""
        return self.source.read_part(int(self.indices[index]), box_seen)


def take_subset(
    source: Source, given: str, trained: TrainedClasses, num_classes: int
) -> SubsetImages:
    """The images of the classes that a network knows.

    Args:
        given: `auto`, a published set, or a file, see `read_subset`.
        trained: what the weights know of their classes.
        num_classes: of the network.

    Raises:
        UserError: a class that the network does not know, a wrong file, or no image is left.
    """
    names = _names_of_network(trained, num_classes)
    if given == AUTO:
        classes = {name: name for name in source.class_names}
    else:
        published = imagenet_subsets().get(given)
        classes = (
            {name: name for name in published} if published else read_subset(Path(given), given)
        )
    labels = _labels_of(classes, names, given, trained)
    present = [name for name in source.class_names if name in labels]
    _tell_difference(source, labels, given)
    if not present:
        raise UserError(
            f"class_subset {given!r}: the data has none of its {len(labels)} classes; it has "
            f"{some_of(source.class_names)}"
        )
    # Of each class of the data; -1: not scored.
    new = np.array([labels.get(name, -1) for name in source.class_names], np.int32)
    mapped = new[source.labels]
    indices = np.flatnonzero(mapped >= 0)
    scored = np.unique(np.array(list(labels.values()), np.int32))
    _LOGGER.info(
        "class_subset %s: %d images of %d of the network's %d classes",
        given,
        len(indices),
        len(scored),
        len(names),
    )
    return SubsetImages(source, indices, mapped[indices], names, scored)


def read_subset(path: Path, given: str) -> Dict[str, str]:
    """Class of the data -> class of the network, from a CSV file without a header.

    A line has the name of both, or the two names: `FOLDER,CLASS`. Lines that begin with # are
    comments.

    Args:
        given: how messages name the file.

    Raises:
        UserError: no such file, or a line is not of that form.
    """
    known = ", ".join([AUTO, *imagenet_subsets()])
    found = read_class_file(
        path,
        key=f"class_subset {given!r}",
        form="CLASS or FOLDER,CLASS",
        least_cells=1,
        instead=f"{known}, or a file with a line FOLDER,CLASS for each class",
    )
    if not found:
        raise UserError(f"class_subset {given!r}: has no classes; give a line for each")
    return found


def _names_of_network(trained: TrainedClasses, num_classes: int) -> List[str]:
    """By label; where the weights do not say them ImageNet's, or else the labels themselves."""
    if trained.names is not None:
        return list(trained.names)
    known = list(imagenet_names())
    return known if num_classes == len(known) else [str(label) for label in range(num_classes)]


def _labels_of(
    classes: Dict[str, str], names: Sequence[str], given: str, trained: TrainedClasses
) -> Dict[str, int]:
    """Class of the data -> label of the network. A number that is no name is a label."""
    labels = {name: label for label, name in enumerate(names)}
    by_number = {str(label): label for label in range(len(names))}
    found = {there: labels.get(here, by_number.get(here, -1)) for there, here in classes.items()}
    unknown = [here for there, here in classes.items() if found[there] < 0]
    if unknown:
        meant = suggestion(unknown[0], names, "give a file with a line FOLDER,CLASS for each")
        raise UserError(
            f"class_subset {given!r}: {len(unknown)} of {len(found)} classes ({some_of(unknown)}) "
            f"are not among the {len(names)} of {trained.source} ({some_of(names)}); {meant}"
        )
    return found


def _tell_difference(source: Source, labels: Dict[str, int], given: str) -> None:
    """Says what is listed or there alone."""
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    left_out = [(n, c) for n, c in zip(source.class_names, counts) if n not in labels]
    if left_out:
        _LOGGER.warning(
            "class_subset %s: %d images are left out, of classes it has not (%s)",
            given,
            sum(count for _, count in left_out),
            some_of([name for name, _ in left_out]),
        )
    missing = sorted(set(labels) - set(source.class_names))
    if missing:
        _LOGGER.warning(
            "class_subset %s: the data has no images of %d of its %d classes (%s)",
            given,
            len(missing),
            len(labels),
            some_of(missing),
        )
