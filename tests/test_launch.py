"""The launcher with a stub in the place of train.py, and the scripts around it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pytest
from test_rank_table import table_of

from src.launch.cores import cores_near, share_cores
from src.launch.patience import who_was_silent
from src.runtime.npu_smi import Card
from src.runtime.stop_signal import MOMENT_S

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("run_*_*.sh"))
SCRIPTS = [path for path in SCRIPTS if path.stem.rpartition("_")[2] in ("ascend", "gpu", "cpu")]

# Says where it is; then `fail RANK CODE`, `hang`, or `save`: end well after SIGTERM, saying so.
STUB = """
import os, signal, subprocess, sys, time
rank, what = os.environ["RANK_ID"], sys.argv[1:]
print(*(f"{k}={os.environ.get(k)}" for k in ("RANK_ID", "RANK_SIZE", "DEVICE_ID",
      "RANK_TABLE_FILE", "MS_ROLE", "OMPI_COMM_WORLD_SIZE")), flush=True)
print("arguments", what, sorted(os.sched_getaffinity(0)), flush=True)
def save(number, frame):
    print("saved after", number, flush=True)
    time.sleep(0.5)
    sys.exit(128 + number)
if "save" in what:
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
if "deaf" in what:
    signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
    subprocess.Popen(["sleep", "300"])
if "fail" in what and rank == what[what.index("fail") + 1]:
    time.sleep(1)
    for i in range(40):
        print("line", i)
    sys.exit(int(what[what.index("fail") + 2]))
if "hang" in what:
    open(f"ready_{rank}", "w").close()
    time.sleep(300)
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / "stub.py"
    path.write_text(STUB)
    return path


def write_table(folder: Path, servers: int, devices: int) -> Path:
    path = folder / f"table_{servers}_{devices}.json"
    path.write_text(json.dumps(table_of(servers, devices)))
    return path


def command(*words: str) -> List[str]:
    return [sys.executable, str(ROOT / "scripts" / "launch.py"), *words]


