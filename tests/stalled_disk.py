"""Programs whose disk stalls, and what one Ctrl-C makes of them.

python tests/stalled_disk.py [--only "train, processes"] [--python PYTHON]

A call of the C library (`failing_calls.c`, preloaded) never returns, in a thread that hears no
signal, as on a hard NFS mount whose server is gone. When it has begun the signal is sent, and then
wanted: the end within two seconds (a training run saves the last whole step before), exit code
128 + N, no traceback, no process and no shared memory left. What hangs in the main thread while a
run saves ends with a second signal. Prints a table in Markdown; ends with 1 when a try has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Set

from signals_matrix import ROOT, members, recorded, write_job

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds: the two that are allowed, and what a loaded machine takes for Python's own end.
LIMIT_S = 2.0
_SLACK_S = 2.0
# Between the first signal and the second.
_APART_S = 2.5


class Case(NamedTuple):
    """A program and what stalls.

    Attributes:
        words: of the command; JOB is the folder of `prepare`, RUN one of its own.
        call: of `failing_calls.c`.
        under: part of the path.
        step: so many are recorded before it stalls; 0: it does from the start.
        saves: the run has something to save, and can.
        signals: that end it.
        stalled_s: before the first signal; others of the run work until they need what hangs.
    """

    words: str
    call: str
    under: str
    step: int = 0
    saves: bool = False
    signals: int = 1
    stalled_s: float = 1.5


_TRAIN = "train.py --config JOB/tiny.yaml --data_url JOB/data --train_url RUN"
_DATA = "--data_url JOB/data"
_WEIGHTS = "--pretrained JOB/trained/last.ckpt"
_IMAGE, _VAL_IMAGE = "data/train/cat/007.png", "data/val/cat/007.png"
CASES: Dict[str, Case] = {
    "train, threads, an image": Case(_TRAIN, "read", _IMAGE, 9, saves=True),
    "train, processes, an image": Case(
        f"{_TRAIN} --python_multiprocessing", "read", _IMAGE, 9, saves=True
    ),
    "train, accumulating, an image": Case(
        f"{_TRAIN} --accumulation_step 2", "read", _IMAGE, 9, saves=True
    ),
    "train, an image to evaluate": Case(_TRAIN, "read", _VAL_IMAGE, 9, saves=True),
    "train, the first images": Case(_TRAIN, "open", "data/train/cat/0"),
    "train, the list of images": Case(f"{_TRAIN} --cache_dir RUN.cache", "list", "data/train"),
    "train, its recipe": Case(_TRAIN, "read", "tiny.yaml"),
    "train, the lock": Case(_TRAIN, "open", ".run.lock"),
    "train, the checkpoint to go on from": Case(
        f"{_TRAIN.replace('RUN', 'JOB/trained')} --resume auto", "read", "trained/last.ckpt"
    ),
    "train, the checkpoint it writes": Case(
        f"{_TRAIN} --save_steps 1", "fsync", ".last.", 9, signals=2
    ),
    "launcher, an image": Case(
        f"scripts/launch.py --launcher cluster --nproc 2 --logs RUN.logs -- {_TRAIN}",
        *("read", _IMAGE, 9),
        stalled_s=14.0,
    ),
    "launcher, a rank table": Case(
        "scripts/launch.py --launcher rank_table --rank_table JOB/table.json --logs RUN.logs "
        f"-- {_TRAIN}",
        *("open", "table.json"),
    ),
    "eval, threads, an image": Case(f"eval.py {_WEIGHTS} {_DATA}", "read", _VAL_IMAGE),
    "eval, processes, an image": Case(
        f"eval.py {_WEIGHTS} {_DATA} --python_multiprocessing", "read", _VAL_IMAGE
    ),
    "eval, the weights": Case(f"eval.py {_WEIGHTS} {_DATA}", "read", "trained/last.ckpt"),
    "predict, an image": Case(f"predict.py {_WEIGHTS} --input JOB/data/val", "read", _VAL_IMAGE),
    "predict, the list of images": Case(
        f"predict.py {_WEIGHTS} --input JOB/data/val", "list", "data/val"
    ),
    "export, the weights": Case(
        f"export.py {_WEIGHTS} --output RUN.mindir", "read", "trained/last.ckpt"
    ),
    "preprocess, an image": Case(
        f"preprocess.py {_WEIGHTS} {_DATA} --result_path RUN", "read", _VAL_IMAGE
    ),
    "postprocess, the results": Case(
        "postprocess.py --result_dir JOB --dataset_name imagenet --label_file JOB/label.json",
        "open",
        "label.json",
    ),
    "pack, an image": Case(
        f"scripts/pack_dataset.py {_DATA} --output RUN --images_per_shard 16", "read", _IMAGE
    ),
    "pack, the list of images": Case(
        f"scripts/pack_dataset.py {_DATA} --output RUN", "list", "data/train"
    ),
    "preview, an image": Case(
        f"scripts/preview_augment.py --config JOB/tiny.yaml {_DATA}", "read", "data/train/cat/0"
    ),
    "convert, the weights": Case(
        "scripts/convert_weights.py --arch cct_2_3x2_32 --input JOB/trained/last.ckpt "
        "--output RUN.ckpt",
        *("read", "trained/last.ckpt"),
    ),
    "average, a checkpoint": Case(
        "scripts/average_checkpoints.py JOB/trained/last.ckpt JOB/trained/best.ckpt "
        "--output RUN.ckpt",
        *("read", "trained/best.ckpt"),
    ),
    "plot, the records": Case(
        "scripts/plot_runs.py JOB/trained --output RUN.png", "open", "metrics.csv"
    ),
    "doctor, a script": Case("scripts/doctor.py --no_probe", "open", "scripts/run_infer_310.sh"),
}


class Ended(NamedTuple):
    """What became of a try; seconds from the last signal; None: all as it should be."""

    seconds: float
    said: str
    problem: Optional[str]


def prepare(job: Path) -> None:
    """The data, a trained run, the library and what else the commands name."""
    write_job(job)
    (job / "table.json").write_text("{}")
    (job / "label.json").write_text("{}")
    library = str(job / "failing_calls.so")
    source = str(ROOT / "tests" / "failing_calls.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)


def train(job: Path) -> None:
    """The run whose checkpoint others read."""
    words = _words(_TRAIN, job, job / "trained")
    done = subprocess.run([sys.executable, *words, "--epochs", "1"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def _words(words: str, job: Path, run: Path) -> List[str]:
    return words.replace("JOB", str(job)).replace("RUN", str(run)).split()


def try_once(name: str, number: signal.Signals, job: Path, run: Path, python: str) -> Ended:
    """Starts the program, lets its disk stall, sends the signal and waits for the end."""
    case, when, log = CASES[name], Path(f"{run}.when"), Path(f"{run}.log")
    environ = {
        **os.environ,
        "LD_PRELOAD": str(job / "failing_calls.so"),
        "FAIL": f"{case.call}=hang",
        "FAIL_UNDER": case.under,
        "FAIL_WHEN": str(when),
        "LAUNCH_PYTHON": python,
    }
    if not case.step:
        when.touch()
    # A shell lets what it runs in the background ignore Ctrl-C, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *_words(case.words, job, run)],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        if not _wait(process, case, run, when):
            return Ended(0.0, _last(log), "ended before it stalled")
        every = members(process.pid)
        shared = _shared_memory(every)
        for again in range(case.signals):
            time.sleep(_APART_S if again else 0.3)
            start = time.monotonic()
            process.send_signal(number)
        process.wait(60)
        seconds = time.monotonic() - start
    except subprocess.TimeoutExpired:
        return Ended(60.0, _last(log), "does not end")
    finally:
        for each in members(process.pid) if process.poll() is None else []:
            os.kill(each, signal.SIGKILL)
        process.wait()
    problem = _problem(case, number, run, log, process.returncode)
    if problem is None and seconds > LIMIT_S + _SLACK_S:
        problem = f"took {seconds:.1f} s"
    left = [path for path in shared if Path(path).exists()]
    if problem is None and (left or not _are_gone(every)):
        problem = f"processes or shared memory are left: {left}"
    return Ended(seconds, _last(log), problem)


def _wait(process: subprocess.Popen, case: Case, run: Path, when: Path) -> bool:
    """Until the call hangs; False: it does not come to that."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if case.step and not when.exists() and recorded(run) >= case.step:
            when.touch()
        if Path(f"{when}.hangs").exists():
            time.sleep(case.stalled_s)
            return process.poll() is None
        time.sleep(0.05)
    return False


