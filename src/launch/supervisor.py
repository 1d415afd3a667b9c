"""Looks after the processes of a launch: logs, death of one, signals, no orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from ..runtime.regular_files import UNLIMITED, open_regular
from ..runtime.standard_streams import drop_output, leave_terminal
from ..runtime.stop_signal import ENDING, MOMENT_S, held_signals
from .patience import LIMIT, who_was_silent

_POLL_S = 0.2
_TAIL_LINES = 30
# Of which these lines are looked for.
_TAIL_BYTES = 64 * 2**10
# Seconds for others to end by themselves, before they are asked to.
_SETTLE_S = 5.0
# Seconds for a step to end, or not, when a rank has given it up after a signal.
_STEP_S = 0.5
# Seconds for a killed process to go, which one that waits for a stalled disk does not.
_END_S = 5.0
# Seconds to save in, after a signal from outside.
_SAVE_S = 300.0
_PR_SET_CHILD_SUBREAPER = 36
_RANK_VARIABLES = (b"MS_ROLE=MS_WORKER", b"OMPI_COMM_WORLD_RANK=")
# From here on a rank tells how its cluster ends, a hundred lines that stay in its log.
_CLUSTER_IS_OVER = b"[CRITICAL] DISTRIBUTED("
# What msrun says of a rank that failed.
_RANK_CODE = re.compile(r"Error code: (-?[0-9]+)")


@dataclass(frozen=True)
class Process:
    """One process to start.

    Attributes:
        environ: variables it gets besides the inherited ones.
        log: file of its standard output and error.
        is_helper: the launch is over without it, and it is ended then.
        starts_ranks: it is a launcher itself; signals go to what it has started, not to it.
        shown: the log to repeat on the screen, when another than its own.
    """

    name: str
    command: List[str]
    environ: Mapping[str, str]
    log: Path
    is_helper: bool = False
    starts_ranks: bool = False
    shown: Optional[Path] = None


class _Running:
    def __init__(self, process: Process, environ: Dict[str, str]) -> None:
        self.process = process
        # Slurm signals all of a step's processes: these must outlive the ranks, which save.
        is_deaf = process.is_helper or process.starts_ranks
        held = held_signals() if is_deaf else contextlib.nullcontext()
        with process.log.open("w", encoding="utf-8") as log, held:
            # A session of its own: a signal to its group reaches whatever it starts, and Ctrl-C on
            # the terminal does not reach it behind our back.
            self.popen = subprocess.Popen(
                process.command,
                env={**environ, **process.environ},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """A signal to the process (or to the ranks that it has started)."""
        if number == signal.SIGKILL:
            for pid in {self.popen.pid, *descendants(self.popen.pid)}:
                _kill_group(pid)
        elif self.process.starts_ranks:
            for pid in filter(_is_rank, descendants(self.popen.pid)):
                _send(pid, number)
        else:
            _send(self.popen.pid, number)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_rank(pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(each.startswith(_RANK_VARIABLES) for each in variables)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        _send(pid, signal.SIGKILL)


def descendants(pid: int) -> List[int]:
    """Processes that `pid` has started, and those they have started, from /proc."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold blanks.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log."""
    try:
        with open_regular(path, UNLIMITED) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"({error})"
    return "\n".join(text.splitlines()[-lines:])


def exit_code(returncode: int) -> int:
    """As a shell reports it: 128 + N after signal N."""
    return 128 - returncode if returncode < 0 else returncode