def with_mindspore(folder: Path, version: str) -> Dict[str, str]:
    """Variables under which a Python finds the metadata of this version, and CANN's are set."""
    (folder / "site" / f"mindspore-{version}.dist-info").mkdir(parents=True, exist_ok=True)
    metadata = folder / "site" / f"mindspore-{version}.dist-info" / "METADATA"
    metadata.write_text(f"Metadata-Version: 2.1\nName: mindspore\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder / "site"), "ASCEND_HOME_PATH": "/opt/cann"}


def launch(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    # What the caller's shell has of another job must not reach the ranks.
    stale = {"MS_ROLE": "MS_WORKER", "OMPI_COMM_WORLD_SIZE": "9", "RANK_ID": "7"}
    environ = {**os.environ, **stale, **variables}
    if "HCCL_CONNECT_TIMEOUT" not in variables:
        environ.pop("HCCL_CONNECT_TIMEOUT", None)  # MindSpore sets it in the tests' own process
    return subprocess.run(command(*words), capture_output=True, text=True, cwd=folder, env=environ)


def planned(text: str) -> Dict[str, Dict[str, str]]:
    """rank -> variables, of what --dry_run prints."""
    lines = [line for line in text.splitlines() if not line.startswith(" ")]
    return {
        line.partition(":")[0]: dict(re.findall(r"([A-Z_a-z]+)=(\S+)", line.partition(": ")[2]))
        for line in lines
    }


@pytest.mark.parametrize(("servers", "devices"), [(1, 1), (1, 2), (1, 8), (2, 1), (2, 4), (2, 8)])
def test_mindspore_2_0_reads_the_rank_table(
    servers: int, devices: int, stub: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path, servers, devices)
    version = with_mindspore(tmp_path, "2.0.0")
    for server in range(servers):
        ended = launch(
            tmp_path,
            *("--launcher", "rank_table", "--rank_table", table.name, "--dry_run"),
            *("--server_id", f"10.0.0.{server + 1}", "--", str(stub), "--lr", "1"),
            **version,
        )
        assert ended.returncode == 0, ended.stderr
        expected = {
            f"rank {server * devices + device}": {
                "RANK_TABLE_FILE": str(table),
                "RANK_ID": str(server * devices + device),
                "RANK_SIZE": str(servers * devices),
                "DEVICE_NUM": str(servers * devices),
                "DEVICE_ID": str(device),
                "HCCL_CONNECT_TIMEOUT": "600",
            }
            for device in range(devices)
        }
        assert planned(ended.stdout) == expected
        assert ended.stdout.count(f"{stub} --lr 1") == devices
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("version", ["2.3.1", "2.10.0"])
def test_newer_ones_meet_as_a_cluster_of_the_tables_ranks(
    version: str, stub: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path, 2, 4)
    for server in range(2):
        ended = launch(
            tmp_path,
            *("--launcher", "rank_table", "--rank_table", table.name, "--timeout", "60"),
            *("--server_id", f"10.0.0.{server + 1}", "--dry_run", "--", str(stub)),
            **with_mindspore(tmp_path, version),
        )
        assert "RANK_TABLE_FILE" not in ended.stdout
        shared = {
            "MS_WORKER_NUM": "8",
            "MS_SCHED_HOST": "10.0.0.1",
            "MS_SCHED_PORT": "8118",
            "MS_TOPO_TIMEOUT": "60",
            "RANK_SIZE": "8",
            "HCCL_CONNECT_TIMEOUT": "120",  # the shortest that HCCL takes
            "MS_NODE_TIMEOUT": "600",
            "MS_RECEIVE_MSG_TIMEOUT": "600",
        }
        expected = {
            f"rank {rank}": {
                **shared,
                "MS_ROLE": "MS_WORKER",
                "MS_NODE_ID": str(rank),
                "RANK_ID": str(rank),
                "DEVICE_ID": str(rank % 4),
            }
            for rank in range(4 * server, 4 * server + 4)
        }
        if server == 0:
            expected["scheduler"] = {**shared, "MS_ROLE": "MS_SCHED", "GLOG_v": "3"}
        found = planned(ended.stdout)
        for word in ("mode", "device_target"):
            found.get("scheduler", {}).pop(word, None)
        assert found == expected


def test_a_table_of_some_cards(stub: Path, tmp_path: Path) -> None:
    """They become the visible ones, which the ranks count from 0; one host needs no address."""
    table = table_of(1, 2)
    for device, number in zip(table["server_list"][0]["device"], ("6", "5")):
        device["device_id"] = number
    (tmp_path / "table.json").write_text(json.dumps(table))
    words = ["--launcher", "rank_table", "--rank_table", "table.json", "--dry_run"]
    version = with_mindspore(tmp_path, "2.10.0")
    found = planned(launch(tmp_path, *words, "--", str(stub), **version).stdout)
    assert {found[rank]["ASCEND_RT_VISIBLE_DEVICES"] for rank in found} == {"5,6"}
    assert [found[f"rank {i}"]["DEVICE_ID"] for i in (0, 1)] == ["0", "1"]
    assert found["rank 0"]["MS_SCHED_HOST"] == "127.0.0.1"


def test_what_a_shell_leaves_visible(stub: Path, tmp_path: Path) -> None:
    """The cards of a table are the host's; without one there are as many as the shell shows."""
    shown = {"ASCEND_RT_VISIBLE_DEVICES": "4,5", **with_mindspore(tmp_path, "2.10.0")}
    write_table(tmp_path, 1, 2)
    words = ["--launcher", "rank_table", "--rank_table", "table_1_2.json", "--dry_run"]
    found = planned(launch(tmp_path, *words, "--", str(stub), **shown).stdout)
    assert found["rank 1"]["ASCEND_RT_VISIBLE_DEVICES"] == "0,1"
    for count, code in (("2", 0), ("3", 2)):
        words = ["--device", "Ascend", "--nproc", count, "--dry_run"]
        ended = launch(tmp_path, *words, "--", str(stub), **shown)
        assert ended.returncode == code
    assert "--nproc 3: ASCEND_RT_VISIBLE_DEVICES=4,5 of this shell shows 2" in ended.stderr


def test_hosts_that_the_table_calls_by_names_need_an_address(stub: Path, tmp_path: Path) -> None:
    table = table_of(2, 1)
    table["server_list"][0]["server_id"] = "worker-0"
    table["server_list"][1]["server_id"] = "worker-1"
    (tmp_path / "table.json").write_text(json.dumps(table))
    words = ["--launcher", "rank_table", "--rank_table", "table.json", "--server_id", "worker-1"]
    version = with_mindspore(tmp_path, "2.10.0")
    ended = launch(tmp_path, *words, "--dry_run", "--", str(stub), **version)
    assert ended.returncode == 2
    assert "server_id 'worker-0': is no address, and no host that is known here" in ended.stderr
    assert "with --master_addr" in ended.stderr
    words += ["--master_addr", "10.9.8.7"]
    ended = launch(tmp_path, *words, "--dry_run", "--", str(stub), **version)
    assert planned(ended.stdout)["rank 1"]["MS_SCHED_HOST"] == "10.9.8.7"


@pytest.mark.parametrize("launcher", ["cluster", "msrun"])
def test_some_cards_of_an_ascend_host(launcher: str, stub: Path, tmp_path: Path) -> None:
    words = ["--launcher", launcher, "--device", "Ascend", "--devices", "7,4,6,5"]
    ended = launch(tmp_path, *words, "--dry_run", "--", str(stub), HCCL_CONNECT_TIMEOUT="3000")
    found = planned(ended.stdout)
    assert {place["ASCEND_RT_VISIBLE_DEVICES"] for place in found.values()} == {"4,5,6,7"}
    assert all("HCCL_CONNECT_TIMEOUT" not in place for place in found.values())  # the shell's stays
    if launcher == "cluster":
        assert [found[f"rank {i}"]["DEVICE_ID"] for i in range(4)] == list("0123")
    else:
        assert "--worker_num=4 --local_worker_num=4" in ended.stdout


def test_an_ascend_run_wants_the_variables_of_cann(stub: Path, tmp_path: Path) -> None:
    words = ["--device", "Ascend", "--nproc", "2", "--", str(stub)]
    ended = launch(tmp_path, *words, ASCEND_HOME_PATH="")
    assert ended.returncode == 2
    assert re.fullmatch(r"error: ASCEND_HOME_PATH: .* source \S+/set_env.sh .*\n", ended.stderr)


def sysfs_of(folder: Path, nodes: Dict[str, str], cpus: List[str]) -> Path:
    """A /sys with the node of each PCI address, and the cores of each node."""
    for bus, node in nodes.items():
        (folder / "bus/pci/devices" / bus).mkdir(parents=True)
        (folder / "bus/pci/devices" / bus / "numa_node").write_text(f"{node}\n")
    for node, text in enumerate(cpus):
        (folder / f"devices/system/node/node{node}").mkdir(parents=True)
        (folder / f"devices/system/node/node{node}/cpulist").write_text(f"{text}\n")
    return folder


CARDS = [Card("910B2", f"0000:{bus}:00.0") for bus in ("c1", "81", "41", "01")]


def test_ranks_take_cores_of_their_cards_node(tmp_path: Path) -> None:
    nodes = dict(zip((card.bus for card in CARDS), "1100"))
    sysfs = sysfs_of(tmp_path, nodes, ["0-3,8-11", "4-7,12-15"])
    everything = list(range(16))
    assert cores_near([0, 1, 2, 3], CARDS, everything, sysfs=sysfs) == [
        [4, 5, 6, 7],
        [12, 13, 14, 15],
        [0, 1, 2, 3],
        [8, 9, 10, 11],
    ]
    # A card alone on its node has all of it; of a container's cores only those there are.
    assert cores_near([3], CARDS, everything, sysfs=sysfs) == [[0, 1, 2, 3, 8, 9, 10, 11]]
    assert cores_near([0, 2], CARDS, [2, 3, 4], sysfs=sysfs) == [[4], [2, 3]]


@pytest.mark.parametrize(
    ("cards", "nodes", "cores"),
    [
        (CARDS, {}, 16),  # a host whose /sys does not show the cards
        (CARDS, {card.bus: "-1" for card in CARDS}, 16),
        ([], {card.bus: "0" for card in CARDS}, 16),
        ([Card("310")] * 4, {}, 16),
        (CARDS, dict(zip((card.bus for card in CARDS), "1100")), 8),  # none of node 1 is ours
    ],
)
def test_even_shares_where_the_node_is_not_known(
    cards: List[Card], nodes: Dict[str, str], cores: int, tmp_path: Path
) -> None:
    sysfs = sysfs_of(tmp_path, nodes, ["0-7", "8-15"])
    ours = list(range(cores))
    shares = cores_near([0, 1, 2, 3], cards, ours, sysfs=sysfs)
    assert shares == share_cores(ours, 4)
    assert sorted(core for share in shares for core in share) == ours


def test_the_ranks_get_it_and_rank_0_is_shown(stub: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path, 1, 2)
    words = ["--launcher", "rank_table", "--rank_table", str(table), "--logs", "logs"]
    version = with_mindspore(tmp_path, "2.0.0")
    ended = launch(tmp_path, *words, "--", str(stub), "--resume", "auto", **version)
    assert ended.returncode == 0, ended.stderr
    logs = [(tmp_path / "logs" / f"rank_{rank}.log").read_text() for rank in (0, 1)]
    for rank, log in enumerate(logs):
        place = f"RANK_ID={rank} RANK_SIZE=2 DEVICE_ID={rank} RANK_TABLE_FILE={table}"
        assert log.startswith(f"{place} MS_ROLE=None OMPI_COMM_WORLD_SIZE=None\n")
        assert "arguments ['--resume', 'auto']" in log
    assert ended.stdout == logs[0]
    cores = [set(json.loads(re.search(r"\] (\[.*\])", log).group(1))) for log in logs]
    if len(os.sched_getaffinity(0)) > 1:
        assert not cores[0] & cores[1]
        assert cores[0] | cores[1] == os.sched_getaffinity(0)


def living(folder: Path) -> List[int]:
    """Processes that work in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def environ_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_a_rank_that_is_killed_is_said_to_be(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        "import os, signal, time\n"
        "if os.environ['RANK_ID'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    table = write_table(tmp_path, 1, 2)
    words = ["--launcher", "rank_table", "--rank_table", str(table), "--grace", "1"]
    ended = launch(tmp_path, *words, "--", str(program), **with_mindspore(tmp_path, "2.0.0"))
    assert ended.returncode == 137
    said = "rank 1 was killed by signal 9 (the system, for want of memory?); the others have been"
    assert ended.stderr.startswith(
        f"{said} ended; start it again, with train.py --resume auto. The"
    )
    assert ended.stderr.endswith(":\n(nothing)\n")


_LIMITS = ("MS_NODE", "MS_RECEIVE_MSG", "MS_CPU_COMM_OP", "HCCL_EXEC")


@pytest.mark.parametrize(
    ("words", "variables", "limits"),
    [
        ("--nproc 2", {}, ("600", "600", "660", None)),
        ("--nproc 2 --rank_timeout 30", {}, ("30", "30", "660", None)),
        ("--nproc 2 --launcher msrun --rank_timeout 3000", {}, ("3000", "3000", "3060", None)),
        ("--nproc 2 --device GPU", {}, ("600", "600", None, None)),
        ("--nproc 2 --device Ascend --rank_timeout 3000", {}, ("3000", "3000", None, "3060")),
        ("--nproc 2 --device Ascend --rank_timeout 90000", {}, ("90000", "90000", None, "17340")),
        ("--nproc 2", {"MS_NODE_TIMEOUT": "77"}, (None, "600", "660", None)),  # the shell's stays
        ("--nproc 2 --rank_timeout 30", {"MS_NODE_TIMEOUT": "77"}, ("30", "30", "660", None)),
        ("--launcher mpirun --device GPU --nproc 2", {}, (None, None, None, None)),
        ("--launcher standalone", {}, (None, None, None, None)),
    ],
)
def test_how_long_a_rank_may_be_silent(
    words: str, variables: Dict[str, str], limits: Tuple[Optional[str]], stub: Path, tmp_path: Path
) -> None:
    version = with_mindspore(tmp_path, "2.10.0")
    ended = launch(
        tmp_path, *words.split(), "--dry_run", "--", str(stub), **{**version, **variables}
    )
    found = planned(ended.stdout)
    assert found, ended.stderr
    for place in found.values():
        assert tuple(place.get(f"{name}_TIMEOUT") for name in _LIMITS) == limits


# In the place of MindSpore: a scheduler that gives rank 1 up.
SCHEDULER = """
import time
from pathlib import Path
def init():
    while not all(Path(f"ready_{rank}").exists() for rank in (0, 1)):
        time.sleep(0.05)
    print("[ERROR] DISTRIBUTED(1): The node: 1 is timed out. It may exit", flush=True)
    raise RuntimeError("The total number of timed out node is 1")
"""
DISTURBED = """
import os, time
print("step 7", flush=True)
if os.environ["RANK_ID"] == "0":
    print("[CRITICAL] DISTRIBUTED(1,7f,python): The state of the cluster is error", flush=True)
    print("C++ call stack\\n" * 100, flush=True)
open("ready_" + os.environ["RANK_ID"], "w").close()
time.sleep(300)
"""


def test_whom_the_cluster_gave_up(tmp_path: Path) -> None:
    log, lost = (
        tmp_path / "scheduler.log",
        "[ERROR] UpdateTopoState] The node: {} is timed out. It may",
    )
    told = "Heartbeat] The state of the cluster is error, total nodes num: 4, abnormal nodes num: 1"
    for lines, said in {
        (): None,
        ("line 1", "RuntimeError: The total number"): None,
        (lost.format(1),): "rank 1 was",
        (lost.format(3), told, lost.format(1), lost.format(3)): "ranks 1, 3 were",
        tuple(lost.format(rank) for rank in range(4)): "the scheduler, or every rank, was",
        (told,): "a rank of another host (host 0 says which) was",
        ("init.cc:123] operator()] Callback on exception is called.",): "the scheduler was",
    }.items():
        log.write_text("\n".join(lines))
        assert who_was_silent([tmp_path / "none", log], "4") == said


def test_mindspore_2_0_keeps_its_own_limit(stub: Path, tmp_path: Path) -> None:
    version = with_mindspore(tmp_path, "2.0.0")
    plain = launch(tmp_path, "--nproc", "2", "--dry_run", "--", str(stub), **version)
    assert "MS_NODE_TIMEOUT" not in plain.stdout
    words = ["--nproc", "2", "--rank_timeout", "60", "--", str(stub)]
    assert "MindSpore 2.0 keeps 30 s" in launch(tmp_path, *words, **version).stderr


# In the place of msrun, which waits for a stopped rank for ever.
MSRUN = """
import sys, time
from pathlib import Path
logs = Path([word.partition("=")[2] for word in sys.argv if word.startswith("--log_dir=")][0])
(logs / "worker_0.log").write_text("step 7\\n[CRITICAL] DISTRIBUTED(1): ...\\nC++ call stack\\n")
(logs / "scheduler.log").write_text("The node: 1 is timed out. It may exit")
time.sleep(300)
"""


@pytest.mark.parametrize(("launcher", "log"), [("cluster", "rank_0"), ("msrun", "worker_0")])
def test_one_line_says_which_rank_was_silent(launcher: str, log: str, tmp_path: Path) -> None:
    version = with_mindspore(tmp_path, "2.10.0")
    package = tmp_path / "site" / "mindspore"
    for folder in (package, package / "parallel", package / "parallel" / "cluster"):
        folder.mkdir()
        (folder / "__init__.py").write_text("GRAPH_MODE = 0\ndef set_context(**_): pass\n")
    (package / "communication.py").write_text(SCHEDULER)
    (package / "parallel" / "cluster" / "run.py").write_text(MSRUN)
    (tmp_path / "train.py").write_text(DISTURBED)
    (tmp_path / "run").mkdir()
    said = "nothing is saved in run yet; start it again"
    if launcher == "cluster":
        (tmp_path / "run" / "last.ckpt").touch()
        said = (
            r"run/last.ckpt of \d\d:\d\d:\d\d is saved, and the same command with --resume auto "
            "goes on from it"
        )
    words = ["--launcher", launcher, "--nproc", "2", "--rank_timeout", "11", "--grace", "0.5"]
    train = ["train.py", "--arch", "deit_tiny_patch16_224", "--train_url", "run"]
    ended = launch(tmp_path, *words, "--", *train, **version)
    assert ended.returncode == 1
    assert ended.stdout == "step 7\n"
    line = "error: rank 1 was silent for more than 11 s (--rank_timeout), so all ranks have been "
    assert re.fullmatch(f"{re.escape(line)}ended; {said}; logs: .*/outputs/logs\n", ended.stderr)
    assert "call stack" in (tmp_path / "outputs" / "logs" / f"{log}.log").read_text()
    assert living(tmp_path) == []


def test_the_death_of_a_rank_ends_the_others(stub: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path, 1, 3)
    words = ["--launcher", "rank_table", "--rank_table", str(table), "--grace", "2"]
    version = with_mindspore(tmp_path, "2.0.0")
    start = time.monotonic()
    ended = launch(tmp_path, *words, "--", str(stub), "deaf", "fail", "1", "41", "hang", **version)
    assert time.monotonic() - start < 30
    assert ended.returncode == 41
    assert "rank 1 ended with exit code 41" in ended.stderr
    assert re.findall(r"^line \d+$", ended.stderr, re.M) == [f"line {i}" for i in range(10, 40)]
    assert "heard" in (tmp_path / "outputs" / "logs" / "rank_0.log").read_text()
    assert living(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_rank_save(number: signal.Signals, stub: Path, tmp_path: Path) -> None:
    process = start_hanging(tmp_path, stub, "save")
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    assert f"all ranks have ended after signal {int(number)}" in errors
    for rank in (0, 1):
        log = (tmp_path / "outputs" / "logs" / f"rank_{rank}.log").read_text()
        assert log.count(f"saved after {int(number)}") == 1
    assert living(tmp_path) == []


@pytest.mark.parametrize(("said", "code"), [("signal 15: saved", 143), ("signal 15: saving", 139)])
def test_a_crash_after_the_save_costs_no_exit_code(said: str, code: int, tmp_path: Path) -> None:
    """As MindSpore's cluster ends now and then: docs/results.md#signals."""
    program = tmp_path / "stub.py"
    program.write_text(
        "import os, pathlib, signal, time\n"
        "def crash(*_):\n"
        f"    print({said!r}, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "signal.signal(signal.SIGTERM, crash)\n"
        "pathlib.Path('ready_' + os.environ['RANK_ID']).touch()\n"
        "time.sleep(60)\n"
    )
    process = start_hanging(tmp_path, program)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert ("one with exit code 139 after it was saved" in errors) == (code == 143)


def test_a_second_signal_kills(stub: Path, tmp_path: Path) -> None:
    process = start_hanging(tmp_path, stub, "deaf")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)  # what a whole group gets counts once
    time.sleep(MOMENT_S)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL
    assert living(tmp_path) == []


def start_hanging(folder: Path, stub: Path, *words: str) -> subprocess.Popen:
    table = write_table(folder, 1, 2)
    arguments = ["--launcher", "rank_table", "--rank_table", str(table), "--", str(stub), *words]
    process = subprocess.Popen(
        command(*arguments, "hang"),
        cwd=folder,
        env={**os.environ, **with_mindspore(folder, "2.0.0")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not all((folder / f"ready_{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_the_cluster_of_two_hosts(stub: Path, tmp_path: Path) -> None:
    common = ["--nproc", "2", "--nnodes", "2", "--master_addr", "10.1.2.3", "--dry_run"]
    first = launch(tmp_path, *common, "--node_rank", "0", "--", str(stub))
    second = launch(tmp_path, *common, "--node_rank", "1", "--", str(stub))
    assert list(planned(first.stdout)) == ["scheduler", "rank 0", "rank 1"]
    assert list(planned(second.stdout)) == ["rank 2", "rank 3"]
    last = planned(second.stdout)["rank 3"]
    expected = "MS_ROLE=MS_WORKER MS_WORKER_NUM=4 MS_SCHED_HOST=10.1.2.3 MS_SCHED_PORT=8118"
    expected += " RANK_ID=3 MS_NODE_ID=3 RANK_SIZE=4 DEVICE_ID=1"
    for pair in expected.split():
        name, value = pair.split("=")
        assert last[name] == value


@pytest.mark.parametrize("launcher", ["cluster", "msrun"])
@pytest.mark.parametrize(
    ("given", "address"),
    [("localhost", "127.0.0.1"), ("[2001:db8::1]", "2001:db8::1"), ("10.0.0.7", "10.0.0.7")],
)
def test_the_address_of_host_0(
    launcher: str, given: str, address: str, stub: Path, tmp_path: Path
) -> None:
    """A name as the system resolves it (RFC 6761 for this one), IPv6 as RFC 5952 writes it."""
    words = ["--launcher", launcher, "--master_addr", given, "--dry_run", "--", str(stub)]
    shown = launch(tmp_path, *words).stdout
    assert f"{'MS_SCHED_HOST' if launcher == 'cluster' else '--master_addr'}={address} " in shown


def test_an_older_mindspore_does_not_meet_at_ipv6(stub: Path, tmp_path: Path) -> None:
    words = ["--master_addr", "::1", "--dry_run", "--", str(stub)]
    ended = launch(tmp_path, *words, **with_mindspore(tmp_path, "2.0.0"))
    assert ended.returncode == 2
    assert "--master_addr ::1: MindSpore 2.0 is not known to meet at IPv6" in ended.stderr


def test_a_name_that_other_hosts_do_not_know_as_this_one_does(stub: Path, tmp_path: Path) -> None:
    words = ["--nnodes", "2", "--master_addr", "localhost", "--dry_run", "--", str(stub)]
    ended = launch(tmp_path, *words)
    assert ended.returncode == 2
    assert "'localhost': is 127.0.0.1 on this host, where no other host reaches it" in ended.stderr


@pytest.mark.parametrize("launcher", ["cluster", "msrun"])
def test_a_port_in_use_and_who_uses_it(launcher: str, stub: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ["--launcher", launcher, "--master_port", port, "--", str(stub)]
        ended = launch(tmp_path, *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        f"error: --master_port {port}: cannot be used on this host (Addr"
    )
    assert f"by process {os.getpid()}, " in ended.stderr
    assert not (tmp_path / "outputs").exists()


def test_msrun_and_mpirun_as_their_guides_say(stub: Path, tmp_path: Path) -> None:
    words = ["--device", "GPU", "--devices", "4,5", "--dry_run", "--", str(stub), "x"]
    msrun = launch(tmp_path, "--launcher", "msrun", *words).stdout
    assert "--join=True --worker_num=2 --local_worker_num=2" in msrun
    assert "CUDA_VISIBLE_DEVICES=4,5" in msrun
    assert "--log_dir=" in msrun
    mpirun = launch(tmp_path, "--launcher", "mpirun", *words).stdout
    assert re.search(r"mpirun -n 2 .*--bind-to numa --output-filename \S+ --merge-st", mpirun)
    assert "CUDA_VISIBLE_DEVICES=4,5" in mpirun


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nproc", "2"], "no program given"),
        (["--", "nowhere.py"], "program 'nowhere.py': no such file"),
        (["--nproc", "0", "--", "stub.py"], "--nproc 0: must be 1 or more"),
        (
            ["--nnodes", "2", "--node_rank", "2", "--", "stub.py"],
            r"--node_rank 2: must be in [0, 2)",
        ),
        (["--timeout", "0", "--", "stub.py"], "--timeout 0: must be 1 or more"),
        (["--grace", "-1", "--", "stub.py"], "--grace: '-1': expected a number, 0 or more"),
        (["--master_port", "65536", "--", "stub.py"], "--master_port '65536': must be in"),
        (["--master_port", "http", "--", "stub.py"], "--master_port 'http': must be in"),
        (["--master_addr", "no.such.invalid", "--", "stub.py"], "no host that is known here ("),
        (["--nproc", "8", "--devices", "0,1", "--", "stub.py"], "--nproc 8: --devices 0,1 names 2"),
        (["--nproc", "2", "--nproc", "4", "--", "stub.py"], "--nproc: is given twice, as 2 and"),
        (["--launcher", "standalone", "--nproc", "2", "--", "stub.py"], "starts one process"),
        (["--device_id", "3", "--", "stub.py"], "--device_id 3: of standalone"),
        (
            "--launcher rank_table --rank_table x --nproc 1 -- stub.py".split(),
            "--nproc 1: the rank table gives them",
        ),
        (
            ["--launcher", "standalone", "--device_id", "-1", "--", "stub.py"],
            "--device_id '-1': expected a whole number, 0 to 1023",
        ),
        (["--server_id", "x", "--", "stub.py"], "--server_id: of --launcher rank_table"),
        (["--rank_timeout", "9", "--", "stub.py"], "--rank_timeout 9: must be in [10, 604800]"),
        (["--rank_timeout", "604801", "--", "stub.py"], "must be in [10, 604800]"),
        (["--rank_timeout", "1e3", "--", "stub.py"], "--rank_timeout"),
        (
            ["--launcher", "standalone", "--rank_timeout", "60", "--", "stub.py"],
            "--rank_timeout 60: of cluster, msrun and rank_table",
        ),
        (
            "--launcher rank_table --rank_table x --devices 1 -- stub.py".split(),
            "--devices 1: the rank table gives them",
        ),
        (["--devices", "0,0", "--", "stub.py"], "--devices 0,0"),
        (["--devices", "0-3", "--", "stub.py"], "--devices '0-3': expected a whole number"),
        (["--devices", "9" * 5000, "--", "stub.py"], "expected a whole number"),
        (["--devices", "٣", "--", "stub.py"], "expected a whole number"),
        (["--nproc", "1_0", "--", "stub.py"], "'1_0': expected a whole number"),
        (["--launcher", "rank_table", "--", "stub.py"], "needs --rank_table"),
        (["--launcher", "mpirun", "--nproc", "2", "--", "stub.py"], "use cluster"),
        (
            ["--launcher", "rank_table", "--rank_table", "no.json", "--", "stub.py"],
            "'no.json': no such file",
        ),
        (
            ["--launcher", "rank_table", "--rank_table", "table_2_1.json", "--", "stub.py"],
            "give this host's with --server_id",
        ),
    ],
)
def test_what_the_user_can_mend(words: List[str], said: str, stub: Path, tmp_path: Path) -> None:
    write_table(tmp_path, 2, 1)
    ended = launch(tmp_path, *words)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: .*\n", ended.stderr)
    assert said in ended.stderr
    assert not (tmp_path / "outputs").exists()


def shell(script: Path, folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "LAUNCH_PYTHON": sys.executable, **variables}
    call = ["bash", str(script), *words]
    return subprocess.run(call, capture_output=True, text=True, cwd=folder, env=environ)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script(script: Path, tmp_path: Path) -> None:
    assert len(script.read_text().splitlines()) <= 30
    helped = shell(script, tmp_path, "-h")
    assert helped.returncode == 0
    assert f"usage: bash scripts/{script.name} [" in helped.stdout
    few = shell(script, tmp_path, "0")
    assert few.returncode == 2
    assert "error: 1 argument(s) given" in few.stderr

    config, checkpoint = tmp_path / "c.yaml", tmp_path / "x.ckpt"
    checkpoint.touch()
    more = [str(checkpoint)] if "eval" in script.name else []
    is_table = script.stem == "run_distribute_train_ascend"
    first = str(write_table(tmp_path, 1, 2)) if is_table else "1"
    missing = shell(script, tmp_path, first, str(config), *more)
    assert missing.returncode == 2
    assert f"error: CONFIG_PATH '{config}': no such file" in missing.stderr
    config.touch()
    dry = shell(script, tmp_path, first, str(config), *more, "--lr", "0.1", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    program = "eval.py" if "eval" in script.name else "train.py"
    device = {"ascend": "Ascend", "gpu": "GPU", "cpu": "CPU"}[script.stem.rpartition("_")[2]]
    expected = f"{ROOT}/{program} --config {config}"
    expected += f" --pretrained {checkpoint}" if more else ""
    ranks = [line for line in dry.stdout.splitlines() if line.startswith("rank ")]
    assert len(ranks) == (2 if is_table else 1)
    for line in ranks:
        assert f"{expected} --device_target {device} --lr 0.1" in line
        if "standalone" in script.name or more:
            assert line.endswith("--device_id 1")


@pytest.mark.parametrize(
    ("cards", "options", "said"),
    [
        ("8", "", "rank 7: .* DEVICE_ID=7 "),
        ("4,5,6,7", "", "rank 3: .*ASCEND_RT_VISIBLE_DEVICES=4,5,6,7 .* DEVICE_ID=3 "),
        ("8", "--launcher msrun", "msrun: .* --worker_num=8 --local_worker_num=8 "),
        ("2", "--launcher=msrun --logs x", "msrun: .* --worker_num=2 --local_worker_num=2 "),
        ("4,5", "--launcher msrun", "msrun: .*ASCEND_RT_VISIBLE_DEVICES=4,5 .* --worker_num=2 "),
    ],
)
def test_cards_of_one_ascend_host(cards: str, options: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    script = ROOT / "scripts" / "run_distribute_train_ascend.sh"
    dry = shell(script, tmp_path, cards, "c.yaml", "--dry_run", LAUNCH_OPTIONS=options)
    assert dry.returncode == 0, dry.stderr
    assert re.search(f"^{said}.*train.py --config c.yaml --device_target Ascend$", dry.stdout, re.M)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_launcher_is_chosen_by_launch_options(device: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    script = ROOT / "scripts" / f"run_distribute_train_{device}.sh"
    words = ["2", "c.yaml", "--dry_run"]
    assert shell(script, tmp_path, *words).stdout.startswith("scheduler: ")
    dry = shell(script, tmp_path, *words, LAUNCH_OPTIONS="--launcher msrun")
    assert dry.stdout.startswith("msrun: "), dry.stderr
    single = ROOT / "scripts" / f"run_standalone_train_{device}.sh"
    refused = shell(single, tmp_path, *words, LAUNCH_OPTIONS="--launcher msrun")
    assert refused.returncode == 2
    assert "--launcher: is given twice, as msrun and as standalone" in refused.stderr


def test_the_example_of_the_guide_to_ascend(tmp_path: Path) -> None:
    """Each of its commands would start what it says; it wants no file but the checkpoint."""
    text = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:LAUNCH_OPTIONS=\S.*?\" )?bash scripts/run_.*$", text, re.M)
    assert len(lines) == 5
    (tmp_path / "best.ckpt").touch()
    ranks = []
    for line in lines:
        line = line.replace("outputs/deit/best.ckpt", str(tmp_path / "best.ckpt"))
        call = ["bash", "-c", f"LAUNCH_PYTHON={sys.executable} {line} --dry_run"]
        dry = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
        assert dry.returncode == 0, (line, dry.stderr)
        assert "--device_target Ascend" in dry.stdout
        assert "--data_url /data/imagenet" in dry.stdout
        ranks.append(dry.stdout.count("RANK_ID="))
    assert ranks == [1, 8, 4, 0, 1]
    for name in re.findall(r"-r (\S+)|python (scripts/\S+)", text):
        assert (ROOT / "".join(name)).is_file()


def test_scripts_that_need_a_file_say_which(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    folder = ROOT / "scripts"
    said = "RANK_TABLE_FILE (no number of cards, no list such as 4,5)"
    for cards in ("no.json", "-1", "a,b"):
        table = shell(folder / "run_distribute_train_ascend.sh", tmp_path, cards, "c.yaml")
        assert table.returncode == 2
        assert table.stderr == f"error: {said} '{cards}': no such file\n"
    weights = shell(folder / "run_eval_cpu.sh", tmp_path, "0", "c.yaml", "no.ckpt")
    assert "error: CHECKPOINT_PATH 'no.ckpt': no such file" in weights.stderr
    os.mkfifo(tmp_path / "pipe")
    piped = shell(folder / "run_distribute_train_cpu.sh", tmp_path, "2", "pipe")
    assert (piped.returncode, piped.stderr) == (2, "error: CONFIG_PATH 'pipe': no regular file\n")


COMMANDS = sorted(p for p in (ROOT / "scripts").glob("*.sh") if p.name != "common.sh")


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_of_every_shell_script(path: Path, tmp_path: Path) -> None:
    for flag in ("-h", "--help"):
        helped = shell(path, tmp_path, flag)
        assert helped.returncode == 0
        assert f"usage: bash scripts/{path.name}" in helped.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("launch", ["--nproc", "two", "--", "x.py"], "'two': expected a whole number"),
        ("launch", ["--launcher", "slurm"], "invalid choice: 'slurm'"),
        ("rank_table", [], "required: command"),
        ("rank_table", ["show"], "required:"),
        ("rank_table", ["make", "--nproc", "8"], "required: --server_id"),
    ],
)
def test_a_wrong_argument_is_said_in_one_line(program: str, words: List[str], said: str) -> None:
    call = [sys.executable, str(ROOT / "scripts" / f"{program}.py")]
    ended = subprocess.run([*call, *words], capture_output=True, text=True)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: .*; see --help\n", ended.stderr)
    assert said in ended.stderr
    helped = subprocess.run([*call, "-h"], capture_output=True, text=True)
    assert helped.returncode == 0
    assert helped.stdout.startswith(f"usage: {program}.py")


def test_a_count_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    ended = shell(ROOT / "scripts" / "run_distribute_train_cpu.sh", tmp_path, "two", "c.yaml")
    assert ended.returncode == 2
    assert "'two': expected a whole number" in ended.stderr
