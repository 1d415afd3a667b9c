"""Gives every reader hostile files and prints what came of each.

`python tests/hostile_files.py [--only READER ...] [--attacks NAME ...]` prints a line for each
reader and attack: exit code, seconds, MiB beyond what the process holds without the file; then a
table. Exit code 1 when one was accepted, took more than 10 s or 1 GiB, ended by a signal or with a
traceback, or said nothing on one line. Every reader first reads its good file.

A program runs in a fork of this process, which has imported what it needs.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hostile_attacks  # noqa: E402
import hostile_readers  # noqa: E402
from hostile_readers import READERS, Reader  # noqa: E402

LIMIT_S, LIMIT_MIB = 10.0, 1024.0
KILL_S = 600.0
GOOD = "its good file"


class Outcome(NamedTuple):
    """How a program ended, and what it took.

    Attributes:
        code: exit code; negative: of the signal that ended it.
        said: all it printed.
        mib: the most memory it or a child of it held, beyond what it held when it was started.
    """

    code: int
    said: str
    seconds: float
    mib: float

    def fault(self, is_good: bool) -> Optional[str]:
        """What is wrong with it; None: nothing."""
        lines = [line for line in self.said.splitlines() if re.match(r"(\S+: )?error: ", line)]
        if self.code < 0:
            return f"ended by signal {-self.code}"
        if "Traceback (most recent call last)" in self.said:
            return "traceback"
        if is_good:
            return None if self.code == 0 else f"refused: {self.said[-300:]}"
        if self.code == 0:
            return "accepted"
        if self.code != 2 or len(lines) != 1:
            return f"exit code {self.code}, {len(lines)} lines of error: {self.said[-300:]}"
        if self.seconds > LIMIT_S:
            return f"took {self.seconds:.0f} s"
        return f"took {self.mib:.0f} MiB" if self.mib > LIMIT_MIB else None

    def remark(self) -> str:
        """Its error, on one line."""
        found = re.findall(r"error: (.*)", self.said)
        return found[-1] if found else ""


def run(words: List[str], log: Path, *, anew: bool = False) -> Outcome:
    """Runs a program of the repository, or a compiled one, to its end.

    Args:
        anew: in an interpreter of its own. Graphs sometimes do not compile in a fork.
    """
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        _become(words, log, anew)
    deadline = start + KILL_S
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            deadline += KILL_S
        time.sleep(0.01)
    seconds = time.monotonic() - start
    text = log.read_text(encoding="utf-8", errors="replace")
    held, _, said = text.partition("\n")
    mib = (usage.ru_maxrss - int(held)) / 1024
    return Outcome(os.waitstatus_to_exitcode(status), said, seconds, mib)


def _become(words: List[str], log: Path, anew: bool) -> None:
    """Of the child: never returns."""
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(output, f"{held}\n".encode())
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not words[0].endswith(".py"):
        os.execv(words[0], words)
    if anew:
        os.execv(sys.executable, [sys.executable, str(ROOT / words[0]), *words[1:]])
    code = 70
    try:
        sys.argv = [str(ROOT / words[0]), *words[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Table:
    """What was found so far."""

    place: Path
    faults: List[str]
    rows: Dict[str, List[Outcome]]

    def give(self, reader: Reader, name: str, attack: Optional[Callable[..., None]]) -> None:
        """Puts a hostile file in the place of the good one, runs the program, puts it back."""
        victim = self.place / reader.file
        kept = victim.with_name(f"{victim.name}.kept")
        good = victim.read_bytes()
        os.rename(victim, kept)
        try:
            if attack is None:
                victim.write_bytes(good)
            else:
                attack(victim, good)
            hostile_attacks.remove(self.place / "out")
            (self.place / "out").mkdir()
            outcome = run(reader.command.split(), self.place / "log", anew=attack is None)
        finally:
            hostile_attacks.remove(victim)
            os.rename(kept, victim)
        fault = outcome.fault(is_good=attack is None)
        if (self.place / "ran").exists():
            fault = "it ran the file's code"
        print(
            f"{reader.name:24} {name:30} {outcome.code:4} {outcome.seconds:6.1f} s "
            f"{outcome.mib:7.0f} MiB  {'FAULT: ' + fault if fault else outcome.remark()[:160]}",
            flush=True,
        )
        if fault:
            self.faults.append(f"{reader.name}, {name}: {fault}")
        if attack is not None:
            self.rows.setdefault(reader.name, []).append(outcome)

    def print(self) -> None:
        """One row a reader, as Markdown."""
        print("\n| reader | attacks | refused | longest | most memory |\n|---|---|---|---|---|")
        for name, outcomes in self.rows.items():
            refused = sum(outcome.fault(is_good=False) is None for outcome in outcomes)
            slowest = max(outcome.seconds for outcome in outcomes)
            largest = max(outcome.mib for outcome in outcomes)
            print(f"| {name} | {len(outcomes)} | {refused} | {slowest:.1f} s | {largest:.0f} MiB |")


def made_for(readers: List[Reader], place: Path) -> List[Reader]:
    """Those of the readers whose good files could be made; says of the others why not."""
    hostile_readers.prepare_files(place)
    if any(reader.needs != "nothing" for reader in readers):
        hostile_readers.import_everything()
        hostile_readers.prepare_run(place, lambda words: run(words, place / "log", anew=True))
    if any(reader.needs == "Lite" for reader in readers):
        try:
            hostile_readers.prepare_lite(place)
        except pytest.skip.Exception as reason:
            print(f"without what needs MindSpore Lite: {reason}")
            return [reader for reader in readers if reader.needs != "Lite"]
    return readers


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [reader.name for reader in READERS]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--attacks", nargs="*", help="names of attacks (default: all)")
    arguments = parser.parse_args()
    readers = [reader for reader in READERS if reader.name in arguments.only]
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder), [], {})
        os.chdir(folder)
        for reader in made_for(readers, table.place):
            table.give(reader, GOOD, None)
            for name, attack in reader.attacks().items():
                if not arguments.attacks or name in arguments.attacks:
                    table.give(reader, name, attack)
        os.chdir(ROOT)
    table.print()
    print("".join(f"\nFAULT {fault}" for fault in table.faults))
    return int(bool(table.faults))


if __name__ == "__main__":
    sys.exit(main())