class _Follower(threading.Thread):
    """Repeats what is written to a log, until nothing more comes or the cluster is over."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._is_over = threading.Event()

    def run(self) -> None:
        position = 0
        while True:
            is_last = self._is_over.is_set()
            if self._path.exists():
                with open_regular(self._path, UNLIMITED) as log:
                    log.seek(position)
                    text = log.read()
                position += len(text)
                text, mark, _rest = text.partition(_CLUSTER_IS_OVER)
                is_last = is_last or bool(mark)
                try:
                    # A piece for each return: at its start a screen takes one.
                    sys.stdout.writelines(re.split(r"(?=\r)", text.decode("utf-8", "replace")))
                    sys.stdout.flush()
                except OSError:  # `| head` has seen enough; the ranks go on
                    drop_output(sys.stdout)
            if is_last:
                return
            self._is_over.wait(_POLL_S)

    def finish(self) -> None:
        self._is_over.set()
        self.join(_END_S)


class _Signals:
    """The first signal goes to every rank; one after `MOMENT_S` kills them all."""

    def __init__(self, running: List[_Running]) -> None:
        self.received: Optional[int] = None
        self._received_at = 0.0
        self._running = running
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: Optional[FrameType]) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            for each in self._running:
                self.pass_on(each)
        elif now - self._received_at >= MOMENT_S:
            for each in self._running:
                each.send(signal.SIGKILL)

    def pass_on(self, running: _Running) -> None:
        """Tells a rank of the signal that has come, if one has."""
        if self.received is not None and not running.process.is_helper:
            running.send(self.received)


def supervise(
    processes: Sequence[Process],
    environ: Dict[str, str],
    *,
    grace_s: float,
    advice: Callable[[], str] = lambda: "start it again",
) -> int:
    """Runs all of `processes` to their end; the log of the first rank is repeated on the screen.

    When one fails, the others have some seconds to end by themselves, then get SIGTERM, and
    `grace_s` seconds after the failure SIGKILL; the last 30 lines of the failing one's log are
    printed. A rank that waits for a dead one in a collective hears no SIGTERM, hence the limit.
    When it was given up for its silence, one line says so, and nothing of the logs is printed.

    Args:
        advice: what is saved and how to go on, asked for after such a silence.

    Returns:
        0, or the exit code of the first that failed; 128 + N when signal N ended the launch.
    """
    _prepare(processes)
    running: List[_Running] = []
    signals = _Signals(running)
    ranks = [process for process in processes if not process.is_helper]
    shown, size = ranks[0].shown or ranks[0].log, ranks[0].environ.get("MS_WORKER_NUM")
    follower = _Follower(shown)
    try:
        for process in processes:
            if signals.received is None:
                running.append(_Running(process, environ))
                signals.pass_on(running[-1])  # it may have come meanwhile
        follower.start()
        failed = _wait(running)
        is_own = failed is not None and signals.received is None
        silent = who_was_silent(_cluster_logs(processes), size) if is_own else None
        if silent is not None:
            follower.finish()  # what the others say of it stays in their logs
        if failed is not None:
            _end_others(running, failed, grace_s, signals)
    finally:
        _end_all(running)
        if follower.is_alive():
            follower.finish()
    if failed is None:
        was_stopped = signals.received is not None and len(running) < len(processes)
        return 128 + (signals.received or 0) if was_stopped else 0
    if silent is not None:
        limit = ranks[0].environ.get(LIMIT, environ.get(LIMIT))
        return _report_silence(silent, limit, f"{advice()}; logs: {ranks[0].log.parent}")
    return _report(failed, signals.received, shown)


def _prepare(processes: Sequence[Process]) -> None:
    for log in _cluster_logs(processes):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)  # of an earlier launch
    # The ranks inherit what is blocked here, and Ctrl-C must reach them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # What a launcher below leaves behind becomes our child, so it can be found and ended.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_all(running: List[_Running]) -> None:
    """Kills what still runs, and what that has left behind."""
    for each in running:
        if each.popen.poll() is None:
            each.send(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            each.popen.wait(_END_S)
    for pid in descendants(os.getpid()):
        _send(pid, signal.SIGKILL)


def _cluster_logs(processes: Sequence[Process]) -> List[Path]:
    """What scheduler and ranks of this host write to; msrun names the former's by itself."""
    logs = [process.log for process in processes]
    logs += [process.shown for process in processes if process.shown]
    return [*logs, *(p.log.with_name("scheduler.log") for p in processes if p.starts_ranks)]


