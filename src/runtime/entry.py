"""What every entry point and every command in scripts/ does around its own work."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import itertools
import logging
import os
import re
import signal
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Collection,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Type,
)

from ..errors import StoppedBySignal, TrainingFailed, UserError, suggestion
from .caches import use_cache_folders
from .memory import lack_explained
from .plain_numbers import decimal_number, whole_number
from .standard_streams import (
    drop_output,
    flush_standard_streams,
    has_no_reader,
    open_standard_streams,
)
from .stop_signal import ended_by, signals_end_this
from .text import OneLine, escape_on_screen, printable
from .threads import has_abandoned

if TYPE_CHECKING:
    from ..args import Config


def run_entry_point(
    work: Callable[[Any], None],
    argv: Optional[Sequence[str]],
    config_type: Optional[Type[Config]] = None,
    *,
    complete: Optional[Callable[[Any], Any]] = None,
    about: Optional[str] = None,
) -> int:
    """Parses `argv`, runs `work` and returns the exit code.

    0; 1 when training failed; 2 for what the user can mend, files and disks included; 128 + N when
    signal N ended it.

    Args:
        config_type: what `work` takes; None: `Config`.
        complete, about: as of `parse_args`.
    """
    open_standard_streams()
    config = parse_recipe(argv, config_type, complete=complete, about=about)
    explained = lack_explained(config)(work)
    return _run(lambda: explained(config), debug=config.run.debug, origins=config.origins)


def parse_recipe(
    argv: Optional[Sequence[str]],
    config_type: Optional[Type[Config]] = None,
    *,
    complete: Optional[Callable[[Any], Any]] = None,
    about: Optional[str] = None,
) -> Any:
    """`parse_args`, which reads files: a signal ends that too, with one line and 128 + N."""
    # A command without a recipe starts on a Python that has no package but its own.
    from ..args import Config, parse_args

    try:
        with signals_end_this():
            return parse_args(argv, config_type or Config, complete=complete, about=about)
    except KeyboardInterrupt as error:
        sys.exit(_say(error, {}))


def _placed(message: str, origins: Mapping[str, str]) -> str:
    """With the line of the recipe before it where it begins with a key that is from one."""
    origin = origins.get(message.partition(" ")[0], "")
    return f"{origin}: {message}" if _IN_FILE.fullmatch(origin) else message


_SHOWN = 40
# Where a value of a recipe stands: FILE:LINE.
_IN_FILE = re.compile(r".+:[0-9]+", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """Arguments of a command that has no recipe: one line and exit code 2 for a wrong one."""

    def __init__(self, prog: str, description: str = "") -> None:
        open_standard_streams()
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._takes_keys = False
        self._words: List[str] = []
        # Suppressed, because the default of a subcommand would hide what stands before it.
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        self._refuse_empty_words()
        return super().parse_known_args(self._words, namespace)

    def print_help(self, file: Any = None) -> None:
        with contextlib.suppress(BrokenPipeError):  # `| head` has seen enough
            super().print_help(file)

    def parse_with_keys(
        self, argv: Optional[Sequence[str]]
    ) -> Tuple[argparse.Namespace, List[str]]:
        """The arguments of this parser, and the other words, which are keys of a recipe."""
        self._takes_keys = True
        arguments, keys = self.parse_known_args(argv)
        return arguments, [*keys, "--debug"] if "debug" in arguments else keys

    def error(self, message: str) -> NoReturn:
        known = self._known_options()
        unknown = self._unknown_options(known)
        # A misspelt option is missing too: say what was read, not only what was not.
        if unknown and "are required:" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}; {message}"
        meant = [suggestion(name, known) for name in unknown] if "unrecognized" in message else []
        said = "; ".join([message, *filter(None, meant)])
        self.exit(2, f"error: {printable(' '.join(said.split()))}; see --help\n")

    def _refuse_empty_words(self) -> None:
        """What an unset variable of a script leaves; as a path it would be the working folder."""
        before = ""
        for word in itertools.takewhile(lambda word: word != "--", self._words):
            if not word or re.fullmatch("--[^=]+=", word):
                place = f"{word.rstrip('=') or before}: "
                self.error(f"{place if len(place) > 2 else ''}an empty value is not allowed")
            before = word

    def _known_options(self) -> List[str]:
        """Those of its subcommands too."""
        own = [name for action in self._actions for name in action.option_strings]
        commands = [a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        parsers = [parser for choices in commands for parser in choices.values()]
        return [*own, *(name for parser in parsers for name in parser._known_options())]

    def _unknown_options(self, known: Collection[str]) -> List[str]:
        options = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        return [] if self._takes_keys else [name for name in options if name not in known]


def whole(text: str) -> int:
    """A whole number, as the type of an argument.

    Raises:
        ArgumentTypeError: anything else, or more than 32 bits.
    """
    try:
        return whole_number(text, -(2**31))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text[:_SHOWN]!r}: expected a whole number of 32 bits"
        ) from error


def positive(text: str) -> int:
    """A whole number from 1 on, as the type of an argument.

    Raises:
        ArgumentTypeError: anything else, or more than 64 bits.
    """
    try:
        return whole_number(text, 1, 2**63 - 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text[:_SHOWN]!r}: expected a whole number, 1 or more"
        ) from error


def finite(text: str) -> float:
    """A number that is neither negative nor infinite, as the type of an argument.

    Raises:
        ArgumentTypeError: anything else.
    """
    try:
        number = decimal_number(text)
    except ValueError:
        number = -1.0
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r}: expected a number, 0 or more")
    return number


def run_command(
    work: Callable[[argparse.Namespace], Any],
    parser: CommandParser,
    argv: Optional[Sequence[str]],
) -> int:
    """Parses `argv`, runs `work` and returns the exit code.

    What `work` returns, 0 for None; 2 for what the user can mend, files and disks included.
    """
    return run_parsed(work, parser.parse_args(argv))


def run_parsed(
    work: Callable[[argparse.Namespace], Any],
    arguments: argparse.Namespace,
    config: Optional[Config] = None,
) -> int:
    """The same for arguments that are parsed already, maybe beside a recipe."""
    debug = getattr(arguments, "debug", False)
    explained, origins = lack_explained(config)(work), config.origins if config else {}
    return _run(lambda: explained(arguments), debug=debug, origins=origins)


def _run(work: Callable[[], Any], *, debug: bool, origins: Mapping[str, str]) -> int:
    code = _code_of(work, debug=debug, origins=origins)
    if has_abandoned():
        atexit.register(_leave, code)
    return code


def _code_of(work: Callable[[], Any], *, debug: bool, origins: Mapping[str, str]) -> int:
    escape_on_screen()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler])
    # Apart, because with handlers that are there already `basicConfig` does nothing.
    logging.getLogger().setLevel(logging.INFO)
    # A line that a full disk does not take is no reason for a traceback on the screen.
    logging.raiseExceptions = False
    try:
        _check_current_folder()
        use_cache_folders()
        with signals_end_this():
            code = work() or 0
            sys.stdout.flush()
            return code
    except StoppedBySignal as stopped:
        if stopped.is_alone:
            # MindSpore takes seconds to end.
            atexit.register(_leave, stopped.exit_code)
        return stopped.exit_code
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            raise
        code = _say(error, origins)
        if code is None:
            raise
        return code


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:  # MindSpore asks for it while it is imported
        raise UserError("the current folder has been deleted; cd to one that exists") from error


def _say(error: BaseException, origins: Mapping[str, str]) -> Optional[int]:
    """Prints why the program ends, in one line; returns its exit code, None for a bug."""
    number = ended_by()
    # What a signal interrupts may make another error of it.
    if number is not None or isinstance(error, KeyboardInterrupt):
        if number is not None:
            # MindSpore, interrupted while it is imported, aborts at Python's end.
            atexit.register(_leave, 128 + number)
        number = number or int(signal.SIGINT)
        kept = getattr(error, "kept", "")
        _print_error(f"interrupted by signal {number}{kept and ': '}{kept}")
        return 128 + number
    if isinstance(error, BrokenPipeError) and has_no_reader(sys.stdout):
        # `| head` has seen enough: quiet, with the code of SIGPIPE, as other programs end.
        drop_output(sys.stdout)
        return 128 + int(signal.SIGPIPE)
    if isinstance(error, (UserError, TrainingFailed, OSError)):
        _print_error(_placed(str(error), origins))
        return 1 if isinstance(error, TrainingFailed) else 2
    return None


def _leave(code: int) -> None:
    """Ends the process before what was registered earlier is called."""
    logging.shutdown()
    flush_standard_streams()
    os._exit(code)


def _print_error(said: object) -> None:
    # The screen may be what has failed.
    with contextlib.suppress(OSError):
        print(f"error: {printable(str(said))}", file=sys.stderr)
