"""Rank tables on the disk, and what ModelArts writes in their place."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, List, Tuple

from ..errors import UserError
from ..runtime.files import write_json
from ..runtime.json_files import read_json
from ..runtime.regular_files import RANK_TABLE_BYTES, FileTooLarge, NoRegularFile
from .rank_table import Table, check_count, check_rank_table, numbered, value_of

MODELARTS_FILE = "jobstart_hccl.json"
# A file that was not touched for so long is not being written.
_SETTLED_S = 30.0


def load_table(path: Path) -> Any:
    """The content of a file, not checked yet. Raises UserError."""
    try:
        return read_json(path, RANK_TABLE_BYTES)
    except FileNotFoundError:
        raise UserError(f"rank table {str(path)!r}: no such file") from None
    except OSError as error:
        raise UserError(
            f"rank table {str(path)!r}: cannot be read ({error.strerror}); make it anew"
        ) from error
    except ValueError as error:
        raise UserError(f"rank table {str(path)!r}: not JSON ({error}); make it anew") from error


def find_rank_table(path: Path) -> Path:
    """The table's file; ModelArts' RANK_TABLE_FILE may be the folder it is in."""
    path = path.absolute()
    if not path.is_dir():
        return path
    tables = [path / MODELARTS_FILE] if (path / MODELARTS_FILE).exists() else []
    tables = tables or sorted(path.glob("*.json"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "no .json file"
        raise UserError(f"rank table {str(path)!r}: a folder with {found}; name one file")
    return tables[0]


def is_template2(table: Any) -> bool:
    """Whether it is ModelArts' form, with groups instead of servers."""
    return isinstance(table, dict) and "group_list" in table


def convert(table: Table) -> Table:
    """ModelArts' "template 2" as version 1.0; ranks in the order of server_id, then device_id.

    Raises:
        UserError: what is missing, or does not agree.
    """
    groups = value_of(table, "group_list", list, "table")
    check_count(table, "group_count", len(groups), "groups in group_list", "table")
    servers: List[Table] = []
    for number, group in enumerate(groups):
        place = f"group_list[{number}]"
        instances = value_of(group, "instance_list", list, place)
        check_count(group, "instance_count", len(instances), "instances in instance_list", place)
        for index, instance in enumerate(instances):
            servers.append(_server_of(instance, f"{place}.instance_list[{index}]"))
        total = sum(len(instance["devices"]) for instance in instances)
        check_count(group, "device_count", total, "devices in the group", place)
    return numbered(servers, value_of(table, "status", str, "table"))


def _server_of(instance: Any, place: str) -> Table:
    name = value_of(instance, "server_id", str, place)
    devices = [
        {
            key: value_of(device, key, str, f"{place}.devices[{i}]")
            for key in ("device_id", "device_ip")
        }
        for i, device in enumerate(value_of(instance, "devices", list, place))
    ]
    return {"server_id": name, "device": devices, "host_nic_ip": "reserve"}


def wait_until_completed(path: Path, *, timeout_s: float) -> Any:
    """Reads a table until its status is `completed`; says so while it waits.

    Raises:
        UserError: not within `timeout_s` seconds.
    """
    start = time.monotonic()
    said = 0.0
    while True:
        # The platform may be writing it.
        try:
            table: Any = load_table(path)
            status = table.get("status") if isinstance(table, dict) else None
            if status != "initializing":
                return table
            problem = "status 'initializing'"
        except UserError as error:
            problem = str(error)
            is_wrong = isinstance(error.__cause__, (FileTooLarge, NoRegularFile))
            if timeout_s <= 0 or is_wrong or _is_settled(path):
                raise
        waited = time.monotonic() - start
        if waited >= timeout_s:
            raise UserError(f"{path}: not completed after {timeout_s:g} s ({problem})")
        if waited >= said:
            print(f"waiting for {path} ({problem}, {waited:.0f} s)", file=sys.stderr)
            said = waited + 10
        time.sleep(min(1.0, timeout_s - waited))


def _is_settled(path: Path) -> bool:
    """Whether nobody is writing the file any more."""
    return path.is_file() and time.time() - path.stat().st_mtime > _SETTLED_S


def read_rank_table(path: Path, *, timeout_s: float, folder: Path) -> Tuple[Path, Table]:
    """A valid table, converted and waited for if it is ModelArts'.

    Returns:
        absolute path of a file of version 1.0 or 1.2 (of a converted table: in `folder`), and its
        content.

    Raises:
        UserError: the file is missing or wrong.
    """
    file = find_rank_table(path)
    if not file.is_file():
        raise UserError(
            f"rank table {str(path)!r}: no such file; scripts/rank_table.py make writes one"
        )
    table = wait_until_completed(file, timeout_s=timeout_s)
    if not is_template2(table):
        check_rank_table(table)
        return file, table
    table = convert(table)
    check_rank_table(table)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.absolute() / "rank_table_converted.json"
    write_json(file, table)
    return file, table
