"""What each host starts: processes with their commands, variables and logs, by launcher."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import ipaddress
import os
import re
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..errors import UserError
from ..runtime.npu_smi import list_cards
from ..runtime.plain_numbers import whole_number
from .addresses import check_port_is_free, local_server, resolve
from .cores import cores_near, share_cores
from .patience import check_rank_timeout, waiting_variables
from .rank_table import Table
from .rank_table_files import read_rank_table
from .supervisor import Process

# Runs in a process of MindSpore's cluster that only brings the others together.
_SCHEDULER = "from mindspore.communication import init; init()"
# What tells a process its place; none of it may leak in from the caller's own shell.
_PLACE = """MS_ROLE MS_SCHED_HOST MS_SCHED_PORT MS_WORKER_NUM MS_NODE_ID MS_TOPO_TIMEOUT RANK_ID
    RANK_SIZE RANK_TABLE_FILE DEVICE_ID DEVICE_NUM OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK
    OMPI_COMM_WORLD_LOCAL_RANK""".split()
_MOST_CARD = 1023
# What restricts the processes to some devices, which they then count from 0.
_VISIBLE = {"GPU": "CUDA_VISIBLE_DEVICES", "Ascend": "ASCEND_RT_VISIBLE_DEVICES"}
_LOCALHOST = "127.0.0.1"
# Before it HCCL takes the ranks from the table only.
_FIRST_WITHOUT_TABLE = (2, 3)
# The first that was seen to meet at such an address; 2.0 does not.
_FIRST_WITH_IPV6 = (2, 10)


@dataclass(frozen=True)
class Plan:
    """What runs on this host.

    Attributes:
        processes: in the order in which they start.
        port: where one of them brings those of all hosts together; None: another host does.
    """

    processes: List[Process]
    logs: Path
    port: Optional[int] = None

    def show(self) -> str:
        """Every command with the variables it gets, and the log it writes."""
        lines = []
        for process in self.processes:
            words = [f"{name}={shlex.quote(value)}" for name, value in process.environ.items()]
            command = " ".join(shlex.quote(word) for word in process.command)
            lines.append(f"{process.name}: {' '.join([*words, command])}")
            lines.append(f"    log: {process.log}")
        return "\n".join(lines)


def _rank(
    options: argparse.Namespace, rank: str, environ: Dict[str, str], cores: Sequence[int]
) -> Process:
    """One rank of the program, on these cores."""
    command = [sys.executable, *options.program]
    if options.bind and shutil.which("taskset") is not None:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    return Process(f"rank {rank}", command, environ, options.logs / f"rank_{rank}.log")


def _cores(options: argparse.Namespace, devices: Sequence[str]) -> List[List[int]]:
    """For each process of this host; near their cards on an Ascend host."""
    cores = sorted(os.sched_getaffinity(0))
    if options.device != "Ascend":
        return share_cores(cores, len(devices))
    # A shell's own choice of cards is what the numbers count.
    name = _VISIBLE["Ascend"]
    visible = options.environ.get(name, os.environ.get(name, ""))
    chosen = [_card(part, name) for part in visible.split(",") if part]
    cards = [chosen[int(i)] if int(i) < len(chosen) else int(i) for i in devices]
    return cores_near(cards, list_cards(), cores, sysfs=Path("/sys"))


def _card(text: str, name: str) -> int:
    """The number of a card, in `name`. Raises UserError."""
    try:
        return whole_number(text, most=_MOST_CARD)
    except ValueError as error:
        raise UserError(
            f"{name} {text[:40]!r}: {error}; several are separated by commas, such as 0,1,2,3"
        ) from error


def plan_standalone(options: argparse.Namespace) -> Plan:
    """One process on one device."""
    environ = {**options.environ, "DEVICE_ID": options.device_id, "RANK_ID": "0", "RANK_SIZE": "1"}
    command = [sys.executable, *options.program, "--device_id", options.device_id]
    return Plan([Process("rank 0", command, environ, options.logs / "rank_0.log")], options.logs)


def plan_rank_table(options: argparse.Namespace) -> Plan:
    """One process per device that a rank table gives this host.

    From MindSpore 2.3 on they meet as a dynamic cluster of the table's ranks: with the table in
    their environment MindSpore compiles whole graphs by GE (jit level O2), whatever was asked for.
    """
    path, table = read_rank_table(
        Path(options.rank_table), timeout_s=options.timeout, folder=options.logs
    )
    server = local_server(table, options.server_id)
    version = mindspore_version()
    if version is not None and version < _FIRST_WITHOUT_TABLE:
        return _plan_with_table(options, path, table, server)
    devices = sorted((device["device_id"] for device in server["device"]), key=int)
    # What a shell leaves visible of another job is not what the table's numbers count.
    if devices != [str(i) for i in range(len(devices))] or _VISIBLE["Ascend"] in os.environ:
        options.environ[_VISIBLE["Ascend"]] = ",".join(devices)
    ranks = sorted(int(device["rank_id"]) for device in server["device"])
    return _plan_cluster(
        options, ranks, _size(table), _address_of_rank_0(table, options.master_addr)
    )


def _size(table: Table) -> int:
    return sum(len(entry["device"]) for entry in table["server_list"])


def _plan_with_table(options: argparse.Namespace, path: Path, table: Table, server: Table) -> Plan:
    """The ranks read the table themselves."""
    size = str(_size(table))
    shares = _cores(options, [device["device_id"] for device in server["device"]])
    processes = []
    for device, cores in zip(server["device"], shares):
        environ = {
            **options.environ,
            "RANK_TABLE_FILE": str(path),
            "RANK_ID": device["rank_id"],
            "RANK_SIZE": size,
            "DEVICE_NUM": size,
            "DEVICE_ID": device["device_id"],
        }
        processes.append(_rank(options, device["rank_id"], environ, cores))
    return Plan(processes, options.logs)


def _address_of_rank_0(table: Table, given: str) -> str:
    """Address of the host that brings the ranks together; `given` unless that is the default.

    Raises:
        UserError: the table names that host by something that is not known here.
    """
    if len(table["server_list"]) == 1 or given != _LOCALHOST:
        return given
    (first,) = [
        server
        for server in table["server_list"]
        if any(device["rank_id"] == "0" for device in server["device"])
    ]
    for key in ("host_ip", "server_ip"):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(first.get(key, "")))
    try:
        return resolve(first["server_id"], "server_id")
    except UserError as error:
        raise UserError(f"{error}, with --master_addr") from error


def plan_cluster(options: argparse.Namespace) -> Plan:
    """MindSpore's dynamic cluster by its variables, as msrun sets them; needs no msrun (2.0)."""
    first = options.node_rank * options.nproc
    ranks = range(first, first + options.nproc)
    return _plan_cluster(options, ranks, options.nproc * options.nnodes, options.master_addr)


