"""Make, merge, convert and check HCCL rank tables, which list the hosts and cards of a job.

python scripts/rank_table.py make --server_id 10.0.0.1 --output host1.json

See docs/distributed.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.launch.addresses import device_ips, parse_devices
from src.launch.rank_table import Table, check_rank_table, merge, numbered, show
from src.launch.rank_table_files import (
    convert,
    find_rank_table,
    is_template2,
    load_table,
    wait_until_completed,
)
from src.runtime.entry import CommandParser, finite, run_command
from src.runtime.files import write_json


def make(options: argparse.Namespace) -> Table:
    """The table of this host."""
    devices = parse_devices(options.devices)
    ips = device_ips(devices, hccn_tool=options.hccn_tool, hccn_conf=options.hccn_conf)
    entries = [{"device_id": str(device), "device_ip": ips[device]} for device in devices]
    server = {"server_id": options.server_id, "device": entries, "host_nic_ip": "reserve"}
    return numbered([server])


def _checked(table: Any) -> Table:
    check_rank_table(table)
    return table


def _read(path: Path) -> Table:
    table = load_table(find_rank_table(path))
    return _checked(convert(table) if is_template2(table) else table)


def _convert(options: argparse.Namespace) -> Table:
    source = wait_until_completed(find_rank_table(options.table), timeout_s=options.timeout)
    if not is_template2(source):
        raise UserError(f"{options.table}: has no group_list; it needs no conversion")
    return convert(source)


def _merge(options: argparse.Namespace) -> Table:
    return merge([_checked(load_table(path)) for path in options.tables])


_WRITERS = {"make": make, "merge": _merge, "convert": _convert}


def work(options: argparse.Namespace) -> None:
    """Writes a table, or says what one holds."""
    if options.command == "show":
        print(show(_read(options.table)))
    elif options.command == "validate":
        _read(options.table)
        print(f"{options.table}: valid")
    else:
        write_json(options.output, _checked(_WRITERS[options.command](options)))
        print(f"wrote {options.output}")


def _parser() -> CommandParser:
    parser = CommandParser("rank_table.py", __doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> CommandParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    made = add("make", "write the table of this host")
    made.add_argument(
        "--devices", default="[0,8)", help="cards, as 0,1,2,3 or [0,8) (default: [0,8))"
    )
    made.add_argument("--server_id", required=True, help="IP address of this host")
    made.add_argument("--hccn_tool", default="hccn_tool", help="program that knows the addresses")
    made.add_argument(
        "--hccn_conf",
        type=Path,
        default=Path("/etc/hccn.conf"),
        help="file with the addresses, where that program is not (default: %(default)s)",
    )
    made.add_argument("--output", type=Path, required=True, help="table to write")
    merged = add("merge", "write one table from the tables of several hosts")
    merged.add_argument("tables", type=Path, nargs="+", help="files or folders, one of each host")
    merged.add_argument("--output", type=Path, required=True, help="table to write")
    converted = add("convert", "turn a table of ModelArts' template 2 into one of version 1.0")
    converted.add_argument("table", type=Path, help="file or folder")
    converted.add_argument("--output", type=Path, required=True, help="table to write")
    converted.add_argument(
        "--timeout", type=finite, default=600, help="seconds to wait for `completed`"
    )
    for name, text in (
        ("validate", "check a table"),
        ("show", "check a table, and list its ranks"),
    ):
        command = add(name, text)
        command.add_argument("table", type=Path, help="file or folder")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(work, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
