"""Runs the programs in environments that containers, clusters and other users have.

`python tests/environments.py [--only NAME ...]` prints a table, environment by program: `ok`, or
the end of the error. Exit code 1 when one is not ok. Needs root (another user, mounts of its own).
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600
USER = 23456  # that no list of users knows
RECIPE = """\
arch: cct_2_3x2_32
image_size: 16
drop_path_rate: 0.0
model_args: {num_layers: 1, n_conv_layers: 1, attention_dropout: 0.0}
set: ImageNet
batch_size: 16
num_parallel_workers: 2
hflip: 0.0
crop_pct: 1.0
log_interval: 1
epochs: 1
"""
# A folder on which files can neither be brought to the disk nor have a second name.
NO_FSYNC: Dict[str, Optional[str]] = {
    "LD_PRELOAD": "{place}/failing_calls.so",
    "FAIL_UNDER": "{place}/",
    "FAIL": f"fsync={errno.EINVAL} fsync_folder={errno.EINVAL} link={errno.EPERM}",
}
# Python may lie where only root reads, in /root; so this user reads all, and writes nothing.
READS = "+dac_read_search"
AS_USER = (
    f"setpriv --reuid {USER} --regid {USER} --clear-groups "
    f"--inh-caps {READS} --ambient-caps {READS}"
)
EVERYTHING_READ_ONLY = """
mount --bind "$PLACE/out" "$PLACE/out"
mount -o remount,bind,ro /
mount -o remount,bind,rw "$PLACE/out"
"""


@dataclass(frozen=True)
class Environment:
    """How a program is started.

    Attributes:
        mounts: shell commands before it, in a mount namespace of its own; PLACE is the folder.
        prefix: words before it.
        variables: set, or with None unset.
        flags: of Python.
        keys: added to training.
        cwd: where it is started; None: the repository.
    """

    mounts: str = ""
    prefix: str = ""
    variables: Dict[str, Optional[str]] = field(default_factory=dict)
    flags: str = ""
    keys: Sequence[str] = ()
    cwd: Optional[str] = None


NO_HOME: Dict[str, Optional[str]] = {"HOME": None, "XDG_CACHE_HOME": None}
ASCII: Dict[str, Optional[str]] = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}
PROCESSES = ("--python_multiprocessing", "True")
ENVIRONMENTS: Dict[str, Environment] = {
    "as usual": Environment(),
    "no HOME": Environment(variables=NO_HOME),
    "unknown uid": Environment(prefix=AS_USER, variables=NO_HOME),
    "HOME=/": Environment(prefix=AS_USER, variables={**NO_HOME, "HOME": "/"}),
    "HOME missing": Environment(prefix=AS_USER, variables={**NO_HOME, "HOME": "/nonexistent"}),
    "all read-only": Environment(mounts=EVERYTHING_READ_ONLY, variables=NO_HOME),
    "ASCII": Environment(variables=ASCII),
    "LC_ALL=C": Environment(variables={"LC_ALL": "C"}),
    "shm of 64 MB": Environment(
        mounts="mount -t tmpfs -o size=64m,noexec tmpfs /dev/shm", keys=PROCESSES
    ),
    "no fsync, links": Environment(variables=NO_FSYNC),
    "noexec cache": Environment(
        mounts='mount -t tmpfs -o noexec,mode=777 tmpfs "$PLACE/cache"',
        variables={"XDG_CACHE_HOME": "{place}/cache"},
    ),
    "noexec cache, tmp": Environment(
        mounts='mount -t tmpfs -o noexec,mode=777 tmpfs "$PLACE/cache"',
        variables={"XDG_CACHE_HOME": "{place}/cache", "TMPDIR": "{place}/cache"},
    ),
    "TMPDIR missing": Environment(variables={"TMPDIR": "/nonexistent"}),
    "TMPDIR full": Environment(
        mounts='mount -t tmpfs -o size=64k tmpfs "$PLACE/cache" && '
        'dd if=/dev/zero of="$PLACE/cache/all" 2>/dev/null || true',
        variables={"TMPDIR": "{place}/cache"},
    ),
    "cache full": Environment(
        mounts='mount -t tmpfs -o size=64k tmpfs "$PLACE/cache" && '
        'dd if=/dev/zero of="$PLACE/cache/all" 2>/dev/null || true',
        variables={"XDG_CACHE_HOME": "{place}/cache"},
    ),
    "cwd read-only": Environment(prefix=AS_USER, variables=NO_HOME, cwd="/"),
    "python -P": Environment(flags="-P", cwd="/tmp"),
    "Turkish, odd TZ": Environment(
        variables={"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "TZ": "Nowhere/Odd:+5:45"}
    ),
}


def programs(place: Path) -> Dict[str, List[str]]:
    """Program -> its words; each needs what those before it have left."""
    out, data = place / "out", ["--data_url", str(place / "data")]
    recipe = ["--config", str(place / "recipe.yaml"), *data]
    training = ["train.py", *recipe, "--train_url", str(out / "run")]
    best = ["--pretrained", str(out / "run" / "best.ckpt")]
    evaluation = ["--train_url", str(out / "eval"), "--report", str(out / "report")]
    more = ["--resume", "auto", "--epochs", "2", "--allow_config_change", "True"]
    predictions = ["--save_pictures", str(out / "pictures"), "--output", "csv"]
    return {
        "train": training,
        "resume": [*training, *more],
        "eval": ["eval.py", *best, *data, *evaluation],
        "predict": ["predict.py", *best, "--input", str(place / "data" / "val"), *predictions],
        "export": ["export.py", *best, "--output", str(out / "net.mindir")],
        "preview": ["scripts/preview_augment.py", *recipe, "--train_url", str(out)],
        "plot": ["scripts/plot_runs.py", str(out / "run"), "--output", str(out / "runs.png")],
        "pack": ["scripts/pack_dataset.py", *data, "--output", str(out / "packed")],
        "doctor": ["scripts/doctor.py", "--no_probe"],
    }


def prepare(place: Path) -> None:
    """Data with names that no encoding has, a recipe, and a folder that every user may write."""
    rng = np.random.default_rng(0)
    names = (b"cat", "狗".encode(), b"\xb9\xb7")
    for split in (b"train", b"val"):
        for number, name in enumerate(names):
            folder = os.path.join(os.fsencode(place), b"data", split, name)
            os.makedirs(folder)
            for index in range(20):
                pixels = rng.normal(40 + 80 * number, 20, (20, 20, 3)).clip(0, 255)
                image = b"%d\xc3\xa9\xb9.png" % index
                with open(os.path.join(folder, image), "wb") as file:
                    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    (place / "recipe.yaml").write_text(RECIPE)
    for folder in (place, place / "out", place / "cache"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    source = str(ROOT / "tests" / "failing_calls.c")
    command = ["cc", "-shared", "-fPIC", "-o", "failing_calls.so", source, "-ldl"]
    subprocess.run(command, cwd=place, check=True)


def started(environment: Environment, place: Path, words: Sequence[str]) -> int:
    """The exit code of Python with these words; what it said is in `place`/log."""
    variables = dict(os.environ)
    for name, value in environment.variables.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value.format(place=place)
    python = [sys.executable, *shlex.split(environment.flags)]
    command = [*shlex.split(environment.prefix), *python, *words]
    if environment.mounts:
        script = f'set -e\n{environment.mounts}\nexec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
        variables["PLACE"] = str(place)
    with (place / "log").open("wb") as log:
        return subprocess.run(
            ["timeout", str(TIMEOUT_S), *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd=environment.cwd or ROOT,
        ).returncode


def cell(environment: Environment, place: Path, words: Sequence[str]) -> str:
    """`ok`, or what went wrong."""
    more = environment.keys if words[0] == "train.py" else ()
    code = started(environment, place, [str(ROOT / words[0]), *words[1:], *more])
    said = (place / "log").read_text(encoding="utf-8", errors="replace").split("\n")
    is_bug = "Traceback (most recent call last):" in said
    # What doctor.py finds broken is its answer.
    if not is_bug and (code == 0 or (words[0] == "scripts/doctor.py" and code == 1)):
        return "ok"
    return f"{code}: {next((line for line in reversed(said) if line.strip()), '')}"


def row(name: str, only: Sequence[str], show: Callable[[str, str], None]) -> Dict[str, str]:
    """Program -> cell of one environment, in a place of its own; `-`: cannot be made here."""
    cells: Dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        can_be = started(ENVIRONMENTS[name], place, ["-c", ""]) == 0
        for program, words in programs(place).items():
            if not only or program in only:
                cells[program] = cell(ENVIRONMENTS[name], place, words) if can_be else "-"
                show(program, cells[program])
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS))
    parser.add_argument("--programs", nargs="*", choices=list(programs(Path())), default=[])
    arguments = parser.parse_args()
    heads = arguments.programs or list(programs(Path()))
    print("".join(word.ljust(9 if i else 20) for i, word in enumerate(["", *heads])))
    faults: List[str] = []

    def show(program: str, found: str) -> None:
        is_fault = found not in ("ok", "-")
        print(("FAULT" if is_fault else found).ljust(9), end="", flush=True)
        if is_fault:
            faults.append(f"{program}: {found}")

    for name in arguments.only:
        print(name.ljust(20), end="", flush=True)
        before = len(faults)
        row(name, arguments.programs, show)
        print("".join(f"\n    {fault}" for fault in faults[before:]), flush=True)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
