"""How long ranks wait for one that is silent, and what is said when that was not enough.

MindSpore's cluster has a scheduler, which every rank greets each 3 to 5 seconds from a thread of
its own. It gives up a rank that has not for `MS_NODE_TIMEOUT` seconds, and ends the job.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Dict, Iterable, Mapping, Optional, Tuple

from ..errors import UserError
from ..runtime.regular_files import UNLIMITED, open_regular

# Seconds that a rank may be silent. MindSpore's own 30 are shorter than a suspended machine, a
# container that is moved, or memory that is paged in; its guide for large jobs has 900 to 1800.
RANK_TIMEOUT_S = 600
LIMIT = "MS_NODE_TIMEOUT"
# Below it a rank that is well, on a busy host, is late now and then.
_LEAST_S, _MOST_S = 10, 7 * 86_400
# A collective must outlast the limit: its own error does not say which rank was missing.
_LONGER_S = 60
# Seconds that HCCL accepts, and what it takes by itself for a collective.
_CONNECT_RANGE = (120, 7200)
_HCCL_EXEC_S, _MOST_HCCL_EXEC_S = 1800, 17_340
# What MindSpore's scheduler and its ranks write when the limit has struck.
_TIMED_OUT = re.compile(r"The node: (\w+) is timed out")
_ABNORMAL = "The state of the cluster is error, total nodes num:"
_NO_ANSWER = "Callback on exception is called"
_MOST_READ = 2**20
# The first that reads these variables; before, the limit is 30 s.
_FIRST_WITH_LIMIT = (2, 3)


def check_rank_timeout(options: argparse.Namespace, version: Optional[Tuple[int, ...]]) -> None:
    """Refuses a limit that is out of range, or that nobody would keep.

    Args:
        version: of MindSpore; None: there is none.

    Raises:
        UserError: which, and what is allowed.
    """
    seconds = options.rank_timeout
    if seconds is None:
        return
    if options.launcher in ("standalone", "mpirun"):
        raise UserError(
            f"--rank_timeout {seconds}: of cluster, msrun and rank_table, whose ranks are watched; "
            f"not {options.launcher}"
        )
    if not _LEAST_S <= seconds <= _MOST_S:
        raise UserError(f"--rank_timeout {seconds}: must be in [{_LEAST_S}, {_MOST_S}]")
    if version is not None and version < _FIRST_WITH_LIMIT:
        raise UserError(
            f"--rank_timeout {seconds}: MindSpore {version[0]}.{version[1]} keeps 30 s whatever is "
            "asked for; leave it out (2.3 and newer read it)"
        )


def waiting_variables(
    options: argparse.Namespace,
    environ: Mapping[str, str],
    version: Optional[Tuple[int, ...]],
) -> Dict[str, str]:
    """Variables that let ranks wait for each other, at the start and later.

    What the caller's shell says of them is left alone, but for what `--rank_timeout` names.
    """
    if options.launcher == "standalone":
        return {}
    seconds = options.rank_timeout or RANK_TIMEOUT_S
    longer = max(seconds, RANK_TIMEOUT_S) + _LONGER_S
    limits: Dict[str, int] = {}
    if options.launcher != "mpirun" and (version is None or version >= _FIRST_WITH_LIMIT):
        limits = {LIMIT: seconds, "MS_RECEIVE_MSG_TIMEOUT": seconds}
        if options.device == "CPU":
            limits["MS_CPU_COMM_OP_TIMEOUT"] = longer
    chosen = set(limits) if options.rank_timeout else set()
    if options.device == "Ascend":
        # Its own 120 s are shorter than what reading folders or compiling can take on one rank more
        # than on another.
        shortest, longest = _CONNECT_RANGE
        limits["HCCL_CONNECT_TIMEOUT"] = min(max(options.timeout, shortest), longest)
        if longer > _HCCL_EXEC_S:
            limits["HCCL_EXEC_TIMEOUT"] = min(longer, _MOST_HCCL_EXEC_S)
    return {name: str(s) for name, s in limits.items() if name in chosen or name not in environ}


def who_was_silent(logs: Iterable[Path], size: Optional[str]) -> Optional[str]:
    """Whom MindSpore's cluster gave up, as its processes have written; None: nobody.

    Args:
        logs: of the scheduler and the ranks that are on this host.
        size: number of all ranks, where it is known.
    """
    texts = [_end_of(log) for log in logs]
    ranks = sorted({rank for text in texts for rank in _TIMED_OUT.findall(text)})
    if str(len(ranks)) == size:
        return "the scheduler, or every rank, was"  # such as a host that was suspended
    if ranks:
        named = ", ".join(ranks)
        return f"rank {named} was" if len(ranks) == 1 else f"ranks {named} were"
    if any(_ABNORMAL in text for text in texts):
        return "a rank of another host (host 0 says which) was"
    if any(_NO_ANSWER in text for text in texts):
        return "the scheduler was"
    return None


def _end_of(log: Path) -> str:
    try:
        with open_regular(log, UNLIMITED) as file:
            file.seek(max(0, log.stat().st_size - _MOST_READ))
            return file.read(_MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""
