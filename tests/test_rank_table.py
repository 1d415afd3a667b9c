"""Rank tables: every damage has its own message; made, merged and converted ones are whole."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import rank_table  # noqa: E402

from src.errors import UserError  # noqa: E402
from src.launch.addresses import parse_devices  # noqa: E402
from src.launch.rank_table import check_rank_table  # noqa: E402
from src.launch.rank_table_files import convert  # noqa: E402

Table = Dict[str, Any]
Damage = Callable[[Table], Any]


def table_of(servers: int = 2, devices: int = 2) -> Table:
    """A right table of version 1.0, written out by hand in the shape the HCCL guide shows."""
    return {
        "version": "1.0",
        "server_count": str(servers),
        "server_list": [
            {
                "server_id": f"10.0.0.{s + 1}",
                "device": [
                    {
                        "device_id": str(d),
                        "device_ip": f"192.168.{s}.{d + 1}",
                        "rank_id": str(s * devices + d),
                    }
                    for d in range(devices)
                ],
                "host_nic_ip": "reserve",
            }
            for s in range(servers)
        ],
        "status": "completed",
    }


def superpod() -> Table:
    table = table_of()
    table["version"] = "1.2"
    for server in table["server_list"]:
        server["host_ip"] = server["server_id"]
        for device in server["device"]:
            device["super_device_id"] = device["rank_id"]
    pods = [{"server_id": server["server_id"]} for server in table["server_list"]]
    table["super_pod_list"] = [{"super_pod_id": "0", "server_list": pods}]
    return table


def clusters() -> Table:
    table = table_of()
    table["cluster_list"] = [
        {
            "cluster_id": str(i),
            "network_type": "ROCE",
            "server_list": [{"server_id": s["server_id"]}],
        }
        for i, s in enumerate(table["server_list"])
    ]
    return table


def template2(status: str = "completed") -> Table:
    """ModelArts' jobstart_hccl.json as its documentation shows it."""
    return {
        "group_count": "1",
        "group_list": [
            {
                "device_count": "2",
                "group_name": "job-trainjob",
                "instance_count": "2",
                "instance_list": [
                    {
                        "devices": [{"device_id": "4", "device_ip": "192.168.1.5"}],
                        "pod_name": "job-1",
                        "server_id": "10.0.0.2",
                    },
                    {
                        "devices": [{"device_id": "4", "device_ip": "192.168.0.5"}],
                        "pod_name": "job-0",
                        "server_id": "10.0.0.1",
                    },
                ],
            }
        ],
        "status": status,
    }


def put(*path: Any) -> Damage:
    """table[path[0]]...[path[-2]] = path[-1]"""

    def damage(table: Table) -> None:
        for key in path[:-2]:
            table = table[key]
        table[path[-2]] = path[-1]

    return damage


def drop(*path: Any) -> Damage:
    def damage(table: Table) -> None:
        for key in path[:-1]:
            table = table[key]
        del table[path[-1]]

    return damage


def swap_servers(table: Table) -> None:
    table["server_list"].reverse()


