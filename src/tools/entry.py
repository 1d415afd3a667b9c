"""What every entry point does around its own work."""

from __future__ import annotations

import logging
import sys
from typing import Callable, Optional, Sequence

from src.args import Config, parse_args
from src.errors import StoppedBySignal, TrainingFailed, UserError


def run_entry_point(work: Callable[[Config], None], argv: Optional[Sequence[str]]) -> int:
    """Parses `argv`, runs `work` and returns the exit code.

    0; 1 when training failed; 2 for what the user can mend; 128 + N when signal N ended it.
    """
    config = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        work(config)
    except (UserError, TrainingFailed) as error:
        if config.run.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except StoppedBySignal as stopped:
        return stopped.exit_code
    return 0