def _wait(running: List[_Running]) -> Optional[_Running]:
    """Until all ranks have ended well (None) or one process has not (that one).

    msrun goes on for as long as a stopped rank does not end; its scheduler tells of it.
    """
    ranks = [each for each in running if not each.process.is_helper]
    while True:
        for each in running:
            if each.process.starts_ranks and who_was_silent(
                _cluster_logs([each.process])[-1:], None
            ):
                return each
        for each in [*ranks, *running]:
            if each.popen.poll() not in (None, 0):
                return each
        if all(each.popen.poll() == 0 for each in ranks):
            return None
        time.sleep(_POLL_S)


def _end_others(
    running: List[_Running], failed: _Running, grace_s: float, signals: _Signals
) -> None:
    is_alive = failed.popen.poll() is None
    others = [e for e in running if (is_alive or e is not failed) and not e.process.is_helper]
    if signals.received is not None:  # they know already, and save
        if _surrender(failed, signals.received):
            _wait_for(others, _STEP_S)
            # The others are left in a step that does not end.
            others = [each for each in others if _surrender(each, signals.received)]
        _wait_for(others, _SAVE_S)
        return
    settle_s = min(_SETTLE_S, grace_s / 4)
    _wait_for(others, settle_s)
    for each in others:
        if each.popen.poll() is None:
            each.send(signal.SIGTERM)
    _wait_for(others, grace_s - settle_s)


def _wait_for(running: List[_Running], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(each.popen.poll() is None for each in running):
        time.sleep(_POLL_S)


def _rank_code(failed: _Running) -> Optional[int]:
    """Of a launcher that starts ranks: the code of the one that failed, if it says so."""
    if not failed.process.starts_ranks:
        return None
    found = _RANK_CODE.search(tail(failed.process.log, 10_000))
    return int(found.group(1)) if found else None


def _has_saved(log: Path, number: int) -> bool:
    return f"signal {number}: saved" in tail(log, 200)


def _surrender(running: _Running, number: int) -> str:
    """What a rank says that ends because its images do not come; empty: it does not say that."""
    found = re.findall(f"signal {number}: gave up .*", tail(running.process.log))
    return found[-1] if found else ""


def _report(failed: _Running, received: Optional[int], shown: Path) -> int:
    """Says which process failed and how, after which signal; returns the exit code."""
    returncode = _rank_code(failed) or failed.popen.returncode
    code = exit_code(returncode)
    if received is not None and (code == 128 + received or _has_saved(shown, received)):
        # Threads of MindSpore's cluster crash now and then when its ranks end, after all is saved.
        how = "" if code == 128 + received else f", one with exit code {code} after it was saved"
        surrender = _surrender(failed, received)
        how += f"; {failed.process.name}: {surrender}" if surrender else ""
        _print(f"all ranks have ended after signal {received}{how}")
        return 128 + received
    process = failed.process
    how = f"ended with exit code {code}"
    if code > 128:
        how = f"was killed by signal {code - 128}"
        if code - 128 == signal.SIGKILL:
            how += " (the system, for want of memory?)"
    advice = ""
    if returncode < 0 and any(Path(word).name == "train.py" for word in process.command):
        advice = "; start it again, with train.py --resume auto"
    last = tail(process.log) or "(nothing)"
    _print(
        f"{process.name} {how}; the others have been ended{advice}. "
        f"The last {_TAIL_LINES} lines of {process.log}:\n{last}"
    )
    return code


def _report_silence(silent: str, limit: Optional[str], advice: str) -> int:
    longer = f"more than {limit} s (--rank_timeout)" if limit else "too long"
    _print(f"error: {silent} silent for {longer}, so all ranks have been ended; {advice}")
    return 1


def _print(text: str) -> None:
    # The screen may be gone.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
