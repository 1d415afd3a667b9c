"""Sends signals to training jobs in every way that a job gets them, and counts what was saved.

python tests/signals_matrix.py [--tries 20] [--only "processes, msrun"] [--when compiling]

Each try starts a job of its own, sends the signal at a moment nobody chose, and wants: the exit
code 128 + N, one line that says what was saved, a checkpoint of the step that was recorded last,
no traceback and no process left. Prints a table in Markdown; ends with 1 when a try has failed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs alone

from src.launch.supervisor import descendants  # noqa: E402

WORKERS = ("threads", "processes")
STARTS = ("one process", "script", "launcher", "msrun")
TARGETS = ("group", "leader", "both")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MOMENTS = ("training", "compiling")
_RECIPE = """\
arch: cct_2_3x2_32
image_size: 16
drop_path_rate: 0.0
model_args: {num_layers: 1, n_conv_layers: 1, attention_dropout: 0.0}
set: ImageNet
batch_size: 8
num_parallel_workers: 2
scale: [0.7, 1.0]
hflip: 0.0
crop_pct: 1.0
base_lr: 0.003
epochs: 5000
save_every: 0
log_interval: 1
"""


class Combination(NamedTuple):
    """How a job works and gets its signal.

    Attributes:
        start: train.py itself; a script of scripts/, which starts one process; launch.py and msrun
            with two ranks.
        target: the process group of the job (a terminal); its first process (`kill`); both: the
            group, and then every process of the job once more (Slurm).
    """

    workers: str
    start: str
    target: str
    number: signal.Signals

    def __str__(self) -> str:
        return f"{self.workers}, {self.start}, {self.target}, {self.number.name}"


ALL = [Combination(*values) for values in itertools.product(WORKERS, STARTS, TARGETS, SIGNALS)]


def write_job(folder: Path) -> None:
    """A recipe and images for all tries."""
    (folder / "tiny.yaml").write_text(_RECIPE)
    rng = np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "val"), ("cat", "dog"), range(24)):
        place = folder / "data" / split / name
        place.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(80 + 80 * (name == "dog"), 20, (20, 20, 3)).clip(0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(place / f"{number:03d}.png")


def command(combination: Combination, job: Path, run: Path) -> List[str]:
    """What starts a job."""
    words = ["--data_url", str(job / "data"), "--train_url", str(run)]
    words += ["--python_multiprocessing"] if combination.workers == "processes" else []
    recipe = str(job / "tiny.yaml")
    if combination.start == "one process":
        return [sys.executable, str(ROOT / "train.py"), "--config", recipe, *words]
    if combination.start == "script":
        script = ROOT / "scripts" / "run_standalone_train_cpu.sh"
        return ["bash", str(script), "0", recipe, *words]
    launcher = "cluster" if combination.start == "launcher" else "msrun"
    return [
        *(sys.executable, str(ROOT / "scripts" / "launch.py"), "--launcher", launcher),
        *("--nproc", "2", "--logs", f"{run}.logs", "--"),
        *(str(ROOT / "train.py"), "--config", recipe, *words),
    ]


def members(pid: int) -> List[int]:
    """A process and all that it has started, parents first."""
    return [pid, *descendants(pid)]


def send(combination: Combination, pid: int, dice: random.Random) -> None:
    """The signal, to the processes that get it."""
    if combination.target == "leader":
        os.kill(pid, combination.number)
        return
    every = members(pid)
    os.killpg(pid, combination.number)
    if combination.target == "both":
        dice.shuffle(every)
        for each in every:
            try:
                os.kill(each, combination.number)
            except ProcessLookupError:
                continue


def recorded(run: Path) -> int:
    """The last step in metrics.csv."""
    path = run / "metrics.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return max((int(row["step"]) for row in csv.DictReader(file) if row["loss"]), default=0)


def try_once(
    combination: Combination, job: Path, run: Path, *, seed: int, moment: str = "training"
) -> Optional[str]:
    """What went wrong; None: nothing."""
    dice = random.Random(seed)
    environ = {**os.environ, "LAUNCH_PYTHON": sys.executable}
    environ["LAUNCH_OPTIONS"] = f"--logs {run}.logs"
    # A shell lets what it runs in the background ignore Ctrl-C, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = Path(f"{run}.log")
    with output.open("wb") as log:
        process = subprocess.Popen(
            command(combination, job, run),
            stdout=log,
            stderr=log,
            env=environ,
            cwd=job,
            start_new_session=True,
        )
    try:
        if not _wait(process, run, output, moment, dice):
            return f"ended by itself: {_last_line(output)}"
        before = members(process.pid)
        send(combination, process.pid, dice)
        code = process.wait(120)
    except subprocess.TimeoutExpired:
        return f"does not end: {_last_line(output)}"
    finally:
        for each in members(process.pid):
            if process.poll() is None:
                os.kill(each, signal.SIGKILL)
        process.wait()
    return _problem(combination, run, output, code, before)


def _wait(
    process: subprocess.Popen, run: Path, output: Path, moment: str, dice: random.Random
) -> bool:
    """Until the moment has come; False: the job has ended before."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if moment == "training" and recorded(run) >= 3:
            break
        if moment == "compiling" and b"includes the compilation" in output.read_bytes():
            break
        time.sleep(0.05)
    time.sleep(dice.random() * (1 if moment == "training" else 0.3))
    return process.poll() is None


