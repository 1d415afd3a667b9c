"""Keywords of a family's constructor: what each means, and which values build a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple, Type, Union

from ..errors import UserError
from .layers.activation import ACTIVATIONS

# Of any list of channels and of blocks; a network beyond has billions of weights.
MAX_CHANNELS, MAX_BLOCKS = 8192, 256


@dataclass(frozen=True)
class Keyword:
    """One keyword of a constructor.

    Attributes:
        meaning: in a line.
        kind: int, float (takes int), bool or str.
        low, high: both allowed.
        below: the value is less than this, where given.
        length: the keyword takes a list of so many values; 0: it takes one.
        choices: of a str.
        optional: None is a value.
    """

    meaning: str
    kind: Type[Union[int, float, bool, str]] = int
    low: float = 1
    high: float = MAX_CHANNELS
    below: float = float("inf")
    length: int = 0
    choices: Tuple[str, ...] = ()
    optional: bool = False

    def allowed(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            found = " or ".join(self.choices)
        elif self.kind is bool:
            found = "true or false"
        else:
            what = "an integer" if self.kind is int else "a number"
            until = f"below {self.below:g}" if self.below <= self.high else f"to {self.high:g}"
            found = f"{what} from {self.low:g} {until}"
        if self.length:
            found = f"a list of {self.length}, each {found}"
        return f"{found}, or null" if self.optional else found

    def takes(self, value: Any) -> bool:
        """Whether a network can be built with `value`, as far as it alone decides."""
        if value is None:
            return self.optional
        if not self.length:
            return self._takes_one(value)
        is_list = isinstance(value, (list, tuple)) and len(value) == self.length
        return is_list and all(map(self._takes_one, value))

    def _takes_one(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind is bool or isinstance(value, bool):
            return isinstance(value, bool) and self.kind is bool
        numbers = (int, float) if self.kind is float else (int,)
        is_number = isinstance(value, numbers)
        return is_number and self.low <= value <= self.high and value < self.below


# What every family takes; the keys of a recipe are called `image_size` and so on.
STANDARD: Dict[str, Keyword] = {
    "num_classes": Keyword("classes of the classifier; 0: none", low=0, high=10**6),
    "in_chans": Keyword("channels of the images"),
    "img_size": Keyword("side of the square images, pixels (image_size in recipes)", high=4096),
    "drop_path_rate": Keyword("stochastic depth of the last block", float, low=0, below=1),
    "nonlinearity": Keyword("activation of the blocks", str, choices=tuple(ACTIVATIONS)),
}


def check_keywords(name: str, table: Mapping[str, Keyword], given: Mapping[str, Any]) -> None:
    """Refuses values that build no network.

    Args:
        name: of the architecture.
        table: what is known of its keywords; others pass.

    Raises:
        UserError: naming the first one, what is allowed and what it means.
    """
    for key, value in given.items():
        keyword = table.get(key)
        if keyword is not None and not keyword.takes(value):
            shown = list(value) if isinstance(value, tuple) else value
            title = "image_size" if key == "img_size" else key
            raise UserError(
                f"arch {name!r}: {title} {str(shown)[:80]}: expected {keyword.allowed()} "
                f"({keyword.meaning}); its own value is used without it"
            )