S, D = "server_list", "device"
BROKEN: List[Tuple[Callable[[], Table], Damage, str]] = [
    (table_of, put("version", "1.1"), "table.version: '1.1' is unknown"),
    (table_of, put("version", 1.0), 'table.version: must be a string, is 1.0; write "1.0"'),
    (table_of, drop("version"), "'version' is missing"),
    (table_of, drop("status"), "'status' is missing"),
    (table_of, put("status", "done"), "table.status: 'done' is unknown"),
    (table_of, put("status", "initializing"), "is 'initializing': the platform is not ready"),
    (table_of, put("status", True), "table.status: must be a string, is true"),
    (table_of, drop("server_count"), "'server_count' is missing"),
    (table_of, put("server_count", 2), 'table.server_count: must be a string, is 2; write "2"'),
    (table_of, put("server_count", "3"), "table.server_count: says 3, but there are 2 servers"),
    (table_of, put("server_count", "two"), "table.server_count: must be a whole number"),
    (table_of, drop(S), "'server_list' is missing"),
    (table_of, put(S, {}), "table.server_list: must be a list, is {}"),
    (table_of, put(S, []), "table.server_list: is empty"),
    (table_of, put(S, 0, "10.0.0.1"), "server_list[0]: must be an object with 'server_id'"),
    (table_of, drop(S, 1, "server_id"), "server_list[1]: 'server_id' is missing"),
    (table_of, put(S, 1, "server_id", 7), "server_list[1].server_id: must be a string, is 7"),
    (table_of, put(S, 0, "server_id", ""), "server_list[0].server_id: is empty"),
    (table_of, put(S, 1, "server_id", "10.0.0.1"), "server_id '10.0.0.1' is at server_list[0]"),
    (table_of, swap_servers, "'10.0.0.1' comes after '10.0.0.2'"),
    (table_of, put(S, 0, "server_id", "9.0.0.1"), "'10.0.0.2' comes after '9.0.0.1'"),
    (table_of, drop(S, 0, D), "server_list[0]: 'device' is missing"),
    (table_of, put(S, 0, D, []), "server_list[0].device: is empty"),
    (table_of, put(S, 0, D, "0"), "server_list[0].device: must be a list"),
    (table_of, put(S, 0, D, 1, 5), "server_list[0].device[1]: must be an object"),
    (table_of, drop(S, 0, D, 1, "device_id"), "device[1]: 'device_id' is missing"),
    (table_of, put(S, 0, D, 1, "device_id", 1), "device[1].device_id: must be a string, is 1"),
    (table_of, put(S, 0, D, 1, "device_id", "01"), "device_id: must be a whole number"),
    (table_of, put(S, 0, D, 1, "device_id", "-1"), "device_id: must be a whole number"),
    (table_of, put(S, 0, D, 1, "device_id", "１"), "device_id: must be a whole number"),
    (table_of, put(S, 0, D, 1, "device_id", " 1"), "device_id: must be a whole number"),
    (table_of, put(S, 0, D, 1, "device_id", "9" * 5000), "below 2^32, is '9999"),
    (table_of, put(S, 0, D, 1, "device_id", True), "must be a string, is true"),
    (table_of, put(S, 0, D, 1, "device_id", 1.5), "must be a string, is 1.5"),
    (table_of, put(S, 0, D, 1, "rank_id", "1_0"), "rank_id: must be a whole number"),
    (table_of, put(S, 0, D, 0, "device_ip", "fe80::1%\x1b[2J"), "is no IP address"),
    (table_of, put(S, 0, D, 1, "device_id", "0"), "device_id '0' is at server_list[0].device[0]"),
    (table_of, drop(S, 0, D, 0, "device_ip"), "device[0]: 'device_ip' is missing"),
    (table_of, put(S, 0, D, 0, "device_ip", "192.168.0"), "'192.168.0' is no IP address"),
    (table_of, put(S, 0, D, 0, "device_ip", "192.168.0.256"), "'192.168.0.256' is no IP address"),
    (table_of, put(S, 1, D, 0, "device_ip", "192.168.0.1"), "device_ip '192.168.0.1' is at"),
    (table_of, drop(S, 1, D, 1, "rank_id"), "server_list[1].device[1]: 'rank_id' is missing"),
    (table_of, put(S, 1, D, 1, "rank_id", 3), "device[1].rank_id: must be a string, is 3"),
    (table_of, put(S, 1, D, 1, "rank_id", "2"), "rank_id '2' is at server_list[1].device[0]"),
    (table_of, put(S, 1, D, 1, "rank_id", "4"), "rank_id 3 is missing: 4 devices need 0 to 3"),
    (table_of, put(S, 1, D, 1, "rank_id", "x"), "device[1].rank_id: must be a whole number"),
    (table_of, put(S, 0, "host_ip", "host"), "server_list[0].host_ip: 'host' is no IP address"),
    (clusters, put("cluster_list", {}), "table.cluster_list: must be a list"),
    (clusters, drop("cluster_list", 1, "cluster_id"), "cluster_list[1]: 'cluster_id' is missing"),
    (clusters, put("cluster_list", 1, "cluster_id", "0"), "cluster_id '0' is at cluster_list[0]"),
    (clusters, put("cluster_list", 0, "network_type", "IB"), "network_type: 'IB' is unknown"),
    (
        clusters,
        put("cluster_list", 0, S, 0, "server_id", "10.0.0.9"),
        "server_id '10.0.0.9' is not in the table's server_list",
    ),
    (clusters, put("cluster_list", 0, S, []), "'10.0.0.1' of the table's server_list is in none"),
    (superpod, drop("super_pod_list"), "'super_pod_list' is missing"),
    (superpod, drop(S, 0, D, 0, "super_device_id"), "device[0]: 'super_device_id' is missing"),
    (superpod, put(S, 0, D, 0, "super_device_id", 1), "super_device_id: must be a string, is 1"),
    (superpod, put(S, 0, D, 0, "backup_device_ip", "x"), "backup_device_ip: 'x' is no IP address"),
    (superpod, put(S, 0, D, 0, "device_port", "high"), "device_port: must be a whole number"),
    (superpod, drop("super_pod_list", 0, S), "super_pod_list[0]: 'server_list' is missing"),
]


