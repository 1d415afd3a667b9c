"""HCCL rank tables: make, merge, validate, convert, show. See docs/distributed.md."""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

Table = Dict[str, Any]

MODELARTS_FILE = "jobstart_hccl.json"
_VERSIONS = ("1.0", "1.2")
_STATES = ("initializing", "completed")
_SERVER_KEYS = {"server_id": str, "device": list}
_DEVICE_KEYS = {"device_id": str, "device_ip": str, "rank_id": str}


class RankTableError(Exception):
    """What is wrong with a rank table, where, and what to do: one line."""


# --- checks -------------------------------------------------------------------------------------


def _fail(place: str, problem: str) -> None:
    raise RankTableError(f"{place}: {problem}")


def _kind(value: Any) -> str:
    names = {
        str: "a string",
        list: "a list",
        dict: "an object",
        bool: "true or false",
        int: "a number",
    }
    return names.get(type(value), type(value).__name__)


def _need(entry: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(entry, dict):
        _fail(place, f"must be an object with {key!r}, is {_kind(entry)}")
    if key not in entry:
        _fail(place, f"{key!r} is missing")
    value = entry[key]
    if not isinstance(value, kind):
        quote = f'; write "{value}"' if kind is str and isinstance(value, (int, float)) else ""
        _fail(f"{place}.{key}", f"must be {_kind(kind())}, is {json.dumps(value)[:40]}{quote}")
    return value


def _number(text: str, place: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]*", text):
        _fail(place, f"must be a whole number as a string, is {text!r}")
    return int(text)


def _ip(text: str, place: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        _fail(place, f"{text!r} is no IP address; `hccn_tool -i N -ip -g` shows the right one")


def _unique(values: Sequence[str], what: str, places: Sequence[str]) -> None:
    seen: Dict[str, str] = {}
    for value, place in zip(values, places):
        if value in seen:
            _fail(place, f"{what} {value!r} is at {seen[value]} already; each may occur once")
        seen[value] = place


def _count(entry: Table, key: str, actual: int, what: str, place: str) -> None:
    said = _number(_need(entry, key, str, place), f"{place}.{key}")
    if said != actual:
        _fail(f"{place}.{key}", f"says {said}, but there are {actual} {what}")


def validate(table: Any) -> None:
    """Checks a rank table of version 1.0, with or without clusters, or 1.2 (SuperPoD).

    Raises:
        RankTableError: the first thing that is wrong, and where.
    """
    version = _need(table, "version", str, "table")
    if version not in _VERSIONS:
        _fail("table.version", f"{version!r} is unknown; allowed: {', '.join(_VERSIONS)}")
    status = _need(table, "status", str, "table")
    if status not in _STATES:
        _fail("table.status", f"{status!r} is unknown; allowed: {', '.join(_STATES)}")
    if status != "completed":
        _fail("table.status", f"is {status!r}: the platform is not ready; wait for 'completed'")
    servers = _need(table, "server_list", list, "table")
    if not servers:
        _fail("table.server_list", "is empty; one server is the least")
    _count(table, "server_count", len(servers), "servers in server_list", "table")
    for number, server in enumerate(servers):
        _check_server(server, f"server_list[{number}]", version)
    _check_servers(servers)
    _check_ranks(servers)
    if "cluster_list" in table:
        _check_groups(table, "cluster_list", "cluster_id", servers)
        _check_clusters(table["cluster_list"])
    if version == "1.2":
        _check_groups(table, "super_pod_list", "super_pod_id", servers)


def _check_server(server: Any, place: str, version: str) -> None:
    for key, kind in _SERVER_KEYS.items():
        _need(server, key, kind, place)
    for key in ("host_ip", "server_ip", "pod_ip"):
        if key in server:
            _ip(_need(server, key, str, place), f"{place}.{key}")
    if not server["server_id"]:
        _fail(f"{place}.server_id", "is empty; give the server's IP address")
    if not server["device"]:
        _fail(f"{place}.device", "is empty; leave a server without devices out")
    for number, device in enumerate(server["device"]):
        _check_device(device, f"{place}.device[{number}]", version)
    places = [f"{place}.device[{i}]" for i in range(len(server["device"]))]
    _unique([d["device_id"] for d in server["device"]], "device_id", places)


def _check_device(device: Any, place: str, version: str) -> None:
    for key, kind in _DEVICE_KEYS.items():
        _need(device, key, kind, place)
    for key in ("device_id", "rank_id"):
        _number(device[key], f"{place}.{key}")
    _ip(device["device_ip"], f"{place}.device_ip")
    for key in ("dpu_ip", "backup_device_ip"):
        if key in device:
            _ip(_need(device, key, str, place), f"{place}.{key}")
    for key in ("device_port", "backup_device_port", "host_port", "numa_id"):
        if key in device:
            _number(_need(device, key, str, place), f"{place}.{key}")
    if version == "1.2":
        _number(_need(device, "super_device_id", str, place), f"{place}.super_device_id")


def _devices(servers: List[Table]) -> List[Tuple[str, Table]]:
    return [
        (f"server_list[{i}].device[{j}]", device)
        for i, server in enumerate(servers)
        for j, device in enumerate(server["device"])
    ]


def _check_servers(servers: List[Table]) -> None:
    names = [server["server_id"] for server in servers]
    _unique(names, "server_id", [f"server_list[{i}]" for i in range(len(names))])
    for number, (before, name) in enumerate(zip(names, names[1:]), start=1):
        if name < before:
            _fail(
                f"server_list[{number}].server_id",
                f"{name!r} comes after {before!r}; servers must be in the dictionary order of "
                "server_id, as HCCL numbers them; `rank_table.py merge` sorts",
            )


def _check_ranks(servers: List[Table]) -> None:
    devices = _devices(servers)
    places = [place for place, _ in devices]
    _unique([device["rank_id"] for _, device in devices], "rank_id", places)
    _unique([device["device_ip"] for _, device in devices], "device_ip", places)
    ranks = sorted(int(device["rank_id"]) for _, device in devices)
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if missing:
        _fail(
            "server_list",
            f"rank_id {missing[0]} is missing: {len(ranks)} devices need 0 to {len(ranks) - 1}",
        )
    for expected, (place, device) in enumerate(devices):
        if int(device["rank_id"]) != expected:
            _fail(
                f"{place}.rank_id",
                f"is {device['rank_id']!r} where {expected} is due; ranks rise over the servers",
            )


def _check_groups(table: Table, list_key: str, id_key: str, servers: List[Table]) -> None:
    groups = _need(table, list_key, list, "table")
    members, places = [], []
    for number, group in enumerate(groups):
        place = f"{list_key}[{number}]"
        _need(group, id_key, str, place)
        for index, server in enumerate(_need(group, "server_list", list, place)):
            members.append(_need(server, "server_id", str, f"{place}.server_list[{index}]"))
            places.append(f"{place}.server_list[{index}]")
    _unique(
        [group[id_key] for group in groups],
        id_key,
        [f"{list_key}[{i}]" for i in range(len(groups))],
    )
    _unique(members, "server_id", places)
    known = {server["server_id"] for server in servers}
    for name, place in zip(members, places):
        if name not in known:
            _fail(place, f"server_id {name!r} is not in the table's server_list")
    for name in sorted(known - set(members)):
        _fail(list_key, f"server_id {name!r} of the table's server_list is in none of the groups")


def _check_clusters(clusters: List[Table]) -> None:
    for number, cluster in enumerate(clusters):
        network = _need(cluster, "network_type", str, f"cluster_list[{number}]")
        if network != "ROCE":
            _fail(f"cluster_list[{number}].network_type", f"{network!r} is unknown; allowed: ROCE")


# --- reading ------------------------------------------------------------------------------------


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RankTableError(f"rank table {str(path)!r}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RankTableError(f"rank table {str(path)!r}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise RankTableError(
            f"{path}:{error.lineno}: not JSON ({error.msg}); make the table anew"
        ) from error


def find_file(path: Path) -> Path:
    """The table's file; ModelArts' RANK_TABLE_FILE may be the folder it is in."""
    path = path.absolute()
    if not path.is_dir():
        return path
    tables = [path / MODELARTS_FILE] if (path / MODELARTS_FILE).exists() else []
    tables = tables or sorted(path.glob("*.json"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "no .json file"
        raise RankTableError(f"rank table {str(path)!r}: a folder with {found}; name one file")
    return tables[0]


def is_template2(table: Any) -> bool:
    """Whether it is ModelArts' form, with groups instead of servers."""
    return isinstance(table, dict) and "group_list" in table


def convert(table: Table) -> Table:
    """ModelArts' "template 2" as version 1.0; ranks in the order of server_id, then device_id.

    Raises:
        RankTableError: what is missing, or does not agree.
    """
    groups = _need(table, "group_list", list, "table")
    _count(table, "group_count", len(groups), "groups in group_list", "table")
    servers: List[Table] = []
    for number, group in enumerate(groups):
        place = f"group_list[{number}]"
        instances = _need(group, "instance_list", list, place)
        _count(group, "instance_count", len(instances), "instances in instance_list", place)
        for index, instance in enumerate(instances):
            servers.append(_server_of(instance, f"{place}.instance_list[{index}]"))
        total = sum(len(instance["devices"]) for instance in instances)
        _count(group, "device_count", total, "devices in the group", place)
    return _numbered(servers, _need(table, "status", str, "table"))


def _server_of(instance: Any, place: str) -> Table:
    name = _need(instance, "server_id", str, place)
    devices = [
        {
            key: _need(device, key, str, f"{place}.devices[{i}]")
            for key in ("device_id", "device_ip")
        }
        for i, device in enumerate(_need(instance, "devices", list, place))
    ]
    return {"server_id": name, "device": devices, "host_nic_ip": "reserve"}


def _numbered(servers: List[Table], status: str = "completed") -> Table:
    rank = 0
    servers = sorted(servers, key=lambda server: server["server_id"])
    for number, server in enumerate(servers):
        place = f"server {number}"
        server["device"] = sorted(
            server["device"], key=lambda d: _number(d["device_id"], f"{place}: device_id")
        )
        for device in server["device"]:
            device["rank_id"] = str(rank)
            rank += 1
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": servers,
        "status": status,
    }


def wait_until_completed(
    path: Path, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> Any:
    """Reads a table until its status is `completed`; says so while it waits.

    Raises:
        RankTableError: not within `timeout_s` seconds.
    """
    start = time.monotonic()
    said = 0.0
    while True:
        # The platform may be writing it.
        try:
            table: Any = _load(path)
            status = table.get("status") if isinstance(table, dict) else None
            if status != "initializing":
                return table
            problem = "status 'initializing'"
        except RankTableError as error:
            problem = str(error)
            if timeout_s <= 0:
                raise
        waited = time.monotonic() - start
        if waited >= timeout_s:
            raise RankTableError(f"{path}: not completed after {timeout_s:g} s ({problem})")
        if waited >= said:
            print(f"waiting for {path} ({problem}, {waited:.0f} s)", file=sys.stderr)
            said = waited + 10
        sleep(min(1.0, timeout_s - waited))


def read_rank_table(path: Path, *, timeout_s: float) -> Tuple[Path, Table]:
    """A valid table, converted and waited for if it is ModelArts'.

    Returns:
        absolute path of a file of version 1.0 or 1.2 (of a converted table: beside the logs, in
        the working folder), and its content.

    Raises:
        RankTableError: the file is missing or wrong.
    """
    file = find_file(path)
    if not file.is_file():
        raise RankTableError(
            f"rank table {str(path)!r}: no such file; scripts/rank_table.py make writes one"
        )
    table = wait_until_completed(file, timeout_s=timeout_s)
    if not is_template2(table):
        validate(table)
        return file, table
    table = convert(table)
    validate(table)
    file = Path.cwd() / "rank_table_converted.json"
    _write(file, table)
    return file, table


def local_server(table: Table, server_id: Optional[str]) -> Table:
    """The entry of this host: the named one, the only one, or the one with an address of ours."""
    servers = table["server_list"]
    if server_id is None and len(servers) == 1:
        return servers[0]
    mine = {server_id} if server_id else _own_addresses()
    keys = ("server_id", "host_ip", "server_ip")
    found = [s for s in servers if any(s.get(key) in mine for key in keys)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(server["server_id"] for server in servers)
    raise RankTableError(
        f"server_id {', '.join(sorted(mine))}: is not one of the rank table's ({names}); give this "
        "host's with --server_id"
    )


def _own_addresses() -> set:
    try:
        found = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    except OSError:
        found = []
    return {*found, socket.gethostname()}


# --- making -------------------------------------------------------------------------------------


def device_ips(devices: Sequence[int], *, hccn_tool: str, hccn_conf: Path) -> Dict[int, str]:
    """Address of each device, of `hccn_tool -i N -ip -g` or else of hccn.conf (`address_N=`).

    Raises:
        RankTableError: neither knows it.
    """
    text = hccn_conf.read_text(encoding="utf-8") if hccn_conf.is_file() else ""
    configured = dict(re.findall(r"^\s*address_([0-9]+)\s*=\s*(\S+)", text, re.MULTILINE))
    found = {}
    for device in devices:
        command = [hccn_tool, "-i", str(device), "-ip", "-g"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        match = re.search(r"ipaddr:\s*(\S+)", said)
        address = match.group(1) if match else configured.get(str(device))
        if address is None:
            raise RankTableError(
                f"device {device}: neither {hccn_tool} nor {hccn_conf} knows its address; run on "
                "the Ascend host as a user who may, or set it with hccn_tool"
            )
        found[device] = address
    return found


def parse_devices(text: str) -> List[int]:
    """`0,1,2,3`, or the model zoo's half-open `[0,4)`."""
    zoo = re.fullmatch(r"\[([0-9]+),([0-9]+)\)", text.replace(" ", ""))
    if zoo:
        devices = list(range(int(zoo.group(1)), int(zoo.group(2))))
    elif re.fullmatch("[0-9]+(,[0-9]+)*", text):
        devices = [int(part) for part in text.split(",")]
    else:
        devices = []
    if not devices or len(set(devices)) != len(devices):
        raise RankTableError(f"--devices {text!r}: must be like 0,1,2,3 or [0,8), none twice")
    return sorted(devices)


def make(options: argparse.Namespace) -> Table:
    devices = parse_devices(options.devices)
    ips = device_ips(devices, hccn_tool=options.hccn_tool, hccn_conf=options.hccn_conf)
    entries = [{"device_id": str(device), "device_ip": ips[device]} for device in devices]
    server = {"server_id": options.server_id, "device": entries, "host_nic_ip": "reserve"}
    return _numbered([server])


def merge(tables: Sequence[Table]) -> Table:
    """One table of the servers of several, in the order that HCCL wants."""
    return _numbered([server for table in tables for server in table["server_list"]])


def show(table: Table) -> str:
    """One line per rank."""
    lines = [f"version {table['version']}, {len(table['server_list'])} server(s)"]
    for server in table["server_list"]:
        for device in server["device"]:
            pod = (
                f"  super_device {device['super_device_id']}" if "super_device_id" in device else ""
            )
            lines.append(
                f"rank {device['rank_id']:>4}  server {server['server_id']}  device "
                f"{device['device_id']}  {device['device_ip']}{pod}"
            )
    return "\n".join(lines)


def _write(path: Path, table: Table) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


class _Parser(argparse.ArgumentParser):
    """One line for a wrong argument, too."""

    def error(self, message: str) -> NoReturn:
        raise RankTableError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rank_table.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make", help="write the table of this host")
    made.add_argument("--devices", default="[0,8)", help="0,1,2,3 or [0,8)")
    made.add_argument("--server_id", required=True, help="IP address of this host")
    made.add_argument("--hccn_tool", default="hccn_tool", help="program that knows the addresses")
    made.add_argument("--hccn_conf", type=Path, default=Path("/etc/hccn.conf"))
    made.add_argument("--output", type=Path, required=True)
    merged = commands.add_parser("merge", help="one table of several hosts' tables")
    merged.add_argument("tables", type=Path, nargs="+")
    merged.add_argument("--output", type=Path, required=True)
    converted = commands.add_parser("convert", help="ModelArts' template 2 -> version 1.0")
    converted.add_argument("table", type=Path, help="file or folder")
    converted.add_argument("--output", type=Path, required=True)
    converted.add_argument("--timeout", type=float, default=600, help="s to wait for `completed`")
    for name, text in (("validate", "check a table"), ("show", "check, and list the ranks")):
        command = commands.add_parser(name, help=text)
        command.add_argument("table", type=Path, help="file or folder")
    return parser


def _run(options: argparse.Namespace) -> str:
    if options.command in ("validate", "show"):
        table = _load(find_file(options.table))
        table = convert(table) if is_template2(table) else table
        validate(table)
        return show(table) if options.command == "show" else f"{options.table}: valid"
    if options.command == "make":
        table = make(options)
    elif options.command == "merge":
        tables = [_load(path) for path in options.tables]
        for each in tables:
            validate(each)
        table = merge(tables)
    else:
        source = wait_until_completed(find_file(options.table), timeout_s=options.timeout)
        if not is_template2(source):
            raise RankTableError(f"{options.table}: has no group_list; it needs no conversion")
        table = convert(source)
    validate(table)
    _write(options.output, table)
    return f"wrote {options.output}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    try:
        print(_run(_parser().parse_args(argv)))
    except (RankTableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
