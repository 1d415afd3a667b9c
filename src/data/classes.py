"""The classes of a data set: their order, and whether weights know the same ones."""

from __future__ import annotations

import logging
import re
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence

from ..errors import UserError, some_of

_LOGGER = logging.getLogger(__name__)

CLASS_ORDERS = ("code_point", "natural")
_NUMBER = re.compile(r"[0-9]{1,9}")


def natural_key(name: str) -> List[Any]:
    """What timm sorts class folders by: numbers in a name count as numbers, case does not.

    Text and integers take turns, so any two keys can be compared.
    """
    parts: List[Any] = re.split(r"(\d+)", name.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts


def sort_classes(names: Sequence[str], class_order: str) -> List[str]:
    """The names in one of CLASS_ORDERS; the position is the label.

    Names that only case or leading zeros tell apart follow their code points; timm leaves their
    order to chance.
    """
    if class_order == "natural":
        return sorted(names, key=lambda name: (natural_key(name), name))
    return sorted(names)


def classes_of(labels: Collection[str], class_order: str) -> List[str]:
    """The classes that written labels name; labels that are whole numbers follow their values."""
    if all(_NUMBER.fullmatch(label) for label in labels):
        return sorted(set(labels), key=lambda label: (int(label), label))
    return sort_classes(list(set(labels)), class_order)


def number_labels(labels: Collection[str], class_names: Sequence[str]) -> Dict[str, int]:
    """Written label -> position of its class; those that are none of the classes are left out.

    Whole numbers count the classes from 0, unless a class is called by a number.
    """
    known = {name: position for position, name in enumerate(class_names)}
    found = {label: known[label] for label in labels if label in known}
    if not any(map(_NUMBER.fullmatch, class_names)):
        numbers = {label: int(label) for label in labels if _NUMBER.fullmatch(label)}
        found.update({label: n for label, n in numbers.items() if n < len(class_names)})
    return found


def describe_difference(there: Sequence[str], here: Sequence[str]) -> Optional[str]:
    """How the classes of weights (`there`) differ from those of data (`here`); None: not at all."""
    if list(there) == list(here):
        return None
    missing, added = (sorted(set(a) - set(b)) for a, b in ((there, here), (here, there)))
    parts = [
        f"{len(names)} of its {len(of)} are {where} ({some_of(names)})"
        for names, of, where in ((missing, there, "missing in the data"),)
        if names
    ]
    if added:
        parts.append(f"{len(added)} of the data's {len(here)} are added ({some_of(added)})")
    if not parts:
        parts.append(f"the same {len(here)} in another order")
    moved = [label for label, pair in enumerate(zip(there, here)) if pair[0] != pair[1]]
    if moved:
        label = moved[0]
        parts.append(
            f"{len(moved)} label(s) differ: {label} is {there[label]!r} there and {here[label]!r} "
            "here"
        )
    return "; ".join(parts)


class TrainedClasses(NamedTuple):
    """What weights know of their classes.

    Attributes:
        source: the file, as messages begin: `pretrained 'best.ckpt'`.
        names: by label; None: the file does not say.
        is_converted: the weights are of another library, which may sort folders otherwise.
    """

    source: str
    names: Optional[List[str]]
    is_converted: bool = False

    def check(
        self,
        names: Sequence[str],
        data_url: str,
        *,
        knows_order: bool,
        allows_other: bool = False,
        more_remedies: str = "",
    ) -> None:
        """Refuses data whose labels mean something else than these weights learnt.

        Args:
            names: of the data, by label.
            knows_order: somebody has said by `class_order` how the folders are sorted.
            allows_other: warn instead.
            more_remedies: of the program, where other classes are all of these weights'.

        Raises:
            UserError: naming what differs.
        """
        if self.names is None:
            problem = None if knows_order else self._doubt(names, data_url)
        else:
            problem = self._difference(self.names, names, data_url)
        if problem is None:
            return
        if not allows_other:
            is_subset = self.names is not None and set(names) < set(self.names)
            more = more_remedies if is_subset else ""
            raise UserError(f"{problem}{more}, or --allow_other_classes to go on all the same")
        _LOGGER.warning("allow_other_classes: %s", problem.partition("; give ")[0])

    def _difference(self, there: Sequence[str], here: Sequence[str], url: str) -> Optional[str]:
        difference = describe_difference(there, here)
        if difference is None:
            return None
        remedies = [
            f"--class_order {order}"
            for order in CLASS_ORDERS
            if sort_classes(here, order) == list(there)
        ]
        remedies = remedies or ["the --data_url it was trained on"]
        return (
            f"{self.source}: its classes differ from those of data_url {url!r}: {difference}; "
            f"give {remedies[0]}"
        )

    def _doubt(self, names: Sequence[str], url: str) -> Optional[str]:
        natural = sort_classes(names, "natural")
        are_numbers = list(names) == [str(label) for label in range(len(names))]
        if not self.is_converted or natural == sorted(names) or are_numbers:
            return None
        return (
            f"{self.source}: converted weights that do not say what their classes are called, and "
            f"the folders of data_url {url!r} have two orders: natural ({some_of(natural, 3)}), "
            f"timm's, and code_point ({some_of(sorted(names), 3)}), torchvision's; give "
            "--class_order natural or code_point, weights converted with --class_names FILE"
        )
