"""What a host knows of itself: its entry in a rank table, the addresses of its devices."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import subprocess
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set

from ..errors import UserError
from ..runtime.plain_numbers import whole_number
from ..runtime.regular_files import RECIPE_BYTES, read_text
from .rank_table import Table

# Of one host; servers have 8 or 16.
_MOST_DEVICES = 1024


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
    raise UserError(
        f"server_id {', '.join(sorted(mine))}: is not one of the rank table's ({names}); give this "
        "host's with --server_id"
    )


def _own_addresses() -> Set[str]:
    try:
        ended = subprocess.run(
            ["hostname", "-I"], capture_output=True, encoding="utf-8", errors="replace"
        )
        found = ended.stdout.split()
    except OSError:
        found = []
    return {*found, socket.gethostname()}


def device_ips(devices: Sequence[int], *, hccn_tool: str, hccn_conf: Path) -> Dict[int, str]:
    """Address of each device, of `hccn_tool -i N -ip -g` or else of hccn.conf (`address_N=`).

    Raises:
        UserError: neither knows it.
    """
    text = _read_conf(hccn_conf) if hccn_conf.is_file() else ""
    configured = dict(re.findall(r"^\s*address_([0-9]+)\s*=\s*(\S+)", text, re.MULTILINE))
    found = {}
    for device in devices:
        command = [hccn_tool, "-i", str(device), "-ip", "-g"]
        try:
            ended = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=60
            )
            said = ended.stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        match = re.search(r"ipaddr:\s*(\S+)", said)
        address = match.group(1) if match else configured.get(str(device))
        if address is None:
            raise UserError(
                f"device {device}: neither {hccn_tool} nor {hccn_conf} knows its address; run on "
                "the Ascend host as a user who may, or set it with hccn_tool"
            )
        found[device] = address
    return found


def _read_conf(path: Path) -> str:
    try:
        return read_text(path, RECIPE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"--hccn_conf {str(path)!r}: cannot be read ({reason}); give the host's /etc/hccn.conf"
        ) from error


def parse_devices(text: str) -> List[int]:
    """`0,1,2,3`, or the model zoo's half-open `[0,4)`."""
    zoo = re.fullmatch(r"\[(.+),(.+)\)", text.replace(" ", ""))
    try:
        numbers = [
            whole_number(part, most=_MOST_DEVICES)
            for part in (zoo.groups() if zoo else text.split(","))
        ]
    except ValueError:
        numbers = []
    devices = list(range(*numbers)) if zoo and numbers else numbers
    if not devices or len(set(devices)) != len(devices):
        raise UserError(
            f"--devices {text[:80]!r}: must be like 0,1,2,3 or [0,8), none twice, none above "
            f"{_MOST_DEVICES}"
        )
    return sorted(devices)


def resolve(host: str, option: str, *, is_one_host: bool = False) -> str:
    """The address of a host: MindSpore's cluster looks no name up, and its ranks would wait.

    Args:
        host: an IPv4 or IPv6 address, which may stand in brackets, or a name.
        option: that names it, for the message.
        is_one_host: nobody else has to reach it.

    Raises:
        UserError: nobody knows the name, or this host alone.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    try:
        found = [entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{option} {host!r}: is no address, and no host that is known here ({reason}); give "
            "the address, such as 10.0.0.1"
        ) from error
    # Older versions of MindSpore know IPv4 only.
    address = str(min(found, key=lambda text: ipaddress.ip_address(text).version))
    if ipaddress.ip_address(address).is_loopback and not is_one_host:
        raise UserError(
            f"{option} {host!r}: is {address} on this host, where no other host reaches it; give "
            "its address in the network, such as 10.0.0.1"
        )
    return address


def check_port_is_free(port: int) -> None:
    """Raises UserError, naming the process, where another one listens on a port of this host."""
    kind = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        with socket.create_server(("", port), family=kind, dualstack_ipv6=kind == socket.AF_INET6):
            return
    except OSError as error:
        raise UserError(
            f"--master_port {port}: cannot be used on this host ({error.strerror}"
            f"{_listener_on(port)}); end that, or give another port on all hosts"
        ) from error


def _listener_on(port: int) -> str:
    """` by process 17, python train.py`, as far as /proc shows it."""
    sockets = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            # 0A: it listens.
            sockets |= {
                f"socket:[{row[9]}]"
                for row in rows
                if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
            }
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode("utf-8", "replace").strip()
                return f" by process {process.name}, {command[:80]}"
    return ""
