"""Exceptions that end a program in an orderly way, and the wording of their messages."""

from __future__ import annotations

import difflib
from typing import Iterable, List, Sequence

# Share of their letters that two words have in common and in order, from which one is taken for a
# misspelling of the other. `learning_rate` and `decay_rate` share 0.61, `epocs` and `epochs` 0.91.
_NEAR = 0.65
# difflib takes quadratic time.
_MOST_CHARS = 100


class UserError(ValueError):
    """A problem with what the user gave: a key, a file, a checkpoint.

    The message is one line that names the offending value, what is allowed, and the remedy. Entry
    points print it without a traceback and exit with code 2 (`--debug` shows the traceback).
    """


class TrainingFailed(RuntimeError):
    """Training cannot go on: the message says at which step, why, and what was saved of it.

    Entry points print it without a traceback and exit with code 1.
    """


class StoppedBySignal(Exception):
    """The run has saved its state because a signal asked it to end.

    Attributes:
        exit_code: 128 + number of the signal, as shells report it.
        is_alone: no other process waits for this one's orderly end.
    """

    def __init__(self, signal_number: int, *, is_alone: bool) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number
        self.is_alone = is_alone


class StoppedReading(Exception):
    """A signal asks a run to end while it waits for something that is read and does not come.

    Attributes:
        name: of what is read.
    """

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"{name} has been read for {seconds:.0f} s and does not come")
        self.name = name


class EndedBySignal(KeyboardInterrupt):
    """A signal has ended work that has nothing to save.

    Attributes:
        number: of the signal.
        kept: what is done, and how to go on from it.
    """

    kept = ""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def on_one_line(said: object, limit: int = 200) -> str:
    """What another library's error says, up to `limit` characters; its type if it says nothing."""
    return " ".join(str(said).split())[:limit] or type(said).__name__


def nearest(word: str, candidates: Iterable[str], most: int = 1) -> List[str]:
    """The candidates that `word` may stand for; case and dashes aside.

    Those that it begins come first, the shortest before the others, then those that it may be a
    misspelling of, the likest first.
    """
    by_folded = {candidate.lower(): candidate for candidate in candidates}
    dashes = len(word) - len(word.lstrip("-"))
    folded = word[:dashes] + word[dashes:].lower().replace("-", "_")[:_MOST_CHARS]
    found = [name for name in by_folded if len(folded) > 2 + dashes and name.startswith(folded)]
    found.sort(key=len)
    found += difflib.get_close_matches(folded, by_folded, n=most, cutoff=_NEAR)
    return [by_folded[name] for name in dict.fromkeys(found)][:most]


def suggestion(
    word: str, candidates: Iterable[str], otherwise: str = "", *, most: int = 1, prefix: str = ""
) -> str:
    """`did you mean 'a' or 'b'?` where candidates are near; `otherwise` where none is.

    Args:
        prefix: written before each candidate, such as `--`.
    """
    near = [f"'{prefix}{name}'" for name in nearest(word, candidates, most)]
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def some_of(names: Sequence[str], most: int = 4, separator: str = ", ") -> str:
    """`a, b, c, d and 3 more`."""
    hidden = len(names) - most
    return separator.join(names[:most]) + (f" and {hidden} more" if hidden > 0 else "")
