"""HCCL rank tables: what is right, and the order of the ranks. See docs/distributed.md."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from typing import Any, Dict, List, NoReturn, Sequence, Tuple

from ..errors import UserError
from ..runtime import plain_numbers

Table = Dict[str, Any]

_VERSIONS = ("1.0", "1.2")
_STATES = ("initializing", "completed")
_SHOWN = 40
_SERVER_KEYS = {"server_id": str, "device": list}
_DEVICE_KEYS = {"device_id": str, "device_ip": str, "rank_id": str}


def _refuse(place: str, problem: str) -> NoReturn:
    raise UserError(f"{place}: {problem}")


def _shown(value: Any) -> str:
    """Not longer than a line has room for."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(value: Any) -> str:
    names = {
        str: "a string",
        list: "a list",
        dict: "an object",
        bool: "true or false",
        int: "a number",
    }
    return names.get(type(value), type(value).__name__)


def value_of(entry: Any, key: str, kind: type, place: str) -> Any:
    """`entry[key]`, which must be there and of this kind; `place` is of `entry`, for the message.

    Raises:
        UserError: it is not.
    """
    if not isinstance(entry, dict):
        _refuse(place, f"must be an object with {key!r}, is {_kind(entry)}")
    if key not in entry:
        _refuse(place, f"{key!r} is missing")
    value = entry[key]
    if not isinstance(value, kind):
        quote = f'; write "{value}"' if kind is str and isinstance(value, (int, float)) else ""
        _refuse(f"{place}.{key}", f"must be {_kind(kind())}, is {_shown(value)}{quote}")
    return value


def whole_number(text: str, place: str) -> int:
    """Of `text` at `place`. Raises UserError."""
    try:
        # Of super devices, which are numbered by 32 bits, too.
        return plain_numbers.whole_number(text, most=2**32 - 1)
    except ValueError:
        _refuse(place, f"must be a whole number as a string, below 2^32, is {_shown(text)}")


def _ip(text: str, place: str) -> None:
    with contextlib.suppress(ValueError):
        # The name of an interface, which may stand behind, means something on its own host only.
        if "%" not in text and ipaddress.ip_address(text):
            return
    _refuse(place, f"{_shown(text)} is no IP address; `hccn_tool -i N -ip -g` shows the right one")


def _unique(values: Sequence[str], what: str, places: Sequence[str]) -> None:
    seen: Dict[str, str] = {}
    for value, place in zip(values, places):
        if value in seen:
            _refuse(
                place, f"{what} {_shown(value)} is at {seen[value]} already; each may occur once"
            )
        seen[value] = place


def check_count(entry: Table, key: str, actual: int, what: str, place: str) -> None:
    """`entry[key]` must say `actual`, the number of `what`. Raises UserError."""
    said = whole_number(value_of(entry, key, str, place), f"{place}.{key}")
    if said != actual:
        _refuse(f"{place}.{key}", f"says {said}, but there are {actual} {what}")


def check_rank_table(table: Any) -> None:
    """Checks a rank table of version 1.0, with or without clusters, or 1.2 (SuperPoD).

    Raises:
        UserError: the first thing that is wrong, and where.
    """
    version = value_of(table, "version", str, "table")
    if version not in _VERSIONS:
        _refuse("table.version", f"{_shown(version)} is unknown; allowed: {', '.join(_VERSIONS)}")
    status = value_of(table, "status", str, "table")
    if status not in _STATES:
        _refuse("table.status", f"{_shown(status)} is unknown; allowed: {', '.join(_STATES)}")
    if status != "completed":
        _refuse("table.status", f"is {status!r}: the platform is not ready; wait for 'completed'")
    servers = value_of(table, "server_list", list, "table")
    if not servers:
        _refuse("table.server_list", "is empty; one server is the least")
    check_count(table, "server_count", len(servers), "servers in server_list", "table")
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
        value_of(server, key, kind, place)
    for key in ("host_ip", "server_ip", "pod_ip"):
        if key in server:
            _ip(value_of(server, key, str, place), f"{place}.{key}")
    if not server["server_id"]:
        _refuse(f"{place}.server_id", "is empty; give the server's IP address")
    if not server["device"]:
        _refuse(f"{place}.device", "is empty; leave a server without devices out")
    for number, device in enumerate(server["device"]):
        _check_device(device, f"{place}.device[{number}]", version)
    places = [f"{place}.device[{i}]" for i in range(len(server["device"]))]
    _unique([d["device_id"] for d in server["device"]], "device_id", places)


