"""What every entry point and every command in scripts/ does around its own work."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import Any, Callable, NoReturn, Optional, Sequence, Type

from ..args import Config, parse_args
from ..errors import StoppedBySignal, TrainingFailed, UserError
from .stop_signal import interrupts_reach_python


def run_entry_point(
    work: Callable[[Any], None],
    argv: Optional[Sequence[str]],
    config_type: Type[Config] = Config,
) -> int:
    """Parses `argv`, runs `work` and returns the exit code.

    0; 1 when training failed; 2 for what the user can mend, files and disks included; 128 + N when
    signal N ended it.
    """
    config = parse_args(argv, config_type)
    return _run(lambda: work(config), debug=config.run.debug)


class CommandParser(argparse.ArgumentParser):
    """Arguments of a command that has no recipe: one line and exit code 2 for a wrong one."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(
            prog=program,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def run_command(
    work: Callable[[argparse.Namespace], Any],
    parser: CommandParser,
    argv: Optional[Sequence[str]],
) -> int:
    """Parses `argv`, runs `work` and returns the exit code.

    What `work` returns, 0 for None; 2 for what the user can mend, files and disks included.
    """
    return run_parsed(work, parser.parse_args(argv))


def run_parsed(work: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> int:
    """The same for arguments that are parsed already."""
    return _run(lambda: work(arguments), debug=arguments.debug)


def _run(work: Callable[[], Any], *, debug: bool) -> int:
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # Apart, because with handlers that are there already `basicConfig` does nothing.
    logging.getLogger().setLevel(logging.INFO)
    try:
        with interrupts_reach_python():
            return work() or 0
    except (UserError, TrainingFailed, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingFailed) else 2
    except StoppedBySignal as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
