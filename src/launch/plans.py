"""What each host starts: processes with their commands, variables and logs, by launcher."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence

from ..errors import UserError
from .addresses import local_server
from .rank_table_files import read_rank_table
from .supervisor import Process

# Runs in a process of MindSpore's cluster that only brings the others together.
_SCHEDULER = "from mindspore.communication import init; init()"
# What tells a process its place; none of it may leak in from the caller's own shell.
_PLACE = """MS_ROLE MS_SCHED_HOST MS_SCHED_PORT MS_WORKER_NUM MS_NODE_ID MS_TOPO_TIMEOUT RANK_ID
    RANK_SIZE RANK_TABLE_FILE DEVICE_ID DEVICE_NUM OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK
    OMPI_COMM_WORLD_LOCAL_RANK""".split()


@dataclass(frozen=True)
class Plan:
    """The processes of this host, in the order in which they start."""

    processes: List[Process]
    logs: Path

    def show(self) -> str:
        """Every command with the variables it gets, and the log it writes."""
        lines = []
        for process in self.processes:
            words = [f"{name}={shlex.quote(value)}" for name, value in process.environ.items()]
            command = " ".join(shlex.quote(word) for word in process.command)
            lines.append(f"{process.name}: {' '.join([*words, command])}")
            lines.append(f"    log: {process.log}")
        return "\n".join(lines)


def share_cores(cores: Sequence[int], count: int) -> List[List[int]]:
    """Consecutive cores for each of `count` processes, as evenly as they go; all, if too few."""
    if count > len(cores):
        return [list(cores)] * count
    edges = [len(cores) * i // count for i in range(count + 1)]
    return [list(cores[edges[i] : edges[i + 1]]) for i in range(count)]


def _rank(
    options: argparse.Namespace, rank: str, environ: Dict[str, str], cores: Sequence[int]
) -> Process:
    """One rank of the program, on these cores."""
    command = [sys.executable, *options.program]
    if options.bind and shutil.which("taskset") is not None:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    return Process(f"rank {rank}", command, environ, options.logs / f"rank_{rank}.log")


def _cores() -> List[int]:
    return sorted(os.sched_getaffinity(0))


def plan_standalone(options: argparse.Namespace) -> Plan:
    """One process on one device."""
    environ = {**options.environ, "DEVICE_ID": options.device_id, "RANK_ID": "0", "RANK_SIZE": "1"}
    command = [sys.executable, *options.program, "--device_id", options.device_id]
    return Plan([Process("rank 0", command, environ, options.logs / "rank_0.log")], options.logs)


def plan_rank_table(options: argparse.Namespace) -> Plan:
    """HCCL with a rank table: one process per device of this host."""
    path, table = read_rank_table(Path(options.rank_table), timeout_s=options.timeout)
    server = local_server(table, options.server_id)
    size = sum(len(entry["device"]) for entry in table["server_list"])
    shares = share_cores(_cores(), len(server["device"]))
    processes = []
    for device, cores in zip(server["device"], shares):
        environ = {
            "RANK_TABLE_FILE": str(path),
            "RANK_ID": device["rank_id"],
            "RANK_SIZE": str(size),
            "DEVICE_NUM": str(size),
            "DEVICE_ID": device["device_id"],
        }
        processes.append(_rank(options, device["rank_id"], environ, cores))
    return Plan(processes, options.logs)


def plan_cluster(options: argparse.Namespace) -> Plan:
    """MindSpore's dynamic cluster by its variables, as msrun sets them; needs no msrun (2.0)."""
    size = options.nproc * options.nnodes
    port = options.master_port or _free_port(options)
    shared = {
        "MS_WORKER_NUM": str(size),
        "MS_SCHED_HOST": options.master_addr,
        "MS_SCHED_PORT": port,
        "MS_TOPO_TIMEOUT": str(options.timeout),
        "RANK_SIZE": str(size),
        **options.environ,
    }
    processes = []
    if options.node_rank == 0:
        environ = {**shared, "MS_ROLE": "MS_SCHED", "GLOG_v": "3"}
        prelude = f"import mindspore as ms; ms.set_context(device_target={options.device!r}); "
        command = [sys.executable, "-c", prelude + _SCHEDULER]
        log = options.logs / "scheduler.log"
        processes.append(Process("scheduler", command, environ, log, is_helper=True))
    devices = options.devices or [str(i) for i in range(options.nproc)]
    for local, cores in enumerate(share_cores(_cores(), options.nproc)):
        rank = str(options.node_rank * options.nproc + local)
        environ = {**shared, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": rank, "RANK_ID": rank}
        environ["DEVICE_ID"] = devices[local]
        processes.append(_rank(options, rank, environ, cores))
    return Plan(processes, options.logs)


def _free_port(options: argparse.Namespace) -> str:
    if options.nnodes > 1:
        return "8118"  # all hosts must know it
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def plan_msrun(options: argparse.Namespace) -> Plan:
    """MindSpore's own launcher (2.3 and newer), as one process that starts the ranks."""
    size = options.nproc * options.nnodes
    command = [
        *(sys.executable, "-m", "mindspore.parallel.cluster.run", "--join=True"),
        *(f"--worker_num={size}", f"--local_worker_num={options.nproc}"),
        *(f"--master_addr={options.master_addr}",),
        f"--master_port={options.master_port or _free_port(options)}",
        *(f"--log_dir={options.logs}", f"--cluster_time_out={options.timeout}"),
        *(["--bind_core=True"] if options.bind else []),
        *([f"--node_rank={options.node_rank}"] if options.nnodes > 1 else []),
        *options.program,
    ]
    # msrun starts what the shell calls `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    log = options.logs / "msrun.log"
    merged = options.logs / f"worker_{options.node_rank * options.nproc}.log"
    process = Process(
        "msrun", command, {"PATH": path, **options.environ}, log, shown=merged, starts_ranks=True
    )
    return Plan([process], options.logs)


def plan_mpirun(options: argparse.Namespace) -> Plan:
    """OpenMPI 4 (GPU, Ascend); MindSpore reads its variables."""
    command = [
        *("mpirun", "-n", str(options.nproc)),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *(["--bind-to", "numa"] if options.bind else []),
        *("--output-filename", str(options.logs), "--merge-stderr-to-stdout"),
        *(sys.executable, *options.program),
    ]
    log = options.logs / "mpirun.log"
    return Plan([Process("mpirun", command, options.environ, log, starts_ranks=True)], options.logs)


PLANS = {
    "standalone": plan_standalone,
    "rank_table": plan_rank_table,
    "cluster": plan_cluster,
    "msrun": plan_msrun,
    "mpirun": plan_mpirun,
}


def check_options(options: argparse.Namespace) -> None:
    """Checks what scripts/launch.py was given, and sets `environ`, `logs` and what follows.

    Raises:
        UserError: options that do not go together.
    """
    if options.program[:1] == ["--"]:
        options.program = options.program[1:]
    if not options.program:
        raise UserError("no program given; end the command with -- train.py --config FILE")
    if not Path(options.program[0]).is_file():
        raise UserError(f"program {options.program[0]!r}: no such file")
    for key in ("nproc", "nnodes"):
        if getattr(options, key) < 1:
            raise UserError(f"--{key} {getattr(options, key)}: must be 1 or more")
    if not 0 <= options.node_rank < options.nnodes:
        raise UserError(f"--node_rank {options.node_rank}: must be in [0, {options.nnodes})")
    if options.nnodes > 1 and options.launcher not in ("cluster", "msrun"):
        raise UserError(f"--nnodes {options.nnodes}: of cluster and msrun; not {options.launcher}")
    _check_devices(options)
    if options.launcher == "rank_table" and not options.rank_table:
        raise UserError("--launcher rank_table: needs --rank_table FILE")
    if options.launcher == "mpirun" and options.device == "CPU":
        raise UserError("--launcher mpirun: MindSpore has it on GPU and Ascend; use cluster")
    options.logs = options.logs.absolute()


def _check_devices(options: argparse.Namespace) -> None:
    options.environ = {}
    if options.devices is None:
        return
    options.devices = options.devices.split(",")
    wrong = [device for device in options.devices if not device.isdecimal()]
    if wrong or len(set(options.devices)) != len(options.devices):
        raise UserError(
            f"--devices {','.join(options.devices)}: must be different numbers with commas, "
            "such as 0,1,2,3"
        )
    options.nproc = len(options.devices)
    if options.device == "GPU":
        # The processes see only these, and count them from 0.
        options.environ["CUDA_VISIBLE_DEVICES"] = ",".join(options.devices)
        options.devices = None


def inherited(environ: Dict[str, str]) -> Dict[str, str]:
    """The caller's environment without what tells a process its place among others."""
    return {name: value for name, value in environ.items() if name not in _PLACE}