def _problem(case: Case, number: int, run: Path, log: Path, code: int) -> Optional[str]:
    text = log.read_text(errors="replace")
    if "Traceback" in text or "leaked" in text:
        return f"a traceback or a leak: {text[-600:]}"
    if code != 128 + number:
        return f"exit code {code}"
    if not case.saves:
        return None
    saved = re.findall(rf"signal {number}: saved .* at step (\d+); continue", text)
    if [int(step) for step in saved] != [recorded(run)] or not (run / "last.ckpt").exists():
        return f"saved {saved}, recorded {recorded(run)}"
    return None if f"signal {number}: gave up its next step: " in text else "nothing says what hung"


def _shared_memory(pids: List[int]) -> Set[str]:
    """Files of it that the processes use."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids if Path(f"/proc/{pid}").exists()]
    return set(re.findall(r"/dev/shm/psm_\w+", "".join(maps)))


def _are_gone(pids: List[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["(nothing)"]
    return re.sub(r"/\S*/", "", lines[-1])[-150:]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this part")
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    failed = 0
    print(
        "| program, what stalls | signal | ends after | last line |\n|---|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder)
        prepare(job)
        train(job)
        for index, name in enumerate(name for name in CASES if options.only in name):
            for number in SIGNALS:
                run = job / f"run_{index}_{number:d}"
                seconds, said, problem = try_once(name, number, job, run, options.python)
                failed += problem is not None
                twice = ", twice" if CASES[name].signals > 1 else ""
                shown = f"{seconds:.1f} s" if problem is None else f"**{problem}**"
                print(f"| {name} | {number.name}{twice} | {shown} | {said} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