def _plan_cluster(
    options: argparse.Namespace, ranks: Sequence[int], size: int, address: str
) -> Plan:
    """These ranks of `size`, with the scheduler where rank 0 is."""
    shared = {
        "MS_WORKER_NUM": str(size),
        "MS_SCHED_HOST": address,
        "MS_SCHED_PORT": options.master_port or _free_port(is_one_host=len(ranks) == size),
        "MS_TOPO_TIMEOUT": str(options.timeout),
        "RANK_SIZE": str(size),
        **options.environ,
    }
    processes = []
    if ranks[0] == 0:
        environ = {**shared, "MS_ROLE": "MS_SCHED", "GLOG_v": "3"}
        # PyNative is MindSpore 2.0's default, in which it has no such cluster.
        context = f"ms.set_context(mode=ms.GRAPH_MODE, device_target={options.device!r})"
        command = [sys.executable, "-c", f"import mindspore as ms; {context}; {_SCHEDULER}"]
        log = options.logs / "scheduler.log"
        processes.append(Process("scheduler", command, environ, log, is_helper=True))
    devices = options.devices or [str(i) for i in range(len(ranks))]
    for rank, device, cores in zip(map(str, ranks), devices, _cores(options, devices)):
        environ = {**shared, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": rank, "RANK_ID": rank}
        environ["DEVICE_ID"] = device
        processes.append(_rank(options, rank, environ, cores))
    port = int(shared["MS_SCHED_PORT"]) if ranks[0] == 0 else None
    return Plan(processes, options.logs, port)


def _free_port(*, is_one_host: bool) -> str:
    if not is_one_host:
        return "8118"  # all hosts must know it
    with socket.socket() as listener:
        listener.bind((_LOCALHOST, 0))
        return str(listener.getsockname()[1])


def plan_msrun(options: argparse.Namespace) -> Plan:
    """MindSpore's own launcher (2.3 and newer), as one process that starts the ranks."""
    size = options.nproc * options.nnodes
    port = options.master_port or _free_port(is_one_host=options.nnodes == 1)
    command = [
        *(sys.executable, "-m", "mindspore.parallel.cluster.run", "--join=True"),
        *(f"--worker_num={size}", f"--local_worker_num={options.nproc}"),
        *(f"--master_addr={options.master_addr}",),
        f"--master_port={port}",
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
    return Plan([process], options.logs, int(port) if options.node_rank == 0 else None)


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
    _check_belonging(options)
    _check_numbers(options)
    if options.nnodes > 1 and options.launcher not in ("cluster", "msrun"):
        raise UserError(f"--nnodes {options.nnodes}: of cluster and msrun; not {options.launcher}")
    if options.launcher == "rank_table":
        options.device = "Ascend"
        if not options.rank_table:
            raise UserError("--launcher rank_table: needs --rank_table FILE")
    _check_devices(options)
    if options.launcher == "mpirun" and options.device == "CPU":
        raise UserError("--launcher mpirun: MindSpore has it on GPU and Ascend; use cluster")
    options.logs = options.logs.absolute()


def _check_numbers(options: argparse.Namespace) -> None:
    for key, least in {"nproc": 1, "nnodes": 1, "timeout": 1, "grace": 0}.items():
        if not getattr(options, key) >= least:
            raise UserError(f"--{key} {getattr(options, key)}: must be {least} or more")
    check_rank_timeout(options, mindspore_version())
    if not 0 <= options.node_rank < options.nnodes:
        raise UserError(f"--node_rank {options.node_rank}: must be in [0, {options.nnodes})")
    _card(options.device_id, "--device_id")
    port = options.master_port or "8118"
    try:
        whole_number(port, 1, 65535)
    except ValueError as error:
        raise UserError(f"--master_port {port[:40]!r}: must be in [1, 65535]") from error
    options.master_addr = resolve(
        options.master_addr, "--master_addr", is_one_host=options.nnodes == 1
    )
    version = mindspore_version()
    if ":" in options.master_addr and version is not None and version < _FIRST_WITH_IPV6:
        raise UserError(
            f"--master_addr {options.master_addr}: MindSpore {version[0]}.{version[1]} is not "
            "known to meet at IPv6 addresses, 2.10 is; give the IPv4 address"
        )


def _check_belonging(options: argparse.Namespace) -> None:
    """Refuses what the chosen launcher would pass by; sets what was not given."""
    launcher = options.launcher
    if launcher != "rank_table":
        for key in ("rank_table", "server_id"):
            if getattr(options, key):
                raise UserError(f"--{key}: of --launcher rank_table; not {launcher}")
    elif options.devices or options.nproc is not None:
        key = "devices" if options.devices else "nproc"
        raise UserError(f"--{key} {getattr(options, key)}: the rank table gives them; leave it out")
    if launcher != "standalone":
        if options.device_id is not None:
            raise UserError(f"--device_id {options.device_id}: of standalone; give --devices")
    elif options.devices or options.nproc not in (None, 1):
        key = "devices" if options.devices else "nproc"
        raise UserError(
            f"--{key} {getattr(options, key)}: standalone starts one process, on --device_id; use "
            "--launcher cluster for several"
        )
    count = len(options.devices.split(",")) if options.devices else 1
    if options.nproc is None:
        options.nproc = count
    elif options.devices and options.nproc != count:
        raise UserError(
            f"--nproc {options.nproc}: --devices {options.devices} names {count}; leave --nproc out"
        )
    options.device_id = options.device_id or "0"


def _check_devices(options: argparse.Namespace) -> None:
    options.environ = waiting_variables(options, os.environ, mindspore_version())
    if options.devices is None:
        _check_visible(options)
        return
    options.devices = options.devices.split(",")
    numbers = {_card(device, "--devices") for device in options.devices}
    if len(numbers) != len(options.devices):
        raise UserError(
            f"--devices {','.join(options.devices)}: must be different numbers with commas, "
            "such as 0,1,2,3"
        )
    if options.device == "Ascend":
        # CANN takes them in ascending order only.
        options.devices.sort(key=int)
    if options.device in _VISIBLE:
        options.environ[_VISIBLE[options.device]] = ",".join(options.devices)
        options.devices = None


def _check_visible(options: argparse.Namespace) -> None:
    """As many processes as cards: the caller's shell may show them fewer than the host has."""
    name = _VISIBLE.get(options.device, "")
    visible = os.environ.get(name, "")
    count = len(visible.split(","))
    if visible and options.nproc > count and options.launcher != "rank_table":
        raise UserError(
            f"--nproc {options.nproc}: {name}={visible} of this shell shows {count}; unset {name}, "
            "or choose with --devices"
        )


def check_host(options: argparse.Namespace, plan: Plan) -> None:
    """Refuses to start where the processes could not meet, or without CANN's variables.

    Raises:
        UserError: what is missing, or in use.
    """
    if options.device == "Ascend" and not os.environ.get("ASCEND_HOME_PATH"):
        raise UserError(
            "ASCEND_HOME_PATH: is not set, so CANN would not be found; first: source "
            "/usr/local/Ascend/ascend-toolkit/set_env.sh (CANN 8.5 and newer: "
            "/usr/local/Ascend/cann/set_env.sh)"
        )
    if plan.port is not None:
        check_port_is_free(plan.port)


def mindspore_version() -> Optional[Tuple[int, ...]]:
    """(major, minor) of the installed package, which is not imported; None: there is none."""
    try:
        version = importlib.metadata.version("mindspore")
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:2])


def inherited(environ: Dict[str, str]) -> Dict[str, str]:
    """The caller's environment without what tells a process its place among others."""
    return {name: value for name, value in environ.items() if name not in _PLACE}
