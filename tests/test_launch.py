"""The launcher with a stub in the place of train.py, and the scripts around it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest
from test_rank_table import table_of

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


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess:
    # What the caller's shell has of another job must not reach the ranks.
    stale = {"MS_ROLE": "MS_WORKER", "OMPI_COMM_WORLD_SIZE": "9", "RANK_ID": "7"}
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=folder, env={**os.environ, **stale}
    )


def planned(text: str) -> Dict[str, Dict[str, str]]:
    """rank -> variables, of what --dry_run prints."""
    lines = [line for line in text.splitlines() if not line.startswith(" ")]
    return {
        line.partition(":")[0]: dict(re.findall(r"([A-Z_a-z]+)=(\S+)", line.partition(": ")[2]))
        for line in lines
    }


@pytest.mark.parametrize(("servers", "devices"), [(1, 1), (1, 2), (1, 8), (2, 1), (2, 4), (2, 8)])
def test_the_environment_of_every_rank(
    servers: int, devices: int, stub: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path, servers, devices)
    for server in range(servers):
        ended = launch(
            tmp_path,
            *("--launcher", "rank_table", "--rank_table", table.name, "--dry_run"),
            *("--server_id", f"10.0.0.{server + 1}", "--", str(stub), "--lr", "1"),
        )
        assert ended.returncode == 0, ended.stderr
        expected = {
            f"rank {server * devices + device}": {
                "RANK_TABLE_FILE": str(table),
                "RANK_ID": str(server * devices + device),
                "RANK_SIZE": str(servers * devices),
                "DEVICE_NUM": str(servers * devices),
                "DEVICE_ID": str(device),
            }
            for device in range(devices)
        }
        assert planned(ended.stdout) == expected
        assert ended.stdout.count(f"{stub} --lr 1") == devices
    assert not (tmp_path / "outputs").exists()


def test_the_ranks_get_it_and_rank_0_is_shown(stub: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path, 1, 2)
    words = ["--launcher", "rank_table", "--rank_table", str(table), "--logs", "logs"]
    ended = launch(tmp_path, *words, "--", str(stub), "--resume", "auto")
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


def test_the_death_of_a_rank_ends_the_others(stub: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path, 1, 3)
    words = ["--launcher", "rank_table", "--rank_table", str(table), "--grace", "2"]
    start = time.monotonic()
    ended = launch(tmp_path, *words, "--", str(stub), "deaf", "fail", "1", "41", "hang")
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


def test_a_second_signal_kills(stub: Path, tmp_path: Path) -> None:
    process = start_hanging(tmp_path, stub, "deaf")
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
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
        (["--devices", "0,0", "--", "stub.py"], "--devices 0,0"),
        (["--devices", "0-3", "--", "stub.py"], "--devices 0-3"),
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


def shell(script: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "LAUNCH_PYTHON": sys.executable}
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


def test_scripts_that_need_a_file_say_which(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    folder = ROOT / "scripts"
    table = shell(folder / "run_distribute_train_ascend.sh", tmp_path, "no.json", "c.yaml")
    assert (table.returncode, table.stderr.splitlines()) == (
        2,
        ["error: RANK_TABLE_FILE 'no.json': no such file"],
    )
    weights = shell(folder / "run_eval_cpu.sh", tmp_path, "0", "c.yaml", "no.ckpt")
    assert "error: CHECKPOINT_PATH 'no.ckpt': no such file" in weights.stderr


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
        ("launch", ["--nproc", "two", "--", "x.py"], "invalid int value: 'two'"),
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
    assert "invalid int value: 'two'" in ended.stderr
