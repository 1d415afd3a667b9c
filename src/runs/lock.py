"""One run at a time writes into a folder."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Callable, Iterator, List, Mapping

import numpy as np

from ..args import Config
from ..errors import UserError
from ..runtime.collectives import gather_from_ranks
from ..runtime.device import process_environment
from ..runtime.owner import OWNER_S, OwnerFile
from ..runtime.ranks import World
from .folder import run_folder
from .own_files import clear_unfinished

_LOGGER = logging.getLogger(__name__)

LOCK = ".run.lock"
_POLL_S = 1.0
# What schedulers call a job.
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "MA_JOB_ID")


@contextlib.contextmanager
def sole_writer(config: Config, world: World) -> Iterator[Callable[[], bool]]:
    """While entered, no other run writes into this run's folder; one rank holds it for all.

    Trials (`dry_run`, `profile`) write elsewhere and hold nothing.

    Yields:
        Whether it still is so: `take_over` of another run ends it.

    Raises:
        UserError: another run holds the folder, or it cannot be written.
    """
    is_trial = config.train.dry_run or config.train.profile
    with contextlib.ExitStack() as stack:
        is_ours: Callable[[], bool] = lambda: True  # noqa: E731
        if world.is_main and not is_trial:
            lock = held(run_folder(config), take_over=config.train.take_over)
            is_ours = stack.enter_context(lock).confirm
        if not is_trial:
            # The others look for the checkpoint to go on from when nobody writes it any more.
            gather_from_ranks(np.zeros(()), world)
        yield is_ours


@contextlib.contextmanager
def held(folder: Path, *, take_over: bool = False, owner_s: float = OWNER_S) -> Iterator[OwnerFile]:
    """The lock of a run's folder, which is made if need be, and goes again if it stays empty.

    Raises:
        UserError: as of `sole_writer`.
    """
    made: List[Path] = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = OwnerFile(folder / LOCK, owner_s=owner_s, job=_job(process_environment()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _wait_for(lock, folder, take_over=take_over)
        clear_unfinished(folder)
    except OSError as error:
        raise UserError(
            f"train_url {str(folder)!r}: cannot be written ({error}); give another --train_url"
        ) from error
    try:
        yield lock
    finally:
        lock.release()
        for path in made:
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


def _wait_for(lock: OwnerFile, folder: Path, *, take_over: bool) -> None:
    """Takes the lock as soon as its owner is known to be dead.

    An owner on another host is known to live by its next sign of life.
    """
    seen = None
    while not lock.take(by_force=take_over):
        owner, sign = lock.owner(), lock.sign_of_life()
        if seen not in (None, (owner, sign)) or (owner and owner.is_here()):
            raise UserError(
                f"train_url {str(folder)!r}: another run writes there: {owner or 'unknown'} "
                f"({LOCK}); end it, or give another --train_url; if it is no more, give --take_over"
            )
        if seen is None and sign:
            seen = owner, sign
            whose = owner or "whoever wrote it"
            _LOGGER.info("%s: waiting to see whether %s, is alive", lock.path, whose)
        time.sleep(_POLL_S)


def _job(environment: Mapping[str, str]) -> str:
    return next((environment[name] for name in _JOB_VARIABLES if environment.get(name)), "")