def _check_device(device: Any, place: str, version: str) -> None:
    for key, kind in _DEVICE_KEYS.items():
        value_of(device, key, kind, place)
    for key in ("device_id", "rank_id"):
        whole_number(device[key], f"{place}.{key}")
    _ip(device["device_ip"], f"{place}.device_ip")
    for key in ("dpu_ip", "backup_device_ip"):
        if key in device:
            _ip(value_of(device, key, str, place), f"{place}.{key}")
    for key in ("device_port", "backup_device_port", "host_port", "numa_id"):
        if key in device:
            whole_number(value_of(device, key, str, place), f"{place}.{key}")
    if version == "1.2":
        whole_number(value_of(device, "super_device_id", str, place), f"{place}.super_device_id")


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
            _refuse(
                f"server_list[{number}].server_id",
                f"{_shown(name)} comes after {_shown(before)}; servers must be in the dictionary "
                "order of server_id, as HCCL numbers them; `rank_table.py merge` sorts",
            )


def _check_ranks(servers: List[Table]) -> None:
    devices = _devices(servers)
    places = [place for place, _ in devices]
    _unique([device["rank_id"] for _, device in devices], "rank_id", places)
    _unique([device["device_ip"] for _, device in devices], "device_ip", places)
    ranks = sorted(int(device["rank_id"]) for _, device in devices)
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if missing:
        _refuse(
            "server_list",
            f"rank_id {missing[0]} is missing: {len(ranks)} devices need 0 to {len(ranks) - 1}",
        )
    for expected, (place, device) in enumerate(devices):
        if int(device["rank_id"]) != expected:
            _refuse(
                f"{place}.rank_id",
                f"is {device['rank_id']!r} where {expected} is due; ranks rise over the servers",
            )


def _check_groups(table: Table, list_key: str, id_key: str, servers: List[Table]) -> None:
    groups = value_of(table, list_key, list, "table")
    members, places = [], []
    for number, group in enumerate(groups):
        place = f"{list_key}[{number}]"
        value_of(group, id_key, str, place)
        for index, server in enumerate(value_of(group, "server_list", list, place)):
            members.append(value_of(server, "server_id", str, f"{place}.server_list[{index}]"))
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
            _refuse(place, f"server_id {_shown(name)} is not in the table's server_list")
    for name in sorted(known - set(members)):
        _refuse(
            list_key,
            f"server_id {_shown(name)} of the table's server_list is in none of the groups",
        )


def _check_clusters(clusters: List[Table]) -> None:
    for number, cluster in enumerate(clusters):
        network = value_of(cluster, "network_type", str, f"cluster_list[{number}]")
        if network != "ROCE":
            _refuse(
                f"cluster_list[{number}].network_type",
                f"{_shown(network)} is unknown; allowed: ROCE",
            )


def numbered(servers: List[Table], status: str = "completed") -> Table:
    """A table of version 1.0, with ranks in the order of server_id, then device_id, as HCCL wants.

    Raises:
        UserError: a device_id that is no number.
    """
    rank = 0
    servers = sorted(servers, key=lambda server: server["server_id"])
    for number, server in enumerate(servers):
        place = f"server {number}"
        server["device"] = sorted(
            server["device"], key=lambda d: whole_number(d["device_id"], f"{place}: device_id")
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


def merge(tables: Sequence[Table]) -> Table:
    """One table of the servers of several."""
    return numbered([server for table in tables for server in table["server_list"]])


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