def _problem(
    combination: Combination, run: Path, output: Path, code: int, before: List[int]
) -> Optional[str]:
    text = output.read_text(errors="replace")
    said = [line for line in text.splitlines() if f"signal {combination.number:d}: saved" in line]
    if len(said) != 1:
        return f"{len(said)} lines say what was saved; exit {code}: {_last_line(output)}"
    if not said[0].endswith(f"at step {recorded(run)}; continue with --resume auto"):
        return f"recorded {recorded(run)} steps, but {said[0]}"
    if code != 128 + combination.number:
        return f"exit {code}: {_last_line(output)}"
    if "Traceback" in text:
        return f"a traceback: {text[text.index('Traceback') :].strip()}"
    if not (run / "last.ckpt").exists():
        return "no checkpoint"
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in before):
        if time.monotonic() > deadline:
            return "processes are left"
        time.sleep(0.1)
    return None


def _last_line(output: Path) -> str:
    return (output.read_text(errors="replace").strip().splitlines() or ["(nothing)"])[-1][-150:]


def table(good: Dict[Combination, int], tries: Dict[Combination, int]) -> str:
    """Saved and all tries, one line for workers and start."""
    names = [f"{number.name} to {target}" for target in TARGETS for number in SIGNALS]
    lines = [f"| workers | start | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for workers, start in itertools.product(WORKERS, STARTS):
        kinds = [Combination(workers, start, t, number) for t in TARGETS for number in SIGNALS]
        if not any(tries.get(kind) for kind in kinds):
            continue
        cells = [f"{good.get(kind, 0)} of {tries.get(kind, 0)}" for kind in kinds]
        lines.append(f"| {workers} | {start} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--only", default="", help="combinations whose name has this part")
    parser.add_argument("--when", choices=MOMENTS, default="training")
    options = parser.parse_args()
    chosen = [each for each in ALL if options.only in str(each)]
    good: Dict[Combination, int] = {}
    tries: Dict[Combination, int] = {}
    with tempfile.TemporaryDirectory() as name:
        job = Path(name)
        write_job(job)
        for number, combination in itertools.product(range(options.tries), chosen):
            run = job / f"run_{number}_{ALL.index(combination)}"
            problem = try_once(combination, job, run, seed=number, moment=options.when)
            tries[combination] = tries.get(combination, 0) + 1
            good[combination] = good.get(combination, 0) + (problem is None)
            print(f"{number + 1}: {combination}: {problem or 'saved'}", file=sys.stderr, flush=True)
    print(table(good, tries))
    return int(good != tries)


if __name__ == "__main__":
    sys.exit(main())
