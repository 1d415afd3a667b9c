"""Start train.py or eval.py on one device or many, look after the processes, and end with theirs.

python scripts/launch.py --launcher cluster --nproc 2 -- train.py --config FILE

scripts/run_*.sh call this program. docs/distributed.md says which launcher is for which machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.launch.patience import RANK_TIMEOUT_S
from src.launch.plans import PLANS, check_host, check_options, inherited
from src.launch.supervisor import supervise
from src.runtime.entry import CommandParser, finite, run_command, whole


def launch(options: argparse.Namespace) -> int:
    """Starts the processes of this host; returns the exit code of the first that failed."""
    check_options(options)
    plan = PLANS[options.launcher](options)
    if options.dry_run:
        print(plan.show())
        return 0
    check_host(options, plan)
    if options.launcher == "mpirun" and shutil.which("mpirun") is None:
        raise UserError("mpirun: not found; install OpenMPI 4, or use --launcher cluster")
    plan.logs.mkdir(parents=True, exist_ok=True)
    return supervise(
        plan.processes,
        inherited(dict(os.environ)),
        grace_s=options.grace,
        advice=lambda: _how_to_go_on(options.program),
    )


def _how_to_go_on(program: Sequence[str]) -> str:
    """What a run has saved, and the words that continue it."""
    if Path(program[0]).name != "train.py":
        return "start it again"
    from src.args import parse_args  # what a launch that goes well does not need

    with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit, UserError):
        train = (config := parse_args(program[1:])).train
        folder = train.train_url or f"outputs/{config.model.arch}"
        command = "the same command" + ("" if train.resume == "auto" else " with --resume auto")
        if "://" in folder:
            return f"{command} goes on from what is saved in {folder}"
        last = Path(folder) / "last.ckpt"
        if not last.exists():
            return f"nothing is saved in {folder} yet; start it again"
        at = time.strftime("%H:%M:%S", time.localtime(last.stat().st_mtime))
        return f"{last} of {at} is saved, and {command} goes on from it"
    return "start it again: train.py goes on with --resume auto"


class _Once(argparse.Action):
    """Scripts give options, and LAUNCH_OPTIONS does: what two of them say must be the same."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: Optional[str] = None
    ) -> None:
        given = vars(namespace).setdefault("given", {})
        if given.setdefault(self.dest, values) != values:
            parser.error(
                f"{option_string}: is given twice, as {given[self.dest]} and as {values} (by a "
                "script and LAUNCH_OPTIONS?); leave one out"
            )
        setattr(namespace, self.dest, values)


def _parser() -> CommandParser:
    parser = CommandParser("launch.py", __doc__ or "")
    parser.register("action", None, _Once)
    parser.add_argument(
        "--launcher",
        choices=sorted(PLANS),
        default="cluster",
        help="how the processes are started and find each other (default: cluster)",
    )
    parser.add_argument(
        "--device",
        choices=("Ascend", "GPU", "CPU"),
        default="CPU",
        help="what they run on (default: CPU)",
    )
    parser.add_argument("--nproc", type=whole, help="processes on this host (default 1)")
    parser.add_argument("--devices", help="devices of this host, one process each: 4,5,6,7")
    parser.add_argument("--device_id", help="standalone: number of the device (default 0)")
    parser.add_argument("--rank_table", help="rank table, or a folder with jobstart_hccl.json")
    parser.add_argument(
        "--server_id",
        help="entry of this host in the rank table (default: the one with its address)",
    )
    _add_hosts(parser)
    parser.add_argument(
        "--logs",
        type=Path,
        default=Path("outputs/logs"),
        help="folder with a log of each rank (default: outputs/logs)",
    )
    _add_limits(parser)
    parser.add_argument(
        "--no_bind", dest="bind", action="store_false", help="do not bind ranks to cores"
    )
    parser.add_argument("--dry_run", action="store_true", help="print what would run, and end")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="-- train.py and its arguments")
    return parser


def _add_hosts(parser: CommandParser) -> None:
    parser.add_argument("--nnodes", type=whole, default=1, help="number of hosts (default 1)")
    parser.add_argument("--node_rank", type=whole, default=0, help="number of this host, from 0")
    parser.add_argument(
        "--master_addr", default="127.0.0.1", help="address or name of host 0 (default 127.0.0.1)"
    )
    parser.add_argument(
        "--master_port", help="port of host 0 (default: a free one; with several hosts 8118)"
    )


def _add_limits(parser: CommandParser) -> None:
    parser.add_argument(
        "--timeout",
        type=whole,
        default=600,
        help="seconds until all ranks must have met (default 600)",
    )
    parser.add_argument(
        "--rank_timeout",
        type=whole,
        help="cluster, msrun, rank_table: seconds that a rank may be silent (stopped, its host "
        f"suspended) before the job is ended (default {RANK_TIMEOUT_S})",
    )
    parser.add_argument(
        "--grace",
        type=finite,
        default=20.0,
        help="seconds after the death of a rank until the others are killed (default 20)",
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(launch, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