@pytest.mark.parametrize(("whole", "damage", "said"), BROKEN, ids=[row[2][:50] for row in BROKEN])
def test_each_damage_has_its_message(whole: Callable[[], Table], damage: Damage, said: str) -> None:
    table = whole()
    check_rank_table(copy.deepcopy(table))
    damage(table)
    with pytest.raises(UserError) as caught:
        check_rank_table(table)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_messages_differ() -> None:
    assert len({said for _, _, said in BROKEN}) >= 40
    swapped = table_of()
    first, second = swapped["server_list"][0]["device"]
    first["rank_id"], second["rank_id"] = "1", "0"
    with pytest.raises(UserError, match="rank_id: is '1' where 0 is due"):
        check_rank_table(swapped)
    for wrong in (None, [], "x", 3):
        with pytest.raises(UserError, match="table: must be an object"):
            check_rank_table(wrong)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (put("group_count", "2"), "group_count: says 2, but there are 1"),
        (put("group_list", 0, "instance_count", "3"), "says 3, but there are 2 instances"),
        (put("group_list", 0, "device_count", "8"), "says 8, but there are 2 devices"),
        (drop("group_list", 0, "instance_list", 0, "server_id"), "'server_id' is missing"),
        (drop("group_list", 0, "instance_list", 1, "devices", 0, "device_ip"), "'device_ip'"),
    ],
)
def test_a_damaged_template_2(damage: Damage, said: str) -> None:
    table = template2()
    damage(table)
    with pytest.raises(UserError, match=said):
        convert(table)


def test_template_2_is_converted_when_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jobstart_hccl.json"
    file.write_text(json.dumps(template2("initializing")))

    def complete() -> None:
        time.sleep(1.2)
        file.write_text(json.dumps(template2()))

    writer = threading.Thread(target=complete)
    writer.start()
    output = tmp_path / "out.json"
    # The folder stands for the file, as in ModelArts' RANK_TABLE_FILE.
    assert rank_table.main(["convert", str(tmp_path), "--output", str(output)]) == 0
    writer.join()
    assert "waiting for" in capsys.readouterr().err
    table = json.loads(output.read_text())
    assert [(s["server_id"], s["device"][0]["rank_id"]) for s in table["server_list"]] == [
        ("10.0.0.1", "0"),
        ("10.0.0.2", "1"),
    ]
    assert table["server_list"][0]["device"][0]["device_ip"] == "192.168.0.5"


def test_waiting_has_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.json").write_text(json.dumps(template2("initializing")))
    arguments = ["convert", str(tmp_path), "--output", str(tmp_path / "o"), "--timeout", "0.2"]
    assert rank_table.main(arguments) == 2
    assert "not completed after 0.2 s" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_make_and_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = tmp_path / "hccn_tool"
    tool.write_text('#!/bin/sh\n[ "$2" = 1 ] && exit 1\necho "ipaddr:192.168.100.10$2"\n')
    tool.chmod(0o755)
    conf = tmp_path / "hccn.conf"
    conf.write_text("address_0=10.9.9.9\nnetmask_1=255.0.0.0\naddress_1=192.168.101.1\n")
    common = ["--hccn_tool", str(tool), "--hccn_conf", str(conf)]
    first, second, both = (tmp_path / f"{name}.json" for name in "abc")
    make = ["make", "--devices", "[0,2)", "--server_id", "10.0.0.10", *common]
    assert rank_table.main([*make, "--output", str(first)]) == 0
    devices = json.loads(first.read_text())["server_list"][0]["device"]
    assert devices == [
        {"device_id": "0", "device_ip": "192.168.100.100", "rank_id": "0"},
        {"device_id": "1", "device_ip": "192.168.101.1", "rank_id": "1"},
    ]
    other = table_of(1, 2)
    second.write_text(json.dumps(other))
    # Dictionary order: 10.0.0.1 comes before 10.0.0.10, whatever the order of the arguments.
    assert rank_table.main(["merge", str(first), str(second), "--output", str(both)]) == 0
    merged = json.loads(both.read_text())
    assert [server["server_id"] for server in merged["server_list"]] == ["10.0.0.1", "10.0.0.10"]
    assert [d["rank_id"] for s in merged["server_list"] for d in s["device"]] == list("0123")
    capsys.readouterr()
    assert rank_table.main(["show", str(both)]) == 0
    assert "rank    3  server 10.0.0.10  device 1  192.168.101.1" in capsys.readouterr().out
    missing = ["make", "--devices", "3", "--server_id", "h", "--hccn_tool", "/nowhere"]
    assert rank_table.main([*missing, "--hccn_conf", str(conf), "--output", str(both)]) == 2
    assert "device 3: neither" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0,0", "[4,4)", "a", "0-3"])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--devices"):
        parse_devices(text)


def test_files_that_are_none(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        command = [sys.executable, str(ROOT / "scripts" / "rank_table.py"), "validate", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: ")
        assert ended.stderr.count("\n") == 1
        return ended.stderr

    assert "no such file" in said(tmp_path / "no.json")
    assert "no .json file" in said(tmp_path)
    (tmp_path / "half.json").write_text('{\n"version": ')
    assert "not JSON (Expecting value: line 2" in said(tmp_path / "half.json")
    for text, reason in (
        ('{"version": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ("[" * 100_000, "nested too deep"),
        ('{"version": "1.0", "version": "1.0"}', "given twice"),
        (" " * 5_000_000, "5,000,000 bytes, more than"),
    ):
        (tmp_path / "half.json").write_text(text)
        assert reason in said(tmp_path / "half.json")
    (tmp_path / "other.json").write_text("{}")
    assert "half.json, other.json; name one" in said(tmp_path)
